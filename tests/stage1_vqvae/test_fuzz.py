"""Saved models and code dumps of strangers: refused in a sentence, or loaded; see `fuzzing`."""

import pytest
import torch
from fuzzing import check_cases
from tiny_vqvae import CASES, make_model, random_images

from stage1_vqvae import VQVAE
from stage1_vqvae.code_dump import read_code_dump, read_other_views, write_code_dump

MODELS = {
    "ema": CASES["ema-all"],
    "finite_scalar": CASES["finite_scalar"],
    "residual": CASES["residual-simvq"],
    "product": CASES["product-lookup_free"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_mutated_model_is_refused_or_loaded(tmp_path, name):
    make_model((1, 6, 5), quantizer=MODELS[name]).save_pretrained(tmp_path / "saved")
    outcomes = check_cases(name, tmp_path / "saved", tmp_path / "work", VQVAE.from_pretrained)
    assert min(outcomes.values()) > 0  # mutations reach what is behind the seal


@pytest.mark.slow
def test_mutated_code_dump_is_refused_or_read(tmp_path):
    def batches(count):
        return count, [(random_images(count, 1, 6, 5), torch.arange(count) % 2)]

    splits = {"train": batches(3), "validation": batches(2), "test": batches(2)}
    views = {"mirrored": batches(3)}
    write_code_dump(tmp_path / "saved", make_model((1, 6, 5)), splits, 2, views)

    def read(path):
        list(read_other_views(path, read_code_dump(path)))

    outcomes = check_cases("dump", tmp_path / "saved", tmp_path / "work", read)
    assert min(outcomes.values()) > 0
