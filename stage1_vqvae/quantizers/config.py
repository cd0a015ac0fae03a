"""What a user chooses about a quantizer: one dataclass per kind. Imports no torch.

The kinds that look codes up in a codebook share fields by inheritance, from the fewest to the most:

    CodebookConfig               K vectors of D dimensions
      GumbelConfig                                                drawn from what z_e says
      SoftCodebookConfig         StochasticConfig IndexBackpropConfig
      NearestCodebookConfig      the nearest vector is chosen
        SimVQConfig                                               a frozen codebook, transformed
        LearnedCodebookConfig    EMAQuantizerConfig GradientQuantizerConfig
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from stage1_vqvae.config_checks import (
    MAX_BATCHES,
    MAX_CODEBOOK_DIM,
    MAX_CODEBOOK_SIZE,
    MAX_GRIDS,
    MAX_WIDTH,
    require,
    require_between,
    require_directions,
    require_temperatures,
)
from stage1_vqvae.quantizers.levels import balanced_levels


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """What every quantizer with a codebook of K vectors has in common."""

    codebook_size: int = 512
    """K, the number of code vectors; a grid position costs log2(K) bits before entropy coding."""
    codebook_dim: int = 8
    """D, the dimension of a code vector; small values (4 to 16) keep the whole codebook in use."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        require_between("codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        require_between("codebook_dim", self.codebook_dim, 1, MAX_CODEBOOK_DIM)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestCodebookConfig(CodebookConfig):
    """What every quantizer has in common that takes the nearest of its code vectors."""

    commitment_weight: float = 1.0
    """Beta of the VQ-VAE paper's equation 3: how strongly z_e is pulled to its code. The paper uses
    0.25 and finds 0.1 to 2 alike; with every term averaged over its elements, 0.25 lets z_e run
    away from a young codebook and 0.5 to 1 do not."""
    cosine: bool = False
    """Compare directions only: z_e and the code vectors are scaled to unit length."""
    rotation_trick: bool = False
    """Carry the gradient from z_q to z_e by the rotation between the two instead of copying it."""
    entropy_weight: float = 0.0
    """Weight of the entropy regularisation (nats): sure of each code, varied over all codes; 0
    for none. Costs memory for all N x K soft assignments of a batch."""
    entropy_temperature: float = 0.1
    """Softness of those assignments, softmax(-||z_e - e||^2 / temperature); small values approach
    the nearest code."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        CodebookConfig.__post_init__(self)
        require(
            self.commitment_weight >= 0, "commitment_weight", "at least 0", self.commitment_weight
        )
        require_directions(self.cosine, self.codebook_dim)
        require(self.entropy_weight >= 0, "entropy_weight", "at least 0", self.entropy_weight)
        require(
            self.entropy_temperature > 0, "entropy_temperature", "above 0", self.entropy_temperature
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedCodebookConfig(NearestCodebookConfig):
    """What both quantizers of the VQ-VAE paper have in common: code vectors that follow z_e."""

    decay: float = 0.99
    """Decay per forward pass (a step has `accumulation` of them) of the moving statistics of how
    often each code is used and, for the EMA quantizer, of the vectors it stands for."""
    kmeans_batches: int = 8
    """Training batches whose z_e start the codebook by k-means; 0 starts from random vectors."""
    restart_threshold: float = 0.03
    """A code used less than this fraction of the mean usage is dead and restarts from a random
    z_e of the batch; 0 never restarts."""
    restart_until: float = 0.7
    """Fraction of training after which no code restarts or follows anchors any more, so that the
    codebook settles."""
    online_clustering: bool = False
    """Draw every code, the more the less it is used, to an anchor among the z_e of each batch
    (CVQ); instead of restarts, whose restart_threshold must then be 0."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range, or two of them exclude each other.
        """
        NearestCodebookConfig.__post_init__(self)
        require_revival(self)
        require(
            not (self.online_clustering and self.restart_threshold),
            "restart_threshold",
            "0 with online_clustering=True (both revive unused codes)",
            self.restart_threshold,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EMAQuantizerConfig(LearnedCodebookConfig):
    """Codebook learned as moving averages of its z_e (VQ-VAE paper, appendix A.1)."""

    kind: Literal["ema"] = "ema"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientQuantizerConfig(LearnedCodebookConfig):
    """Codebook learned by gradient descent on the codebook loss (VQ-VAE paper, equation 3)."""

    kind: Literal["gradient"] = "gradient"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    codebook_weight: float = 1.0
    """Weight of ||sg[z_e] - e||^2, the term that moves the code vectors (1 in the paper)."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        LearnedCodebookConfig.__post_init__(self)
        require(self.codebook_weight > 0, "codebook_weight", "above 0", self.codebook_weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimVQConfig(NearestCodebookConfig):
    """A frozen random codebook under one learned linear layer (SimVQ, Zhu et al. 2024)."""

    kind: Literal["simvq"] = "simvq"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    codebook_weight: float = 1.0
    """Weight of ||sg[z_e] - e||^2, the term that moves the map and all codes with it."""
    moment_batches: int = 8
    """Training batches whose z_e give the codes their mean and covariance at the start; 0 starts
    from a random rotation around the origin."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        NearestCodebookConfig.__post_init__(self)
        require(self.codebook_weight > 0, "codebook_weight", "above 0", self.codebook_weight)
        require_between("moment_batches", self.moment_batches, 0, MAX_BATCHES)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftCodebookConfig(CodebookConfig):
    """What quantizers have in common that train code vectors near z_e by soft assignments."""

    kmeans_batches: int = 8
    """Training batches whose z_e start the codebook by k-means; 0 starts from random vectors."""
    decay: float = 0.99
    """Decay per forward pass of the moving average of how often each code is used."""
    restart_threshold: float = 0.03
    """A code used less than this fraction of the mean usage is dead and restarts from a random
    z_e of the batch; 0 never restarts."""
    restart_until: float = 0.7
    """Fraction of training after which no code restarts any more, so that the codebook settles."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        CodebookConfig.__post_init__(self)
        require_revival(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexBackpropConfig(SoftCodebookConfig):
    """Gradients through the index to every code vector (IBQ, Shi et al. 2024)."""

    kind: Literal["index_backprop"] = "index_backprop"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
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
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        SoftCodebookConfig.__post_init__(self)
        for name in ("commitment_weight", "codebook_weight", "entropy_weight"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require_directions(self.cosine, self.codebook_dim)
        for name in ("temperature", "entropy_temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class GumbelConfig(CodebookConfig):
    """Codes drawn from softmax(W z_e) by the Gumbel-softmax (Jang et al. 2017)."""

    kind: Literal["gumbel"] = "gumbel"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
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
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        CodebookConfig.__post_init__(self)
        require_temperatures(self.temperature, self.final_temperature)
        for name in ("kl_weight", "diversity_weight"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class StochasticConfig(SoftCodebookConfig):
    """Codes drawn with p(c | z_e) = softmax(-||z_e - e_c||^2 / 2 s^2) (SQ-VAE, Takida 2022)."""

    kind: Literal["stochastic"] = "stochastic"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    temperature: float = 1.0
    """Of the Gumbel-softmax at the start of training; higher is softer."""
    final_temperature: float = 0.1
    """Where the temperature ends, falling geometrically over training."""
    kl_weight: float = 2e-3
    """Weight of the divergence terms of the evidence bound, in nats a position: the expected
    distance in units of 2 s^2, less the entropy of p(c | z_e)."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        SoftCodebookConfig.__post_init__(self)
        require_temperatures(self.temperature, self.final_temperature)
        require(self.kl_weight >= 0, "kl_weight", "at least 0", self.kl_weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class FiniteScalarConfig:
    """Every dimension rounded to a few levels (FSQ, Mentzer et al. 2023)."""

    kind: Literal["finite_scalar"] = "finite_scalar"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    codebook_size: int = 512
    """K, the number of codes: the product of the levels."""
    levels: tuple[int, ...] | None = None
    """Levels of each dimension of z_e; None takes as few dimensions as give K with 2 to 8 levels
    each, as equal as can be (8 8 8 for 512, 8 8 4 4 for 1024)."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range, or the levels do not give the codebook size.
        """
        require_between("codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        if self.levels is None:
            balanced_levels(self.codebook_size)
            return
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"levels must be at least 2 in each dimension, got {self.levels}")
        require(
            math.prod(self.levels) == self.codebook_size,
            "codebook_size",
            f"the product {math.prod(self.levels)} of levels={self.levels}",
            self.codebook_size,
        )

    @property
    def levels_per_dim(self) -> tuple[int, ...]:
        """`levels`, or what None stands for."""
        return self.levels or balanced_levels(self.codebook_size)

    @property
    def codebook_dim(self) -> int:
        """D, one dimension per entry of the levels."""
        return len(self.levels_per_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupFreeConfig:
    """Every dimension reduced to its sign (LFQ, Yu et al. 2023; BSQ, Zhao et al. 2024)."""

    kind: Literal["lookup_free"] = "lookup_free"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
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
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        require_between("codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        require(
            self.codebook_size.bit_count() == 1,
            "codebook_size",
            "a power of two for the lookup_free quantizer",
            self.codebook_size,
        )
        for name in ("commitment_weight", "entropy_weight"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(
            self.entropy_temperature > 0, "entropy_temperature", "above 0", self.entropy_temperature
        )
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
class ResidualConfig:
    """Each grid quantizes what the grids before it left over (RQ-VAE, Lee et al. 2022)."""

    kind: Literal["residual"] = "residual"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    num_quantizers: int = 2
    """Grids of codes, coarse to fine; any prefix of them decodes."""
    quantizer_dropout: float = 0.0
    """Probability that a training image keeps only a random prefix of its grids, so that the
    decoder learns to do with few (SoundStream, Zeghidour et al. 2021)."""
    base: SingleQuantizerConfig = field(
        default_factory=lambda: EMAQuantizerConfig(codebook_size=32)
    )
    """The quantizer of each grid, with a codebook of its own."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range, or the base has no residual to pass on.
        """
        require_between("num_quantizers", self.num_quantizers, 1, MAX_GRIDS)
        require(
            0 <= self.quantizer_dropout < 1,
            "quantizer_dropout",
            "in [0, 1)",
            self.quantizer_dropout,
        )
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
class ProductConfig:
    """The dimensions cut into groups, each with a quantizer and a grid of its own.

    Jégou et al. 2011, "Product quantization for nearest neighbor search"; in VQ-VAEs e.g. Baevski
    et al. 2020, "vq-wav2vec".
    """

    kind: Literal["product"] = "product"
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""
    codebook_dim: int = 8
    """D, the channels of z_e over all groups."""
    groups: int = 2
    """Grids of codes, one per group of codebook_dim / groups channels."""
    base: SingleQuantizerConfig = field(
        default_factory=lambda: EMAQuantizerConfig(codebook_size=32, codebook_dim=4)
    )
    """The quantizer of each group; its dimension must be codebook_dim / groups."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range, or the dimensions do not fit the groups.
        """
        require_between("groups", self.groups, 1, MAX_GRIDS)
        require_between("codebook_dim", self.codebook_dim, 1, MAX_WIDTH)
        require(
            self.codebook_dim % self.groups == 0,
            "codebook_dim",
            f"a multiple of groups={self.groups}",
            self.codebook_dim,
        )
        require(
            self.base.codebook_dim == self.codebook_dim // self.groups,
            f"the dimension of base ({self.base.kind})",
            f"codebook_dim / groups = {self.codebook_dim} / {self.groups} = "
            f"{self.codebook_dim // self.groups}",
            self.base.codebook_dim,
        )


QuantizerConfig: TypeAlias = SingleQuantizerConfig | ResidualConfig | ProductConfig
SINGLE_QUANTIZER_CONFIGS: dict[str, type[SingleQuantizerConfig]] = {
    "ema": EMAQuantizerConfig,
    "gradient": GradientQuantizerConfig,
    "simvq": SimVQConfig,
    "finite_scalar": FiniteScalarConfig,
    "lookup_free": LookupFreeConfig,
    "gumbel": GumbelConfig,
    "stochastic": StochasticConfig,
    "index_backprop": IndexBackpropConfig,
}
QUANTIZER_CONFIGS: dict[str, type[QuantizerConfig]] = {
    **SINGLE_QUANTIZER_CONFIGS,
    "residual": ResidualConfig,
    "product": ProductConfig,
}


def kinds_with(option: str) -> list[str]:
    """The kinds of quantizers that have an option, e.g. `rotation_trick`."""
    return [
        kind for kind, cls in QUANTIZER_CONFIGS.items() if option in {f.name for f in fields(cls)}
    ]


def require_revival(config: LearnedCodebookConfig | SoftCodebookConfig) -> None:
    """Refuses impossible settings of how a codebook starts and restarts.

    Raises:
        ValueError: A value is out of range.
    """
    require(0 < config.decay < 1, "decay", "in (0, 1)", config.decay)
    require_between("kmeans_batches", config.kmeans_batches, 0, MAX_BATCHES)
    threshold, until = config.restart_threshold, config.restart_until
    require(0 <= threshold < 1, "restart_threshold", "in [0, 1)", threshold)
    require(0 <= until <= 1, "restart_until", "in [0, 1]", until)
