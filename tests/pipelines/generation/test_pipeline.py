"""The pipeline from labels to images: the same images however they are asked for."""

import shutil

import numpy as np
import pytest
import torch
from tiny_runs import edit_json, tree

from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.config import EMAQuantizerConfig
from stage2_prior.config import PixelCNNConfig, TransformerConfig
from stage2_prior.grids import GridSpec
from stage2_prior.pretrained import build_prior
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.spec import PriorSpec


def tiny_vqvae(seed=0, codebook_size=8):
    torch.manual_seed(seed)
    quantizer = EMAQuantizerConfig(codebook_size=codebook_size, codebook_dim=4)
    config = VQVAEConfig(width=8, fine_width=4, num_layers=1, quantizer=quantizer)
    return VQVAE(config, (3, 8, 10)).eval()


def tiny_prior(vqvae_hash=None, num_classes=3, grid=(2, 3, 8), config=None):
    torch.manual_seed(1)
    config = config or TransformerConfig(num_layers=1, width=8, num_heads=2)
    spec = PriorSpec(grids=(GridSpec(*grid),), num_classes=num_classes, vqvae_hash=vqvae_hash)
    prior = build_prior(config, spec).eval()
    with torch.no_grad():  # far from the start's uniform distribution, so that labels matter
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    return prior


@pytest.fixture(scope="module")
def pipeline():
    vqvae = tiny_vqvae()
    return GenerationPipeline(vqvae, tiny_prior(vqvae.weights_hash()), ("shirt", "shoe", "bag"))


@pytest.fixture(scope="module")
def unlabelled():
    vqvae = tiny_vqvae()
    config = PixelCNNConfig(num_layers=2, width=4, kernel_size=3)
    return GenerationPipeline(vqvae, tiny_prior(vqvae.weights_hash(), None, config=config))


def assert_same_images(images, expected):
    """Up to one of 255 levels: a value at its edge is rounded as the sums of a batch fall out."""
    torch.testing.assert_close(images.int(), expected.int(), rtol=0, atol=1)


def test_images_are_uint8_in_the_shape_of_training(pipeline):
    images = pipeline(5)
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (5, 3, 8, 10))


def test_images_are_the_decoded_samples_of_the_prior(pipeline):
    labels = torch.tensor([2, 0, 1, 1])
    codes = pipeline.prior.sample(4, labels, SamplingSettings(top_k=3), seed=7)
    images = pipeline(4, labels, settings=SamplingSettings(top_k=3), seed=7)
    torch.testing.assert_close(images, pipeline.vqvae.decode(codes), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "batch_size"), [("pipeline", 1), ("pipeline", 100), ("unlabelled", 3)]
)
def test_images_do_not_depend_on_the_batch_size(kind, batch_size, request):
    pipeline = request.getfixturevalue(kind)
    expected = pipeline(7, seed=3, batch_size=4)
    assert_same_images(pipeline(7, seed=3, batch_size=batch_size), expected)


def test_images_from_a_first_index_are_those_of_the_whole(pipeline):
    whole = pipeline(9, seed=3)
    assert_same_images(pipeline(4, seed=3, first_index=5), whole[5:])


def test_another_seed_gives_other_images(pipeline):
    assert not pipeline(4, seed=1).equal(pipeline(4, seed=2))


def test_torch_seed_does_not_matter(pipeline):
    torch.manual_seed(1)
    first = pipeline(4)
    torch.manual_seed(2)
    assert pipeline(4).equal(first)


def test_no_labels_go_through_the_classes_in_turn(pipeline):
    assert pipeline(7).equal(pipeline(7, torch.tensor([0, 1, 2, 0, 1, 2, 0])))


def test_turn_of_the_classes_goes_on_at_the_first_index(pipeline):
    assert pipeline.resolve_labels(4, None, first_index=5).tolist() == [2, 0, 1, 2]


@pytest.fixture(scope="module")
def gappy(pipeline):
    """The pipeline as if its second class had been without training images."""
    names = pipeline.class_names
    return GenerationPipeline(pipeline.vqvae, pipeline.prior, names, (5, 0, 2))


def test_classes_without_training_images_are_left_out_of_the_turn(gappy):
    assert gappy.resolve_labels(4, None, first_index=1).tolist() == [2, 0, 2, 0]
    assert gappy(3).equal(gappy(3, torch.tensor([0, 2, 0])))


def test_classes_without_training_images_are_sampled_on_request(gappy, pipeline):
    assert gappy(2, 1).equal(pipeline(2, 1))


def test_saved_pipeline_knows_the_classes_without_training_images(gappy, tmp_path):
    gappy.save_pretrained(tmp_path / "saved")
    loaded = GenerationPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.train_images_per_class == (5, 0, 2)
    assert loaded.resolve_labels(3, None).tolist() == [0, 2, 0]


def test_numbers_of_training_images_of_other_classes_are_refused(pipeline):
    with pytest.raises(ValueError, match="each of the prior's 3 classes, got 2: use the record"):
        GenerationPipeline(pipeline.vqvae, pipeline.prior, ("a", "b"), (1, 1))


def test_one_label_is_for_all_images(pipeline):
    assert pipeline(4, 2).equal(pipeline(4, torch.full((4,), 2)))


@pytest.mark.parametrize("labels", [[0, 1, 2], range(3), np.array([0, 1, 2], np.uint8)])
def test_labels_may_be_any_sequence_of_integers(pipeline, labels):
    assert pipeline(3, labels).equal(pipeline(3, torch.tensor([0, 1, 2])))


def test_numbers_may_be_of_numpy(pipeline):
    numbers = {"seed": 2, "first_index": 1, "batch_size": 4}
    wrapped = {name: np.int64(number) for name, number in numbers.items()}
    assert pipeline(np.int64(3), np.int64(2), **wrapped).equal(pipeline(3, 2, **numbers))


@pytest.mark.parametrize("labels", ["A", [0.5, 1, 2], [None] * 3, True])
def test_labels_that_are_no_integers_are_refused(pipeline, labels):
    with pytest.raises(TypeError, match="labels must be"):
        pipeline(3, labels)


@pytest.mark.parametrize("name", ["n", "seed", "first_index", "batch_size"])
def test_numbers_that_are_no_integers_are_refused(pipeline, name):
    with pytest.raises(TypeError, match=r"must be an integer, got 1\.5"):
        pipeline(**{"n": 1, name: 1.5})


def test_labels_change_the_images(pipeline):
    assert not pipeline(4, 0).equal(pipeline(4, 1))


def test_prior_without_classes_has_no_labels(unlabelled):
    assert unlabelled.resolve_labels(4, None) is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (3, r"labels must be in \[0, 3\), got 3 to 3"),
        (-1, r"labels must be in \[0, 3\), got -1 to -1"),
        (torch.zeros(5, dtype=torch.int64), r"labels must have shape \(4,\), got \(5,\)"),
        (torch.zeros((4, 1), dtype=torch.int64), r"labels must have shape \(4,\), got \(4, 1\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pipeline, labels, message):
    with pytest.raises(ValueError, match=message):
        pipeline(4, labels)


def test_label_for_a_prior_without_classes_is_refused(unlabelled):
    with pytest.raises(ValueError, match="this prior was trained without labels"):
        unlabelled(4, 0)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (-1, 4), (4, 0)])
def test_no_images_or_batches_are_refused(pipeline, n, batch_size):
    with pytest.raises(ValueError, match=f"at least 1 are required, got {n} and {batch_size}"):
        pipeline(n, batch_size=batch_size)


def test_prior_of_another_vqvae_is_refused():
    with pytest.raises(ValueError, match=r"codes of another VQ-VAE \(the weights' hash differs\)"):
        GenerationPipeline(tiny_vqvae(seed=1), tiny_prior(tiny_vqvae(seed=0).weights_hash()))


def test_prior_of_an_unknown_vqvae_is_refused(tmp_path):
    tiny_vqvae().save_pretrained(tmp_path / "vqvae")
    tiny_prior().save_pretrained(tmp_path / "prior")
    with pytest.raises(ValueError, match=r"does not say on which VQ-VAE's .* weights_hash\(\)"):
        GenerationPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("grid", [(3, 2, 8), (2, 3, 9)])
def test_prior_over_other_grids_is_refused(grid):
    shape, size = grid[:2], grid[2]
    with pytest.raises(ValueError, match=r"the same code grids, got .* and .*: use the pa") as e:
        GenerationPipeline(tiny_vqvae(), tiny_prior(tiny_vqvae().weights_hash(), grid=grid))
    assert f"got ({shape},) of ({size},) codes and ((2, 3),) of (8,)" in str(e.value)


@pytest.mark.parametrize("kind", ["pipeline", "unlabelled"])
def test_saved_pipeline_gives_the_same_images(kind, request, tmp_path):
    pipeline = request.getfixturevalue(kind)
    pipeline.save_pretrained(tmp_path / "new" / "saved")
    loaded = GenerationPipeline.from_pretrained(tmp_path / "new" / "saved")
    assert loaded.class_names == pipeline.class_names
    assert loaded(5, seed=2).equal(pipeline(5, seed=2))


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_default_dtype_does_not_matter(pipeline, tmp_path, dtype):
    pipeline.save_pretrained(tmp_path / "saved")
    expected = pipeline(5, seed=2)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        images = GenerationPipeline.from_pretrained(tmp_path / "saved")(5, seed=2)
    finally:
        torch.set_default_dtype(before)
    assert images.equal(expected)


def test_saved_pipeline_is_two_models_and_the_classes(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    assert tree(tmp_path) == [
        "saved",
        "saved/pipeline.json",
        "saved/prior",
        "saved/prior/config.json",
        "saved/prior/model.safetensors",
        "saved/vqvae",
        "saved/vqvae/config.json",
        "saved/vqvae/model.safetensors",
    ]


def test_saving_over_something_is_refused(pipeline, tmp_path):
    with pytest.raises(FileExistsError, match=f"new directory is required .* but {tmp_path} exis"):
        pipeline.save_pretrained(tmp_path)


def test_interrupted_saving_leaves_nothing(pipeline, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.prior, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_run_directory_is_a_pipeline_with_the_classes_of_its_data(rgb_run):
    pipeline = GenerationPipeline.from_pretrained(rgb_run)
    assert pipeline.class_names == ("0", "1")
    data = RunDirectory(rgb_run).data()
    assert sum(pipeline.train_images_per_class) == data.num_images.train
    assert pipeline.prior.vqvae_hash == pipeline.vqvae.weights_hash()


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"a finished run is required, but .*nowhere does n"
    ):
        GenerationPipeline.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["vqvae", "prior"])
def test_missing_model_is_refused(rgb_run, tmp_path, part):
    shutil.copytree(rgb_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / part)
    with pytest.raises(FileNotFoundError, match=f"a saved {part} is required in .*run/{part}, but"):
        GenerationPipeline.from_pretrained(tmp_path / "run")


def test_models_without_class_names_make_a_pipeline(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "pipeline.json").unlink()
    assert GenerationPipeline.from_pretrained(tmp_path / "saved").class_names == ()


@pytest.mark.parametrize("text", ["", "[" * 100_000])
def test_damaged_class_names_are_refused(pipeline, tmp_path, text):
    pipeline.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "pipeline.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"pipeline\.json cannot be read .*: restore it, or remove"
    ):
        GenerationPipeline.from_pretrained(tmp_path / "saved")


def test_changed_class_names_are_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "pipeline.json"
    path.write_text(path.read_text().replace(pipeline.class_names[0], "other"))
    with pytest.raises(ValueError, match=r"pipeline\.json cannot be read .*sha256"):
        GenerationPipeline.from_pretrained(tmp_path / "saved")


def test_run_config_without_class_names_is_refused(rgb_run, tmp_path):
    shutil.copytree(rgb_run, tmp_path / "run")
    edit_json(tmp_path / "run" / "config.json", lambda record: record["data"].pop("class_names"))
    with pytest.raises(ValueError, match=r"config\.json cannot be read .*data\.class_names"):
        GenerationPipeline.from_pretrained(tmp_path / "run")


def some_images(count=5):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, 3, 8, 10), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def inpainting():
    """A pipeline whose prior knows any order; codes stand for squares of 4x4 of the 8x10 pixels."""
    vqvae = tiny_vqvae()
    z_e = vqvae.encode_features(some_images(8)).permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():  # so that images differ in their codes
        vqvae.quantizer.codebook.copy_(z_e[::6])
    config = TransformerConfig(num_layers=1, width=8, num_heads=2, any_order=True)
    return GenerationPipeline(vqvae, tiny_prior(vqvae.weights_hash(), config=config))


def left_half():
    """Pixels 0 to 4 of 10 are known: the first of three codes per row wholly, the second partly."""
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[:, :5] = True
    return mask


def watch_complete(pipeline, monkeypatch):
    calls, complete = [], pipeline.prior.complete

    def watched(codes, known, *args, **kwargs):
        calls.append((codes, known, complete(codes, known, *args, **kwargs)))
        return calls[-1][2]

    monkeypatch.setattr(pipeline.prior, "complete", watched)
    return calls


def test_completed_images_decode_the_kept_codes_and_drawn_ones(inpainting, monkeypatch):
    calls = watch_complete(inpainting, monkeypatch)
    images = inpainting.inpaint(some_images(), left_half(), 1)
    ((codes, known, drawn),) = calls
    assert known[0].tolist() == [[[True, False, False]] * 2] * 5
    assert torch.equal(drawn[0][known[0]], codes[0][known[0]])
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (5, 3, 8, 10))
    assert_same_images(images, inpainting.vqvae.decode(drawn))


def test_completing_a_whole_image_is_reconstructing_it(inpainting):
    images = some_images()
    expected = inpainting.vqvae.decode(inpainting.vqvae.encode(images))
    whole = torch.ones(8, 10, dtype=torch.bool)
    assert_same_images(inpainting.inpaint(images, whole), expected)


def test_square_reaching_beyond_the_image_is_known_where_the_image_is(inpainting, monkeypatch):
    # The third code of a row stands for pixels 8 to 11, of which 8 and 9 exist.
    calls = watch_complete(inpainting, monkeypatch)
    inpainting.inpaint(some_images(1), ~left_half())
    assert calls[0][1][0].tolist() == [[[False, False, True]] * 2]


def test_unknown_pixels_have_no_influence(inpainting):
    images = some_images()
    expected = inpainting.inpaint(images, left_half(), 1)
    images[..., 5:] = 255 - images[..., 5:]
    assert inpainting.inpaint(images, left_half(), 1).equal(expected)


def test_known_pixels_have_an_influence(inpainting):
    images = some_images()
    expected = inpainting.inpaint(images, left_half(), 1)
    images[..., :5] = 255 - images[..., :5]
    assert not inpainting.inpaint(images, left_half(), 1).equal(expected)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_inpainting_does_not_depend_on_the_batch_size(inpainting, batch_size):
    masks = left_half().expand(5, 8, 10).clone()
    masks[1], masks[3, :4] = True, False  # images with other numbers of known codes
    labels = torch.tensor([0, 1, 2, 0, 1])
    expected = inpainting.inpaint(some_images(), masks, labels, seed=4, batch_size=3)
    actual = inpainting.inpaint(some_images(), masks, labels, seed=4, batch_size=batch_size)
    assert_same_images(actual, expected)


def test_another_seed_inpaints_differently(inpainting):
    first = inpainting.inpaint(some_images(), left_half(), 1, seed=1)
    assert not inpainting.inpaint(some_images(), left_half(), 1, seed=2).equal(first)


def test_prior_of_one_order_refuses_to_complete(pipeline, unlabelled):
    for other in (pipeline, unlabelled):
        with pytest.raises(
            ValueError, match=r"needs a prior that was trained in any order, this o"
        ):
            other.inpaint(some_images(), left_half())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"mask": torch.ones(8, 10)}, TypeError, r"mask must be bool, True for a known pixel, got"),
        (
            {"mask": torch.ones(8, 9, dtype=torch.bool)},
            ValueError,
            r"mask must have shape \(8, 10\) or \(5, 8, 10\), one value per pixel .* got \(8, 9\)",
        ),
        (
            {"images": some_images()[..., :9]},
            ValueError,
            r"images must have shape \(B, 3, 8, 10\) as in training, got \(5, 3, 8, 9\)",
        ),
        ({"images": some_images()[:0]}, ValueError, "at least one sample .* got 0 and 64"),
        ({"batch_size": 0}, ValueError, "at least one sample .* got 5 and 0"),
        ({"labels": torch.tensor([0])}, ValueError, r"labels must have shape \(5,\), got \(1,\)"),
        ({"images": some_images().float()}, TypeError, "images must be uint8"),
    ],
)
def test_inpainting_that_does_not_fit_is_refused(inpainting, changes, error, message):
    arguments = {"images": some_images(), "mask": left_half(), **changes}
    with pytest.raises(error, match=message):
        inpainting.inpaint(**arguments)
