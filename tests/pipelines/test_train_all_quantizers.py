"""Every kind of quantizer through both stages, with both priors, on tiny data."""

import pytest
import torch
from tiny_runs import TINY, command, one_thread

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.code_dump import read_code_dump
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS
from stage2_prior.config import SamplingSettings

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


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def trained(request, tmp_path_factory, rgb_file):
    kind, prior = request.param
    path = tmp_path_factory.mktemp("quantizers") / "run"
    source = ("--data.source", f"npz:{rgb_file}", "--out", path)
    command("train_all", *options_of(kind, prior), *source)
    return RunDirectory(path), GenerationPipeline.from_pretrained(path)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def test_dump_holds_the_codes_that_the_model_gives(trained):
    run, pipeline = trained
    dump = read_code_dump(run.codes)
    images = load_splits(DataConfig(source=run.config().data.source)).test.images
    codes = pipeline.vqvae.encode(torch.from_numpy(images))
    assert dump.codebook_sizes == pipeline.vqvae.codebook_sizes
    assert len(dump.splits["test"].codes) == len(codes)
    assert all(
        torch.equal(stored.long(), grid)
        for stored, grid in zip(dump.splits["test"].codes, codes, strict=True)
    )


def test_prior_is_over_the_grids_of_the_model(trained):
    _, pipeline = trained
    grids = pipeline.prior.grids
    assert tuple(grid.codebook_size for grid in grids) == pipeline.vqvae.codebook_sizes
    assert tuple((grid.height, grid.width) for grid in grids) == pipeline.vqvae.grid_shapes


def test_samples_are_decoded_draws_of_the_prior(trained):
    _, pipeline = trained
    labels = torch.tensor([0, 1, 0])
    settings = SamplingSettings(temperature=0.9)
    images = pipeline(3, labels, settings=settings, seed=4)
    codes = pipeline.prior.sample(3, labels, settings, seed=4)
    # Decoded in batches of another size, which can turn the rounding of a pixel.
    difference = images.int() - pipeline.vqvae.decode(codes).int()
    assert difference.abs().max() <= 1


def test_log_prob_of_several_grids_is_finite_and_depends_on_each(trained):
    _, pipeline = trained
    codes = pipeline.prior.sample(2, torch.tensor([0, 1]), seed=1)
    before = pipeline.prior.log_prob(codes, torch.tensor([0, 1]))
    assert before.isfinite().all()
    for i, size in enumerate(pipeline.vqvae.codebook_sizes):
        changed = [grid.clone() for grid in codes]
        changed[i][:, 0, 0] = (changed[i][:, 0, 0] + 1) % size
        after = pipeline.prior.log_prob(tuple(changed), torch.tensor([0, 1]))
        assert (after != before).all()
