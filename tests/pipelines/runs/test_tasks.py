"""Both stages as the trainer sees them."""

import itertools

import numpy as np
import pytest
import torch

from pipelines.data.image_set import ImageSet
from pipelines.runs import batches
from pipelines.runs.batches import (
    code_batches,
    image_batches,
    labelled_batches,
    reconstruct_images,
)
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.tasks import PriorTask, VQVAETask
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training.batches import BatchPlan, index_batches
from pipelines.training.muon import muon_weights
from stage1_vqvae.code_dump import CodeDump, SplitCodes
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import measure_reconstruction
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, GumbelConfig, SimVQConfig
from stage2_prior.config import PixelCNNConfig, TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior
from stage2_prior.spec import FeatureSpec, PriorSpec

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(batches, "_EVALUATION_BATCH", 4)


def image_set(count, labels=True):
    """Images whose pixels are their index."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    return ImageSet(images, np.arange(count) % 3 if labels else None)


def split_codes(count, labels=True):
    """Two grids of codes, which `to_sequence` has to join."""
    fine = torch.arange(count * 4, dtype=torch.int32).view(count, 2, 2) % 8
    coarse = torch.arange(count, dtype=torch.int32).view(count, 1, 1) % 5
    return SplitCodes((coarse, fine), torch.arange(count) % 3 if labels else None)


def prior_task(labels=True, train=9, **config):
    torch.manual_seed(0)
    grids = (GridSpec(1, 1, 5), GridSpec(2, 2, 8))
    config = TransformerConfig(num_layers=1, width=4, num_heads=1, **config)
    prior = build_prior(config, PriorSpec(grids=grids, num_classes=3))
    splits = {name: split_codes(9, labels) for name in ("validation", "test")}
    splits["train"] = split_codes(train, labels)
    return PriorTask(prior, CodeDump(splits, (5, 8), 3 if labels else None, "hash"))


def vqvae_task(count, batch_size=8, **options):
    quantizer = EMAQuantizerConfig(codebook_size=4, codebook_dim=2, kmeans_batches=3)
    config = VQVAEConfig(width=4, fine_width=4, num_layers=0, quantizer=quantizer)
    model = VQVAE(config, (1, 8, 8))
    return VQVAETask(model, image_set(count), image_set(3), batch_size, **options)


def test_image_batches_give_every_image_once_in_order():
    found = list(image_batches(image_set(9), CPU))
    assert [len(batch) for batch in found] == [4, 4, 1]
    assert torch.cat(found)[:, 0, 0, 0].tolist() == list(range(9))


def test_images_of_another_size_are_reconstructed_at_that_size():
    model = vqvae_task(9).objective.model.eval()
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 7, 13), dtype=np.uint8)
    reconstructed = reconstruct_images(model, ImageSet(images))  # in batches of 4, 4 and 1
    expected = model.decode(model.encode(torch.from_numpy(images)))[:, :, :7, :13]
    assert reconstructed.shape == (9, 1, 7, 13)
    # Another number of images in a convolution may turn the rounding of a pixel.
    assert np.abs(reconstructed.astype(int) - expected.numpy().astype(int)).max() <= 1


@pytest.mark.parametrize("labels", [True, False])
def test_labelled_batches_give_each_image_its_label(labels):
    images, given = zip(*labelled_batches(image_set(9, labels), CPU), strict=True)
    assert torch.cat(images)[:, 0, 0, 0].tolist() == list(range(9))
    if labels:
        assert torch.cat(given).tolist() == [0, 1, 2] * 3
    else:
        assert given == (None, None, None)


@pytest.mark.parametrize("labels", [True, False])
def test_code_batches_give_every_grid_and_label_once_in_order(labels):
    split = split_codes(9, labels)
    codes, given, contexts = zip(*code_batches(split), strict=True)
    assert contexts == (None, None, None)
    for grid, whole in zip(zip(*codes, strict=True), split.codes, strict=True):
        assert torch.cat(grid).equal(whole.long())
    if labels:
        assert torch.cat(given).equal(split.labels)
    else:
        assert given == (None, None, None)


def first_batch(task, size):
    """Indices of the first batch of a training, and the batch."""
    plan = BatchPlan(seed=0, batch_size=size)
    indices = next(index_batches(plan, task.num_training_examples))
    return indices, next(task.batches(plan, CPU))


def test_vqvae_batch_is_the_images_of_the_plan():
    indices, (images,) = first_batch(vqvae_task(9), 12)
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == indices.tolist()


def test_vqvae_batch_is_what_the_augmentation_shows_of_the_images():
    task = vqvae_task(9, augmentation=VQVAEAugmentationConfig(crop=4))
    indices, (images,) = first_batch(task, 12)
    assert images.shape == (12, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == indices.tolist()


def test_vqvae_starts_from_each_training_image_once_per_round(monkeypatch):
    task, seen = vqvae_task(70, augmentation=VQVAEAugmentationConfig(crop=4)), []

    def initialise(batches):
        seen.extend(list(itertools.islice(batches, 4)))

    monkeypatch.setattr(task.objective, "initialise", initialise)
    torch.manual_seed(0)
    task.prepare(CPU)
    assert [batch.shape for batch in seen] == [(n, 1, 8, 8) for n in (64, 6, 64, 6)]
    once = torch.cat(seen[:2])[:, 0, 0, 0].tolist()
    assert sorted(once) == list(range(70))
    assert once != list(range(70))


@pytest.mark.parametrize("batch_size", [24, 512])
def test_vqvae_usage_starts_as_that_of_a_training_batch(batch_size):
    task = vqvae_task(70, batch_size)
    task.prepare(CPU)
    usage = task.objective.model.quantizer.usage_average
    assert usage.tolist() == [batch_size * 2 * 2 / 4] * 4  # 2x2 positions, 4 codes


def test_vqvae_usage_is_that_of_crops():
    task = vqvae_task(70, 24, augmentation=VQVAEAugmentationConfig(crop=4))
    task.prepare(CPU)
    usage = task.objective.model.quantizer.usage_average
    assert usage.tolist() == [24 / 4] * 4  # 1x1 position, 4 codes


def test_vqvae_that_goes_on_with_a_codebook_scales_its_usage():
    task = vqvae_task(70, 24, has_codebook=True)
    quantizer = task.objective.model.quantizer
    quantizer.usage_average.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    before = quantizer.codebook.clone()
    task.prepare(CPU)
    torch.testing.assert_close(quantizer.usage_average, 9.6 * torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(quantizer.codebook, before)


def test_vqvae_progress_ends_the_restarts():
    task = vqvae_task(9)
    task.set_progress(0.0)
    assert task.objective.model.quantizer._restarts
    task.set_progress(1.0)
    assert not task.objective.model.quantizer._restarts


def test_prior_progress_ends_the_random_orders():
    task = prior_task(any_order=True, random_order_share=0.0)
    task.set_progress(0.0)
    assert task.objective.random_share == 1
    task.set_progress(1.0)
    assert task.objective.random_share == 0


def moved(split, offset):
    """The split with each code `offset` further, to tell views apart."""
    fine, coarse = split.codes[1], split.codes[0]
    return SplitCodes(((coarse + offset) % 5, (fine + offset) % 8), split.labels)


def task_with_views(first_share, last_share, num_extra_labels=16):
    """A task on 9 images in five views, the codes of view v being v further."""
    grids = (GridSpec(1, 1, 5), GridSpec(2, 2, 8))
    config = TransformerConfig(num_layers=1, width=4, num_heads=1)
    spec = PriorSpec(grids=grids, num_classes=3, num_extra_labels=num_extra_labels)
    prior = build_prior(config, spec)
    splits = {name: split_codes(9) for name in ("train", "validation", "test")}
    views = [moved(splits["train"], v) for v in range(1, 5)]
    augmentation = PriorAugmentationConfig(shift=1, first_share=first_share, last_share=last_share)
    return PriorTask(prior, CodeDump(splits, (5, 8), 3, "hash"), views, augmentation)


def test_prior_batch_has_the_codes_of_the_views_it_names():
    task = task_with_views(0.5, 0.5)
    torch.manual_seed(0)
    indices, (sequences, labels, context, null_labels) = first_batch(task, 180)
    assert context is None
    # View v of label y is label y + 4 v, of three classes and none.
    views = null_labels // 4
    assert set(views.tolist()) == {0, 1, 2, 3, 4}
    assert null_labels.equal(3 + 4 * views)
    assert labels.equal(indices % 3 + 4 * views)
    coarse, fine = split_codes(9).codes
    expected = torch.cat([coarse.flatten(1), fine.flatten(1)], dim=1)[indices] + views[:, None]
    assert sequences.equal(expected % torch.tensor([5, 8, 8, 8, 8]))


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 0.9), (0.5, 0.5), (1.0, 0.1)])
def test_share_of_other_views_falls_linearly_and_is_the_same_for_each(fraction, share):
    task, count = task_with_views(0.9, 0.1), 20_000
    task.set_progress(fraction)
    torch.manual_seed(0)
    _, (*_, null_labels) = first_batch(task, count)
    found = torch.bincount(null_labels // 4, minlength=5) / count
    expected = torch.tensor([1 - share, *[share / 4] * 4])
    # Four standard deviations of a frequency near one half.
    assert (found - expected).abs().max() < 4 * 0.5 / count**0.5


def test_prior_batch_and_validation_have_the_context_of_their_images():
    spec = PriorSpec(grids=(GridSpec(1, 1, 5), GridSpec(2, 2, 8)), context=FeatureSpec(1, 1, 2))
    prior = build_prior(TransformerConfig(num_layers=1, width=4, num_heads=1), spec)
    splits = {name: split_codes(9, labels=False) for name in ("train", "validation", "test")}
    context = torch.randn(9, 1, 2)
    contexts = {"train": context, "validation": context.flip(0)}
    task = PriorTask(prior, CodeDump(splits, (5, 8), None, "hash"), context=contexts)
    indices, (sequences, labels, given) = first_batch(task, 6)
    assert labels is None
    assert len(sequences) == 6
    assert given.equal(context[indices])
    codes = tuple(grid.long() for grid in splits["train"].codes)
    for name, given in (("train_bits_per_code", context), ("bits_per_code", context.flip(0))):
        nats = -prior.log_prob(codes, context=given)
        expected = (nats.sum() / (9 * 5) / np.log(2)).item()
        assert task.validate(CPU)[name] == pytest.approx(expected, rel=1e-6)


def test_prior_of_other_views_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"num_extra_labels 16 .*got 4"):
        task_with_views(0.5, 0.5, num_extra_labels=4)


def test_without_another_view_a_batch_draws_no_random_numbers():
    task, state = prior_task(), torch.get_rng_state()
    assert len(first_batch(task, 4)[1]) == 3  # sequence, labels and context
    assert torch.get_rng_state().equal(state)


def test_prior_validation_sees_images_as_they_are():
    task, plain = task_with_views(1.0, 1.0), prior_task()
    own = task.objective.prior
    plain.objective.prior.load_state_dict(
        own.state_dict() | {"label_embedding.weight": own.label_embedding.weight[:4]}
    )
    assert task.validate(CPU) == plain.validate(CPU)


@pytest.mark.parametrize("labels", [True, False])
def test_prior_batch_is_the_sequences_of_the_plan_in_raster_order(labels):
    indices, (sequence, given, context) = first_batch(prior_task(labels), 12)
    assert context is None
    assert sequence.dtype == torch.int64
    # The coarse code i mod 5, then the fine ones 4 i ... 4 i + 3 mod 8.
    fine = 4 * indices[:, None] + torch.arange(4)
    assert sequence.equal(torch.cat([indices[:, None] % 5, fine % 8], dim=1))
    assert (None if given is None else given.tolist()) == (
        (indices % 3).tolist() if labels else None
    )


def test_prior_validation_is_the_mean_over_all_images():
    task = prior_task()
    task.objective.eval()
    split = split_codes(9)
    codes = tuple(grid.long() for grid in split.codes)
    nats = -task.objective.prior.log_prob(codes, split.labels)
    expected = (nats.sum() / (9 * 5) / np.log(2)).item()
    # One batch of 9 against three of at most 4: float32 sums in another order.
    assert task.validate(CPU)["bits_per_code"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("labels", [True, False])
def test_prior_validation_measures_as_many_training_images_from_all_over(labels):
    task = prior_task(labels, train=20, any_order=True)
    task.objective.eval()
    rows = [0, 2, 4, 6, 8, 11, 13, 15, 17]  # the i * 20 / 9, rounded down
    split = split_codes(20, labels)
    codes = tuple(grid[rows].long() for grid in split.codes)
    given = split.labels[rows] if labels else None
    nats = -task.objective.prior.log_prob(codes, given)
    expected = (nats.sum() / (9 * 5) / np.log(2)).item()
    assert task.validate(CPU)["train_bits_per_code"] == pytest.approx(expected, rel=1e-6)


def test_prior_validation_measures_a_small_training_split_whole():
    metrics = prior_task(train=4).validate(CPU)
    (codes,) = [tuple(grid.long() for grid in split_codes(4).codes)]
    nats = -prior_task().objective.prior.log_prob(codes, split_codes(4).labels)
    expected = (nats.sum() / (4 * 5) / np.log(2)).item()
    assert metrics["train_bits_per_code"] == pytest.approx(expected, rel=1e-6)


def test_validation_of_stage_one_measures_as_many_training_images_from_all_over():
    task = vqvae_task(20)  # of which 3 are validated on
    rows = [0, 6, 13]
    found = image_set(20).take(np.array(rows))
    expected = measure_reconstruction(task.objective.model, image_batches(found, CPU))
    metrics = task.validate(CPU)
    assert metrics["train_loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert metrics["train_loss"] != pytest.approx(metrics["loss"], rel=1e-3)


def test_codebook_starts_from_few_images_at_once_where_they_are_large(monkeypatch):
    sizes = []
    for limit in (8 * 8 * 3, 1 << 20):
        monkeypatch.setattr(batches, "_EVALUATION_PIXELS", limit)
        task = vqvae_task(80)
        monkeypatch.setattr(
            task.objective, "initialise", lambda images: sizes.append(len(next(images)))
        )
        task.prepare(CPU)
    assert sizes == [3, 64]


def test_prior_validation_draws_no_random_numbers():
    task = prior_task(any_order=True, dropout=0.5)
    state = torch.get_rng_state()
    first = task.validate(CPU)
    assert torch.get_rng_state().equal(state)
    assert task.validate(CPU) == first


def vqvae(quantizer, downsampling):
    return VQVAE(VQVAEConfig(downsampling=downsampling, width=4, quantizer=quantizer), (1, 8, 8))


def prior_with_context(config):
    spec = PriorSpec(grids=(GridSpec(2, 2, 5),), num_classes=3, context=(GridSpec(1, 1, 4),))
    return build_prior(config, spec)


ENDS = {"encoder.layers.0.conv.weight", "decoder.to_pixels.conv.weight"}


@pytest.mark.parametrize(
    ("build", "arguments", "left_to_adamw"),
    [
        (vqvae, (EMAQuantizerConfig(), 2), ENDS),
        (vqvae, (GumbelConfig(), 4), ENDS | {"quantizer.to_logits.weight"}),
        (vqvae, (SimVQConfig(), 8), ENDS | {"quantizer.transform.weight"}),
        (prior_with_context, (TransformerConfig(width=4, num_heads=1),), {"heads.0.weight"}),
        (
            prior_with_context,
            (PixelCNNConfig(width=4, num_heads=1, attention_every=2),),
            {"output.last.0.weight"},
        ),
    ],
    ids=["ema", "gumbel", "simvq", "transformer", "pixelcnn"],
)
def test_muon_leaves_the_first_and_last_layers_of_each_model_to_adamw(
    build, arguments, left_to_adamw
):
    # KellerJordan/Muon: all convolutions but the first, no embedding, no output layer.
    model = build(*arguments)
    taken = set(muon_weights(model))
    maps = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    assert {name for name, weight in maps.items() if weight not in taken} == left_to_adamw
