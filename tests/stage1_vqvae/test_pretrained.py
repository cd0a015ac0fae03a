"""Another class of tokenizer behind the interface of `ImageTokenizer`: saved, loaded, dumped."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from sealing import edit_record
from tiny_vqvae import make_model, random_images
from torch import nn

from stage1_vqvae import VQVAE, ImageTokenizer, load_tokenizer, pretrained
from stage1_vqvae.artifact import ArtifactRecord
from stage1_vqvae.code_dump import read_code_dump, write_code_dump
from stage1_vqvae.objective import measure_reconstruction


@dataclass(frozen=True, kw_only=True, slots=True)
class PyramidRecord(ArtifactRecord):
    side: int


class Pyramid(ImageTokenizer):
    """Mean gray levels of squares of 4 and of 2 pixels; the finer ones are shown."""

    artifact_kind = "pyramid"
    record_type = PyramidRecord
    codebook_sizes = (256, 256)
    strides = (4, 2)

    def __init__(self, side):
        super().__init__()
        self.image_shape = (1, side, side)
        self.scale = nn.Parameter(torch.ones(1))

    def encode(self, images):
        return tuple(F.avg_pool2d(images.float(), s)[:, 0].round().long() for s in self.strides)

    def decode(self, codes, size=None):
        height, width = size or self.image_shape[1:]
        return F.interpolate(codes[-1][:, None].float(), (height, width)).to(torch.uint8)

    def record_fields(self):
        return {"side": self.image_shape[1]}

    @classmethod
    def from_record(cls, record):
        return cls(record.side)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setitem(pretrained._TOKENIZERS, "pyramid", Pyramid)
    Pyramid(8).train().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_load_tokenizer_returns_the_class_that_was_saved(saved, tmp_path):
    model = make_model((3, 9, 6))
    model.save_pretrained(tmp_path / "vqvae")
    vqvae, pyramid = load_tokenizer(tmp_path / "vqvae"), load_tokenizer(saved)
    assert type(vqvae) is VQVAE
    assert vqvae.weights_hash() == model.weights_hash()
    assert type(pyramid) is Pyramid
    assert not pyramid.training
    assert pyramid.grid_shapes == ((2, 2), (4, 4))


def test_recorded_hash_is_that_of_the_weights(saved, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "vqvae")
    assert pretrained.recorded_hash(tmp_path / "vqvae") == model.weights_hash()
    assert pretrained.recorded_hash(saved) == Pyramid(8).weights_hash()


@pytest.mark.parametrize("kind", ["prior", ["vqvae"], None])
def test_load_tokenizer_refuses_an_unknown_kind(saved, kind):
    edit_record(saved / "config.json", lambda config: config.update(kind=kind))
    with pytest.raises(ValueError, match="must be the config of a saved vqvae, but"):
        load_tokenizer(saved)


@pytest.mark.parametrize("content", [None, b"", b"[]"])
def test_load_tokenizer_refuses_a_missing_or_damaged_config(saved, content):
    (saved / "config.json").unlink()
    if content is not None:
        (saved / "config.json").write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=r"config\.json"):
        load_tokenizer(saved)


def test_grids_of_growing_size_are_dumped_and_measured(saved, tmp_path):
    model, images = load_tokenizer(saved), random_images(3, 1, 8, 8)
    splits = {name: (3, [(images, None)]) for name in ("train", "validation", "test")}
    write_code_dump(tmp_path / "codes", model, splits, num_classes=None)
    dump = read_code_dump(tmp_path / "codes")
    assert dump.grid_shapes == model.grid_shapes
    assert all(map(torch.equal, dump.splits["test"].codes, (c.int() for c in model.encode(images))))
    metrics = measure_reconstruction(model, [images])
    error = (model.decode(model.encode(images)).double() - images.double()).square().mean()
    assert metrics.psnr == pytest.approx(10 * torch.log10(255**2 / error).item(), rel=1e-6)
    assert metrics.loss == pytest.approx(error.item() / 127.5**2, rel=1e-5)
    assert len(metrics.usage) == 2
