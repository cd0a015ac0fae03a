"""Configs of the priors. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stage2_prior.config_checks import require, require_between

# Far above what anyone trains, but low enough that a config from a stranger can neither keep the
# construction of its model busy nor overflow the size of a tensor.
_MAX_LAYERS = 256
_MAX_WIDTH = 1 << 16
_MAX_KERNEL_SIZE = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Decoder-only transformer over the codes in raster order."""

    kind: Literal["transformer"] = "transformer"
    """Prior: `transformer` or `pixelcnn`."""
    num_layers: int = 6
    """Transformer blocks."""
    width: int = 192
    """E, the features per position."""
    num_heads: int = 6
    """Attention heads; must divide `width`."""
    dropout: float = 0.1
    """Probability of dropping a feature of the embeddings and of each residual branch."""
    label_dropout: float = 0.1
    """Probability of training an image without its label; above 0 a guidance scale can be used."""
    any_order: bool = False
    """Also learn to predict the codes in any order: for inpainting, and for sampling several codes
    at a time."""
    random_order_until: float = 0.5
    """With any_order, the share of training (0 to 1) over which the share of images in a random
    order falls from 1 to random_order_share; the others are in raster order."""
    random_order_share: float = 0.1
    """With any_order, the share of images that stay in a random order to the end, so that other
    orders are not unlearned, 0 to 1."""

    def __post_init__(self) -> None:
        _check_network(self)
        _require_heads_divide_width(self)
        for name in ("random_order_until", "random_order_share"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelCNNConfig:
    """Gated PixelCNN with a vertical and a horizontal stack."""

    kind: Literal["pixelcnn"] = "pixelcnn"
    """Prior: `transformer` or `pixelcnn`."""
    num_layers: int = 10
    """Gated layers; each extends the receptive field by half a kernel."""
    width: int = 96
    """E, the features per position in each stack."""
    kernel_size: int = 5
    """Side of the square that a layer sees, odd."""
    attention_every: int = 0
    """After every n layers each position attends to all positions before it (PixelSNAIL); 0 for
    convolutions only."""
    num_heads: int = 4
    """Attention heads; must divide `width` where there is attention."""
    dropout: float = 0.1
    """Probability of dropping a feature after each layer's gate."""
    label_dropout: float = 0.1
    """Probability of training an image without its label; above 0 a guidance scale can be used."""

    def __post_init__(self) -> None:
        _check_network(self)
        require_between("kernel_size", self.kernel_size, 3, _MAX_KERNEL_SIZE)
        require(self.kernel_size % 2 == 1, "kernel_size", "odd", self.kernel_size)
        every, most = self.attention_every, f"at most num_layers ({self.num_layers})"
        require(every >= 0, "attention_every", "at least 0", every)
        require(every <= self.num_layers, "attention_every", most, every)
        if every:
            _require_heads_divide_width(self)


def _check_network(config: PriorConfig) -> None:
    """Checks the fields that both configs have."""
    require_between("num_layers", config.num_layers, 1, _MAX_LAYERS)
    require_between("num_heads", config.num_heads, 1, _MAX_WIDTH)
    require_between("width", config.width, 1, _MAX_WIDTH)
    for name in ("dropout", "label_dropout"):
        require(0 <= getattr(config, name) < 1, name, "in [0, 1)", getattr(config, name))


def _require_heads_divide_width(config: PriorConfig) -> None:
    requirement = f"a multiple of num_heads ({config.num_heads})"
    require(config.width % config.num_heads == 0, "width", requirement, config.width)


PriorConfig: TypeAlias = TransformerConfig | PixelCNNConfig
PRIOR_CONFIGS: dict[str, type[PriorConfig]] = {cls().kind: cls for cls in get_args(PriorConfig)}
