"""What a report lets the models draw."""

from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.images import class_strips


def test_class_without_training_images_has_no_row(rgb_run):
    found = GenerationPipeline.from_pretrained(rgb_run)
    pipeline = GenerationPipeline(found.vqvae, found.prior, ("cat", "dog"), (0, 9))
    assert [strip.name for strip in class_strips(pipeline, seed=0)] == ["dog"]
