"""What a user chooses about a prior. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

GuidanceSchedule: TypeAlias = Literal["constant", "linear", "cosine"]
"""How classifier-free guidance is spread over the codes of an image."""

# Far above what anyone trains, but low enough that a config from a stranger can neither keep the
# construction of its model busy nor overflow the size of a tensor.
_MAX_LAYERS = 256
_MAX_WIDTH = 1 << 16
_MAX_KERNEL_SIZE = 255
# So that guided logits stay finite in float32.
_MAX_GUIDANCE_SCALE = 1e6


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
    """Also learn to predict the codes in any order: fills in masks, and draws several codes at a
    time."""
    random_order_until: float = 0.5
    """With any_order, the share of training (0 to 1) over which the share of images in a random
    order falls from 1 to random_order_share; the others are in raster order."""
    random_order_share: float = 0.1
    """With any_order, the share of images that stay in a random order to the end, so that other
    orders are not unlearned, 0 to 1."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        _require_between("num_layers", self.num_layers, 1, _MAX_LAYERS)
        for name in ("random_order_until", "random_order_share"):
            _require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        _require_between("num_heads", self.num_heads, 1, _MAX_WIDTH)
        _require_between("width", self.width, 1, _MAX_WIDTH)
        _require(
            self.width % self.num_heads == 0,
            "width",
            f"a multiple of num_heads ({self.num_heads})",
            self.width,
        )
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        _require(0 <= self.label_dropout < 1, "label_dropout", "in [0, 1)", self.label_dropout)


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
    """Side of the square that a layer looks at, odd."""
    attention_every: int = 0
    """After every so many layers each place attends to all places before it (PixelSNAIL); 0 for
    convolutions only."""
    num_heads: int = 4
    """Attention heads; must divide `width` where there is attention."""
    dropout: float = 0.1
    """Probability of dropping a feature after each layer's gate."""
    label_dropout: float = 0.1
    """Probability of training an image without its label; above 0 a guidance scale can be used."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        _require_between("num_layers", self.num_layers, 1, _MAX_LAYERS)
        _require_between("width", self.width, 1, _MAX_WIDTH)
        _require_between("kernel_size", self.kernel_size, 3, _MAX_KERNEL_SIZE)
        _require(self.kernel_size % 2 == 1, "kernel_size", "odd", self.kernel_size)
        _require(self.attention_every >= 0, "attention_every", "at least 0", self.attention_every)
        _require(
            self.attention_every <= self.num_layers,
            "attention_every",
            f"at most num_layers ({self.num_layers})",
            self.attention_every,
        )
        _require_between("num_heads", self.num_heads, 1, _MAX_WIDTH)
        _require(
            not self.attention_every or self.width % self.num_heads == 0,
            "width",
            f"a multiple of num_heads ({self.num_heads})",
            self.width,
        )
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        _require(0 <= self.label_dropout < 1, "label_dropout", "in [0, 1)", self.label_dropout)


PriorConfig: TypeAlias = TransformerConfig | PixelCNNConfig
PRIOR_CONFIGS: dict[str, type[PriorConfig]] = {
    "transformer": TransformerConfig,
    "pixelcnn": PixelCNNConfig,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How codes are drawn from a prior; the defaults draw from the model as it is."""

    temperature: float = 1.0
    """Divides the logits: below 1 safer and less varied, above 1 wilder; 0 takes the likeliest."""
    first_temperature: float | None = None
    """Temperature of the first code, from which it goes in even steps to temperature at the last;
    both above 0. None draws every code at temperature. Codes that are given count as drawn; those
    drawn in one step, with num_steps, have the temperature of its first."""
    top_k: int | None = None
    """Keep only the k likeliest codes at each position; None keeps all."""
    top_p: float | None = None
    """Keep only the likeliest codes that together have at least this probability (nucleus
    sampling), in (0, 1]; None keeps all."""
    guidance_scale: float = 1.0
    """Classifier-free guidance: 1 follows the labels as trained, above 1 more strongly, 0 ignores
    them; at most 1,000,000. Needs labels and a prior trained with label dropout."""
    guidance_schedule: GuidanceSchedule = "constant"
    """`constant` guides every code alike; `linear` and `cosine` go from first_guidance_scale at
    the first code to guidance_scale at the last, so that the composition stays varied. Codes that
    are given count as drawn; those drawn in one step, with num_steps, have the guidance of its
    first."""
    first_guidance_scale: float = 1.0
    """With a schedule, the guidance scale of the first code: 1 follows the label as trained, below
    1 less, so that first codes vary more than those of its class, 0 not at all; at most
    1,000,000."""
    guidance_power: float = 1.0
    """With a schedule, above 1 guidance comes later, below 1 earlier: the share of codes that are
    known is raised to this power."""
    num_steps: int | None = None
    """Draw the codes in this many steps, several at once and independently of each other; fewer is
    faster and worse. Needs a prior trained with any_order. None draws one by one in raster order,
    exactly from the model."""
    step_order: Literal["random", "confidence"] = "random"
    """With num_steps, which codes come first: `random` draws each step's share of a random order;
    `confidence` draws all open codes in each step and keeps those it is surest of, which is slower
    in large batches."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Matrix products of the transformer while sampling. float32 draws from the distribution whose
    probabilities are reported; bfloat16 from one that is rounded to 8 bits, with other codes for
    the same seed, about twice as fast on CPUs that know it."""
    compile: Literal["off", "auto", "on"] = "off"
    """Compile the transformer's step before drawing: faster from some 10,000 images on (seconds
    are lost first, fewer the second time), and needs a C++ compiler, or Triton on a GPU. `auto`
    compiles where that pays. Codes are rounded in another order, which in float32 turns about one
    draw in a million, in bfloat16 many."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        for name in ("temperature", "guidance_scale", "first_guidance_scale"):
            value = getattr(self, name)
            _require(value >= 0, name, "at least 0", value)
            _require(value < float("inf"), name, "finite", value)
        most = f"at most {_MAX_GUIDANCE_SCALE:,.0f}"
        for name in ("guidance_scale", "first_guidance_scale"):
            value = getattr(self, name)
            _require(value <= _MAX_GUIDANCE_SCALE, name, most, value)
        first = self.first_temperature
        _require(
            first is None or 0 < first < float("inf"),
            "first_temperature",
            "above 0 and finite, or None",
            first,
        )
        if first is not None and self.temperature == 0:
            raise ValueError(
                f"first_temperature {first} needs a temperature above 0 to go to, and 0 takes the "
                "likeliest code: name another temperature, or leave first_temperature out"
            )
        _require(
            self.guidance_schedule in get_args(GuidanceSchedule),
            "guidance_schedule",
            f"one of {', '.join(get_args(GuidanceSchedule))}",
            self.guidance_schedule,
        )
        power = self.guidance_power
        _require(0 < power < float("inf"), "guidance_power", "above 0 and finite", power)
        for name, purpose in (("guidance_power", "shape"), ("first_guidance_scale", "start")):
            value = getattr(self, name)
            if value != 1 and self.guidance_schedule == "constant":
                raise ValueError(
                    f"{name} {value} needs a guidance_schedule to {purpose}: "
                    "choose linear or cosine, or keep it at 1"
                )
        if self.guidance_schedule != "constant" and not self.guided:
            raise ValueError(
                f"guidance_schedule {self.guidance_schedule} needs a guidance_scale other than 1 "
                "to go to, or a first_guidance_scale to start from: name one, or leave the "
                "schedule out"
            )
        steps = self.num_steps
        _require(steps is None or steps >= 1, "num_steps", "at least 1 or None", steps)
        _require(
            self.step_order in ("random", "confidence"),
            "step_order",
            "random or confidence",
            self.step_order,
        )
        _require(
            self.precision in ("float32", "bfloat16"),
            "precision",
            "float32 or bfloat16",
            self.precision,
        )
        _require(self.compile in ("off", "auto", "on"), "compile", "off, auto or on", self.compile)
        _require(self.top_k is None or self.top_k >= 1, "top_k", "at least 1", self.top_k)
        _require(self.top_p is None or 0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)

    @property
    def guided(self) -> bool:
        """Whether any code is drawn otherwise than under its label as trained."""
        return self.guidance_scale != 1 or self.first_guidance_scale != 1


def _require(holds: bool, name: str, requirement: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {requirement}, got {value}")


def _require_between(name: str, value: int, least: int, most: int) -> None:
    _require(value >= least, name, f"at least {least}", value)
    _require(value <= most, name, f"at most {most:,}", value)
