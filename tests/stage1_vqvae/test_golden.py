"""A saved model that every later version must load, with the codes and pixels it must give.

Made once by `PYTHONPATH=tests/stage1_vqvae python tests/stage1_vqvae/test_golden.py`, which
refuses to overwrite it. Make it anew only when the format version changes on purpose.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_vqvae import make_model

from stage1_vqvae import VQVAE

GOLDEN = Path(__file__).parent / "golden"


def golden_images():
    """Two RGB images (2, 3, 10, 7) of smooth waves, the same on every machine."""
    numbers = torch.arange(2 * 3 * 10 * 7, dtype=torch.float64)
    return (127.5 + 127 * torch.sin(numbers * 0.37)).to(torch.uint8).view(2, 3, 10, 7)


def make_golden():
    """Saves a random model, and what it gives for `golden_images`.

    The codebook is spread over the images' own z_e by k-means, so that several codes are used,
    and no z_e may lie so close to the border of two codes that rounding could change its code.
    """
    torch.manual_seed(0)
    options = {"codebook_size": 5, "codebook_dim": 2, "kmeans_batches": 1}
    model = make_model((3, 10, 7), codebook=options, downsampling=4, width=4, fine_width=3)
    with torch.no_grad():
        z_e = model.encode_features(golden_images())
        model.quantizer.initialise([z_e])
        distances = torch.cdist(z_e.permute(0, 2, 3, 1).reshape(-1, 2), model.quantizer.vectors())
        nearest, second = distances.sort(dim=1).values[:, :2].unbind(dim=1)
    margin = (second - nearest).min()
    assert margin > 1e-3, f"choose another seed: a code is decided by {margin} only"
    model.save_pretrained(GOLDEN)
    codes = model.encode(golden_images())
    expected = {"codes.0": codes[0], "images": model.decode(codes)}
    save_file(expected, GOLDEN / "expected.safetensors")


def test_golden_model_gives_exactly_its_codes():
    (codes,) = VQVAE.from_pretrained(GOLDEN).encode(golden_images())
    assert torch.equal(codes, load_file(GOLDEN / "expected.safetensors")["codes.0"])


def test_golden_model_decodes_its_pixels():
    expected = load_file(GOLDEN / "expected.safetensors")
    decoded = VQVAE.from_pretrained(GOLDEN).decode((expected["codes.0"],))
    # Convolutions sum in another order on another processor: a value may round to the next level.
    assert (decoded.int() - expected["images"].int()).abs().max() <= 1


def test_golden_model_uses_several_codes_and_levels():
    expected = load_file(GOLDEN / "expected.safetensors")
    assert len(expected["codes.0"].unique()) == 5
    assert len(expected["images"].unique()) > 20


if __name__ == "__main__":
    make_golden()
