"""How codes are sampled from a prior. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stage2_prior.config_checks import require

GuidanceSchedule: TypeAlias = Literal["constant", "linear", "cosine"]
"""How classifier-free guidance changes over the codes of an image."""
StepOrder: TypeAlias = Literal["random", "confidence"]
"""Which codes parallel decoding samples first."""
Precision: TypeAlias = Literal["float32", "bfloat16"]
"""Of matrix products."""
Compilation: TypeAlias = Literal["off", "auto", "on"]
"""Whether the decoding step is compiled."""

_CHOICES = {
    "guidance_schedule": GuidanceSchedule,
    "step_order": StepOrder,
    "precision": Precision,
    "compile": Compilation,
}

# So that guided logits stay finite in float32.
_MAX_GUIDANCE_SCALE = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How codes are sampled from a prior; the defaults sample from the model as it is."""

    temperature: float = 1.0
    """Divides the logits: below 1 less varied, above 1 more; 0 takes the likeliest code."""
    first_temperature: float | None = None
    """Temperature of the first code; it changes linearly to temperature at the last code. Both must
    be above 0. None keeps temperature constant. Known codes count as sampled. All codes of one
    step, with num_steps, have the temperature of its first."""
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
    the first code to guidance_scale at the last, so that the composition stays varied. Known codes
    count as sampled. All codes of one step, with num_steps, have the guidance of its first."""
    first_guidance_scale: float = 1.0
    """With a schedule, the guidance scale of the first code: 1 follows the label as trained, below
    1 less, 0 not at all; at most 1,000,000."""
    guidance_power: float = 1.0
    """With a schedule, above 1 guidance comes later, below 1 earlier: the fraction of codes that
    are known is raised to this power."""
    num_steps: int | None = None
    """Sample the codes in this many steps, several at once and independently of each other; fewer
    is faster and worse. Needs a prior trained with any_order. None samples one by one in raster
    order, exactly from the model."""
    step_order: StepOrder = "random"
    """With num_steps, which codes come first: `random` samples each step's share of a random order;
    `confidence` samples all unknown codes in each step and keeps the most confident ones, which is
    slower in large batches."""
    precision: Precision = "float32"
    """Matrix products of the transformer while sampling. float32 samples from the distribution
    whose probabilities are reported; bfloat16 from one that is rounded to 8 bits, with other codes
    for the same seed, about twice as fast on CPUs that support it."""
    compile: Compilation = "off"
    """Compile the transformer's step before sampling: faster from some 10,000 images on (compiling
    takes seconds, less the second time). Needs a C++ compiler, or Triton on a GPU. `auto` compiles
    where that pays. Codes are rounded in another order, which in float32 changes about one code in
    a million, in bfloat16 many."""

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance_scale", "first_guidance_scale"):
            value = getattr(self, name)
            require(value >= 0, name, "at least 0", value)
            require(value < math.inf, name, "finite", value)
        most = f"at most {_MAX_GUIDANCE_SCALE:,.0f}"
        for name in ("guidance_scale", "first_guidance_scale"):
            require(getattr(self, name) <= _MAX_GUIDANCE_SCALE, name, most, getattr(self, name))
        first, rule = self.first_temperature, "above 0 and finite, or None"
        require(first is None or 0 < first < math.inf, "first_temperature", rule, first)
        if first is not None and self.temperature == 0:
            raise ValueError(
                f"first_temperature {first} needs a temperature above 0 to go to, and 0 takes the "
                "likeliest code: name another temperature, or leave first_temperature out"
            )
        for name, literal in _CHOICES.items():
            *choices, last = get_args(literal)
            value = getattr(self, name)
            require(value in (*choices, last), name, f"{', '.join(choices)} or {last}", value)
        power = self.guidance_power
        require(0 < power < math.inf, "guidance_power", "above 0 and finite", power)
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
        require(steps is None or steps >= 1, "num_steps", "at least 1 or None", steps)
        require(self.top_k is None or self.top_k >= 1, "top_k", "at least 1", self.top_k)
        require(self.top_p is None or 0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)

    @property
    def guided(self) -> bool:
        """Whether any code is sampled with a guidance scale other than 1."""
        return self.guidance_scale != 1 or self.first_guidance_scale != 1
