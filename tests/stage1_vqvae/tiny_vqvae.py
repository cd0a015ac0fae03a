"""Small quantizers, models and images for the tests of stage one."""

import math

import torch

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.build import build_quantizer
from stage1_vqvae.quantizers.config import (
    QUANTIZER_CONFIGS,
    EMAQuantizerConfig,
    QuantizerConfig,
)

KINDS = tuple(QUANTIZER_CONFIGS)
LEARNED = ("ema", "gradient")
"""Kinds whose codes follow z_e, with k-means, restarts and anchors."""
RESTARTING = (*LEARNED, "stochastic", "index_backprop")
"""Kinds whose code vectors lie near z_e, so that they start from k-means and dead ones restart."""

_SEVEN = {"codebook_size": 7, "codebook_dim": 4}
_STILL = {"kmeans_batches": 0, "restart_threshold": 0.0}
_SMALL = {
    "ema": _SEVEN | _STILL,
    "gradient": _SEVEN | _STILL,
    "simvq": _SEVEN | {"moment_batches": 0},
    "finite_scalar": {"levels": (5, 4, 3, 2)},
    "lookup_free": {"codebook_size": 16},
    "gumbel": _SEVEN,
    "stochastic": _SEVEN | _STILL,
    "index_backprop": _SEVEN | _STILL | {"cosine": False},
    "residual": {"num_quantizers": 3, "base": EMAQuantizerConfig(**_SEVEN | _STILL)},
    "product": {
        "codebook_dim": 4,
        "base": EMAQuantizerConfig(**_SEVEN | _STILL | {"codebook_dim": 2}),
    },
}
_HALF = {"finite_scalar": {"levels": (5, 4)}, "lookup_free": {"codebook_size": 4}}


def quantizer_config(kind="ema", **options) -> QuantizerConfig:
    """Settings of four dimensions; codes that learn start at random and never restart."""
    options = _SMALL[kind] | options
    if kind == "finite_scalar":
        options["codebook_size"] = math.prod(options["levels"])
    return QUANTIZER_CONFIGS[kind](**options)


def residual_config(base="ema", *, num_quantizers=3, quantizer_dropout=0.0, **options):
    """Settings of a residual quantizer; `options` are those of its base."""
    return quantizer_config(
        "residual",
        num_quantizers=num_quantizers,
        quantizer_dropout=quantizer_dropout,
        base=quantizer_config(base, **options),
    )


def product_config(base="ema", **options):
    """Settings of a product quantizer of two groups; `options` are those of its base."""
    return quantizer_config(
        "product", base=quantizer_config(base, **_HALF.get(base, {"codebook_dim": 2}) | options)
    )


_SWITCHES = {"cosine": True, "rotation_trick": True, "entropy_weight": 0.1}
CASES = {
    # Every kind plain.
    **{kind: quantizer_config(kind) for kind in KINDS if kind not in ("residual", "product")},
    # Every switch of every kind that has it.
    **{
        f"{kind}-{switch}": quantizer_config(kind, **{switch: value})
        for kind in (*LEARNED, "simvq")
        for switch, value in _SWITCHES.items()
    },
    "index_backprop-cosine": quantizer_config("index_backprop", cosine=True),
    "index_backprop-no-entropy": quantizer_config("index_backprop", entropy_weight=0.0),
    "lookup_free-spherical": quantizer_config("lookup_free", spherical=True),
    "lookup_free-no-losses": quantizer_config(
        "lookup_free", commitment_weight=0.0, entropy_weight=0.0
    ),
    **{f"{kind}-anchors": quantizer_config(kind, online_clustering=True) for kind in LEARNED},
    **{
        f"{kind}-restarts": quantizer_config(kind, restart_threshold=0.5, decay=0.5)
        for kind in RESTARTING
    },
    **{f"{kind}-kmeans": quantizer_config(kind, kmeans_batches=2) for kind in RESTARTING},
    "simvq-moments": quantizer_config("simvq", moment_batches=2),
    **{
        f"{kind}-all": quantizer_config(kind, online_clustering=True, kmeans_batches=2, **_SWITCHES)
        for kind in LEARNED
    },
    "simvq-all": quantizer_config("simvq", **_SWITCHES),
    # Several grids.
    **{
        f"residual-{base}": residual_config(base)
        for base in KINDS
        if base not in ("gumbel", "residual", "product")
    },
    "residual-ema-all": residual_config(
        "ema", entropy_weight=0.1, kmeans_batches=2, restart_threshold=0.5
    ),
    "residual-gradient-anchors": residual_config("gradient", online_clustering=True),
    "residual-stochastic-kmeans": residual_config("stochastic", kmeans_batches=2),
    "residual-simvq-moments": residual_config("simvq", moment_batches=2),
    "residual-ema-dropout": residual_config("ema", quantizer_dropout=0.5),
    **{
        f"product-{base}": product_config(base)
        for base in KINDS
        if base not in ("residual", "product")
    },
    "product-ema-all": product_config("ema", online_clustering=True, kmeans_batches=2, **_SWITCHES),
    "product-lookup_free-spherical": product_config("lookup_free", spherical=True),
}
"""Every kind with every switch, by a name for test reports; all of four dimensions."""

REPRESENTATIVE = (
    *("ema-all", "gradient-restarts", "simvq-moments", "finite_scalar", "lookup_free", "gumbel"),
    *("stochastic-kmeans", "index_backprop", "residual-ema", "residual-finite_scalar"),
    *("product-ema", "product-lookup_free"),
)
"""Names of a few cases for properties that do not depend on the switches; every kind is there."""


def base_of(config):
    """The settings that each grid has."""
    return getattr(config, "base", config)


def grids_of(config):
    """How many grids of codes there are."""
    return getattr(config, "num_quantizers", getattr(config, "groups", 1))


def make_quantizer(kind="ema", **options):
    return build_quantizer(quantizer_config(kind, **options))


def make_model(
    image_shape=(1, 8, 8), kind="ema", *, codebook=None, quantizer=None, **options
) -> VQVAE:
    """A model with random weights everywhere; `codebook` holds options of the quantizer."""
    small = {"downsampling": 2, "width": 6, "fine_width": 4, "num_layers": 1}
    quantizer = quantizer or quantizer_config(kind, **codebook or {})
    model = VQVAE(VQVAEConfig(quantizer=quantizer, **small | options), image_shape)
    for parameter in model.parameters():
        # The residual blocks start at zero, which would hide them from the tests.
        if parameter.ndim and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def random_images(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def to_rows(z):
    """(B, D, h, w) as float64 numpy points (N, D), position by position."""
    return z.detach().cpu().double().permute(0, 2, 3, 1).reshape(-1, z.shape[1]).numpy()


def state_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(before, after):
    """Names of the tensors whose values differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
