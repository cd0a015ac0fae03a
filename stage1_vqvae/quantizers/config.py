"""Settings of the quantizers: one dataclass per kind. Imports no torch.

A new kind is a dataclass here with its name in `SingleQuantizerConfig`, and a line in `build.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from stage1_vqvae.config_checks import (
    MAX_BATCHES,
    MAX_CODEBOOK_SIZE,
    MAX_GRIDS,
    MAX_WIDTH,
    require,
    require_above_zero,
    require_at_least_zero,
    require_between,
    require_directions,
    require_temperatures,
)
from stage1_vqvae.quantizers.codebook_config import (
    BaseQuantizerConfig,
    CodebookConfig,
    LearnedCodebookConfig,
    NearestCodebookConfig,
    SoftCodebookConfig,
)
from stage1_vqvae.quantizers.levels import balanced_levels


@dataclass(frozen=True, kw_only=True, slots=True)
class EMAQuantizerConfig(LearnedCodebookConfig):
    """Codebook learned as moving averages of its z_e (VQ-VAE paper, appendix A.1)."""

    kind: Literal["ema"] = "ema"


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientQuantizerConfig(LearnedCodebookConfig):
    """Codebook learned by gradient descent on the codebook loss (VQ-VAE paper, equation 3)."""

    kind: Literal["gradient"] = "gradient"
    codebook_weight: float = 1.0
    """Weight of ||sg[z_e] - e||^2, the term that moves the code vectors (1 in the paper)."""

    def __post_init__(self) -> None:
        LearnedCodebookConfig.__post_init__(self)
        require_above_zero(self, "codebook_weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimVQConfig(NearestCodebookConfig):
    """A frozen random codebook under one learned linear layer (SimVQ, Zhu et al. 2024)."""

    kind: Literal["simvq"] = "simvq"
    codebook_weight: float = 1.0
    """Weight of ||sg[z_e] - e||^2, the term that moves the map and all codes with it."""
    moment_batches: int = 8
    """Training batches whose z_e give the codes their mean and covariance at the start; 0 starts
    from a random rotation around the origin."""

    def __post_init__(self) -> None:
        NearestCodebookConfig.__post_init__(self)
        require_above_zero(self, "codebook_weight")
        require_between("moment_batches", self.moment_batches, 0, MAX_BATCHES)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexBackpropConfig(SoftCodebookConfig):
    """Gradients through the index to every code vector (IBQ, Shi et al. 2024)."""

    kind: Literal["index_backprop"] = "index_backprop"
    commitment_weight: float = 1.0
    """Weight of ||z_e - sg[e]||^2, which pulls z_e to its code."""
    codebook_weight: float = 0.25
    """Weight of ||sg[z_e] - e||^2, which pulls the code to z_e (beta of the paper)."""
    cosine: bool = True
    """Compare directions only: z_e and the code vectors are scaled to unit length. Without it the
    longest vectors win."""
    temperature: float = 0.1
    """Divides the similarities z_e . e in the softmax that carries the gradient (1 in the paper,
    whose vectors are long)."""
    entropy_weight: float = 0.005
    """Weight of the entropy regularisation (nats): sure of each code, varied over all codes."""
    entropy_temperature: float = 0.1
    """Divides the similarities z_e . e in that term."""

    def __post_init__(self) -> None:
        SoftCodebookConfig.__post_init__(self)
        require_at_least_zero(self, "commitment_weight", "codebook_weight", "entropy_weight")
        require_above_zero(self, "temperature", "entropy_temperature")
        require_directions(self.cosine, self.codebook_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class GumbelConfig(CodebookConfig):
    """Codes drawn from softmax(W z_e) by the Gumbel-softmax (Jang et al. 2017)."""

    kind: Literal["gumbel"] = "gumbel"
    temperature: float = 1.0
    """Of the Gumbel-softmax at the start of training; higher is softer."""
    final_temperature: float = 0.1
    """Where the temperature ends, falling geometrically over training."""
    kl_weight: float = 1e-5
    """Weight of the divergence of p(code | z_e) from the uniform distribution, in nats a position:
    keeps the choice at a position open."""
    diversity_weight: float = 0.03
    """Weight of the divergence of its mean over a batch from the uniform distribution, in nats:
    keeps all codes in use (wav2vec 2.0, Baevski et al. 2020, equation 4)."""

    def __post_init__(self) -> None:
        CodebookConfig.__post_init__(self)
        require_temperatures(self.temperature, self.final_temperature)
        require_at_least_zero(self, "kl_weight", "diversity_weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class StochasticConfig(SoftCodebookConfig):
    """Codes drawn with p(c | z_e) = softmax(-||z_e - e_c||^2 / 2 s^2) (SQ-VAE, Takida 2022)."""

    kind: Literal["stochastic"] = "stochastic"
    temperature: float = 1.0
    """Of the Gumbel-softmax at the start of training; higher is softer."""
    final_temperature: float = 0.1
    """Where the temperature ends, falling geometrically over training."""
    kl_weight: float = 2e-3
    """Weight of the divergence terms of the evidence bound, in nats a position: the expected
    distance in units of 2 s^2, less the entropy of p(c | z_e)."""

    def __post_init__(self) -> None:
        SoftCodebookConfig.__post_init__(self)
        require_temperatures(self.temperature, self.final_temperature)
        require_at_least_zero(self, "kl_weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class FiniteScalarConfig(BaseQuantizerConfig):
    """Every dimension rounded to a few levels (FSQ, Mentzer et al. 2023)."""

    kind: Literal["finite_scalar"] = "finite_scalar"
    codebook_size: int = 512
    """K, the number of codes: the product of the levels."""
    levels: tuple[int, ...] | None = None
    """Levels of each dimension of z_e; None takes as few dimensions as give K with 2 to 8 levels
    each, as equal as can be (8 8 8 for 512, 8 8 4 4 for 1024)."""

    def __post_init__(self) -> None:
        require_between("codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        if self.levels is None:
            balanced_levels(self.codebook_size)
            return
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"levels must be at least 2 in each dimension, got {self.levels}")
        product = math.prod(self.levels)
        rule = f"the product {product} of levels={self.levels}"
        require(product == self.codebook_size, "codebook_size", rule, self.codebook_size)

    @property
    def levels_per_dim(self) -> tuple[int, ...]:
        """The number of levels of each dimension; `levels` or its default."""
        return self.levels or balanced_levels(self.codebook_size)

    @property
    def codebook_dim(self) -> int:
        """D, one dimension per entry of the levels."""
        return len(self.levels_per_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupFreeConfig(BaseQuantizerConfig):
    """Every dimension reduced to its sign (LFQ, Yu et al. 2023; BSQ, Zhao et al. 2024)."""

    kind: Literal["lookup_free"] = "lookup_free"
    codebook_size: int = 512
    """K = 2^D, a power of two: one bit for each of the D dimensions of z_e."""
    spherical: bool = False
    """Scale z_e to unit length first, with codes at the corners of a cube in the unit sphere (BSQ);
    the gradient then carries over a bounded error."""
    commitment_weight: float = 0.25
    """How strongly z_e is pulled to its code; spherical codes need none."""
    entropy_weight: float = 0.005
    """Weight of the entropy regularisation (nats): sure of each code, varied over all codes."""
    entropy_temperature: float = 1.0
    """Softness of its assignments, softmax(-||z_e - c||^2 / temperature)."""

    def __post_init__(self) -> None:
        size, rule = self.codebook_size, "a power of two for the lookup_free quantizer"
        require_between("codebook_size", size, 2, MAX_CODEBOOK_SIZE)
        require(size.bit_count() == 1, "codebook_size", rule, size)
        require_at_least_zero(self, "commitment_weight", "entropy_weight")
        require_above_zero(self, "entropy_temperature")
        require_directions(self.spherical, self.codebook_dim, "spherical")

    @property
    def codebook_dim(self) -> int:
        """D = log2(K)."""
        return self.codebook_size.bit_length() - 1


SingleQuantizerConfig: TypeAlias = (
    EMAQuantizerConfig
    | GradientQuantizerConfig
    | SimVQConfig
    | FiniteScalarConfig
    | LookupFreeConfig
    | GumbelConfig
    | StochasticConfig
    | IndexBackpropConfig
)
"""A quantizer with one grid of codes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualConfig(BaseQuantizerConfig):
    """Each grid quantizes what the grids before it left over (RQ-VAE, Lee et al. 2022)."""

    kind: Literal["residual"] = "residual"
    num_quantizers: int = 2
    """Grids of codes, coarse to fine; any prefix of them decodes."""
    quantizer_dropout: float = 0.0
    """Probability that a training image keeps only a random prefix of its grids, so that the
    decoder learns to do with few (SoundStream, Zeghidour et al. 2021)."""
    base: SingleQuantizerConfig = EMAQuantizerConfig(codebook_size=32)
    """The quantizer of each grid, with a codebook of its own."""

    def __post_init__(self) -> None:
        require_between("num_quantizers", self.num_quantizers, 1, MAX_GRIDS)
        dropout = self.quantizer_dropout
        require(0 <= dropout < 1, "quantizer_dropout", "in [0, 1)", dropout)
        if self.base.kind == "gumbel":
            raise ValueError(
                "base.kind gumbel does not go with kind residual: its code vectors are not near "
                "z_e, so that there is no residual; use another base or kind product"
            )
        for name, reason in {
            "cosine": "a residual's length matters",
            "spherical": "a residual's length matters",
            "rotation_trick": "the encoder's gradient passes the residuals only once",
        }.items():
            if getattr(self.base, name, False):
                raise ValueError(
                    f"base.{name}=True does not go with kind residual ({reason}): switch it off"
                )

    @property
    def codebook_dim(self) -> int:
        """D, that of the base."""
        return self.base.codebook_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductConfig(BaseQuantizerConfig):
    """The dimensions cut into groups, each with a quantizer and a grid of its own.

    Jégou et al. 2011, "Product quantization for nearest neighbor search"; in VQ-VAEs e.g. Baevski
    et al. 2020, "vq-wav2vec".
    """

    kind: Literal["product"] = "product"
    codebook_dim: int = 8
    """D, the channels of z_e over all groups."""
    groups: int = 2
    """Grids of codes, one per group of codebook_dim / groups channels."""
    base: SingleQuantizerConfig = EMAQuantizerConfig(codebook_size=32, codebook_dim=4)
    """The quantizer of each group; its dimension must be codebook_dim / groups."""

    def __post_init__(self) -> None:
        require_between("groups", self.groups, 1, MAX_GRIDS)
        require_between("codebook_dim", self.codebook_dim, 1, MAX_WIDTH)
        dim, groups, base = self.codebook_dim, self.groups, self.base
        require(dim % groups == 0, "codebook_dim", f"a multiple of groups={groups}", dim)
        name = f"the dimension of base ({base.kind})"
        rule = f"codebook_dim / groups = {dim} / {groups} = {dim // groups}"
        require(base.codebook_dim == dim // groups, name, rule, base.codebook_dim)


QuantizerConfig: TypeAlias = SingleQuantizerConfig | ResidualConfig | ProductConfig
SINGLE_QUANTIZER_CONFIGS: dict[str, type[SingleQuantizerConfig]] = {
    cls().kind: cls for cls in get_args(SingleQuantizerConfig)
}
QUANTIZER_CONFIGS: dict[str, type[QuantizerConfig]] = {
    cls().kind: cls for cls in get_args(QuantizerConfig)
}


def kinds_with(option: str) -> list[str]:
    """Returns the kinds of quantizers that have an option, e.g. `rotation_trick`."""
    return [
        kind for kind, cls in QUANTIZER_CONFIGS.items() if option in {f.name for f in fields(cls)}
    ]
