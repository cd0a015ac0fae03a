"""Every kind of quantizer through both stages, with both priors, on tiny data."""

import pytest
import torch
from tiny_runs import TINY, command

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS
from stage2_prior.sampling.settings import SamplingSettings

pytestmark = pytest.mark.slow

START = TINY.index("--vqvae.quantizer.codebook-size")
WITHOUT_CODEBOOK = (*TINY[:START], *TINY[START + 4 :])
SIZES = {
    "residual": ("--vqvae.quantizer.base.codebook-size", "8"),
    "product": ("--vqvae.quantizer.base.codebook-size", "8"),
}
PRIORS = {
    "transformer": (),
    "pixelcnn": ("--prior.kind", "pixelcnn", "--prior.kernel-size", "3"),
}
# The transformer with one grid of each kind, the PixelCNN with what is peculiar to it: several.
CASES = [(kind, "transformer") for kind in QUANTIZER_CONFIGS]
CASES += [("ema", "pixelcnn"), ("residual", "pixelcnn"), ("product", "pixelcnn")]


def options_of(kind, prior):
    options = WITHOUT_CODEBOOK
    if prior == "pixelcnn":
        start = options.index("--prior.num-layers")
        options = (*options[:start], "--prior.num-layers", "2", *options[start + 2 :])
    size = SIZES.get(kind, ("--vqvae.quantizer.codebook-size", "8"))
    return (*options, "--vqvae.quantizer.kind", kind, *size, *PRIORS[prior])


@pytest.mark.parametrize(("kind", "prior"), CASES)
def test_codes_priors_and_samples_of_every_quantizer_belong_together(
    kind, prior, tmp_path, rgb_file
):
    source = ("--data.source", f"npz:{rgb_file}", "--out", tmp_path / "run")
    command("train_all", *options_of(kind, prior), *source)
    pipeline = GenerationPipeline.from_pretrained(tmp_path / "run")
    vqvae, prior = pipeline.vqvae, pipeline.prior

    dump = read_code_dump(RunDirectory(tmp_path / "run").codes)
    images = load_splits(DataConfig(source=f"npz:{rgb_file}")).test.images
    assert dump.codebook_sizes == vqvae.codebook_sizes
    stored = tuple(grid.long() for grid in dump.splits["test"].codes)
    torch.testing.assert_close(stored, vqvae.encode(torch.from_numpy(images)), rtol=0, atol=0)
    assert tuple(grid.codebook_size for grid in prior.grids) == vqvae.codebook_sizes
    assert tuple((grid.height, grid.width) for grid in prior.grids) == vqvae.grid_shapes

    labels, settings = torch.tensor([0, 1, 0]), SamplingSettings(temperature=0.9)
    codes = prior.sample(3, labels, settings, seed=4)
    # Decoded in batches of another size, which can turn the rounding of a pixel.
    samples = pipeline(3, labels, settings=settings, seed=4)
    assert (samples.int() - vqvae.decode(codes).int()).abs().max() <= 1
    before = prior.log_prob(codes, labels)
    assert before.isfinite().all()
    for i, size in enumerate(vqvae.codebook_sizes):
        changed = [grid.clone() for grid in codes]
        changed[i][:, 0, 0] = (changed[i][:, 0, 0] + 1) % size
        assert (prior.log_prob(tuple(changed), labels) != before).all()
