"""Settings that several quantizers with a codebook share. Imports no torch.

CodebookConfig               K vectors of D dimensions
  SoftCodebookConfig         trained through soft assignments, restarted where unused
  NearestCodebookConfig      the nearest vector is chosen
    LearnedCodebookConfig    the vectors follow z_e, restarted where unused
"""

from __future__ import annotations

from dataclasses import dataclass

from stage1_vqvae.config_checks import (
    MAX_BATCHES,
    MAX_CODEBOOK_DIM,
    MAX_CODEBOOK_SIZE,
    require,
    require_above_zero,
    require_at_least_zero,
    require_between,
    require_directions,
)


class BaseQuantizerConfig:
    """Base class of the settings of a quantizer.

    Raises:
        ValueError: A value is out of range, or two of them exclude each other.
    """

    __slots__ = ()
    kind: str
    """Quantizer: ema, gradient, simvq, finite_scalar, lookup_free, gumbel, stochastic,
    index_backprop, residual or product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig(BaseQuantizerConfig):
    """Settings of every quantizer with a codebook of K vectors."""

    codebook_size: int = 512
    """K, the number of code vectors; a grid position costs log2(K) bits before entropy coding."""
    codebook_dim: int = 8
    """D, the dimension of a code vector; small values (4 to 16) keep the whole codebook in use."""

    def __post_init__(self) -> None:
        require_between("codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        require_between("codebook_dim", self.codebook_dim, 1, MAX_CODEBOOK_DIM)


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestCodebookConfig(CodebookConfig):
    """Settings of every quantizer that takes the nearest of its code vectors."""

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
        CodebookConfig.__post_init__(self)
        require_at_least_zero(self, "commitment_weight", "entropy_weight")
        require_above_zero(self, "entropy_temperature")
        require_directions(self.cosine, self.codebook_dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedCodebookConfig(NearestCodebookConfig):
    """Settings of both quantizers of the VQ-VAE paper, whose code vectors follow z_e."""

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
        NearestCodebookConfig.__post_init__(self)
        require_restarts(self)
        threshold, rule = self.restart_threshold, "0 with online_clustering=True"
        allowed = not (self.online_clustering and threshold)
        require(allowed, "restart_threshold", f"{rule} (both move unused codes)", threshold)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftCodebookConfig(CodebookConfig):
    """Settings of quantizers that train code vectors near z_e by soft assignments."""

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
        CodebookConfig.__post_init__(self)
        require_restarts(self)


def require_restarts(config: LearnedCodebookConfig | SoftCodebookConfig) -> None:
    """Raises a ValueError unless the settings of the start and of restarts are in range."""
    require(0 < config.decay < 1, "decay", "in (0, 1)", config.decay)
    require_between("kmeans_batches", config.kmeans_batches, 0, MAX_BATCHES)
    threshold, until = config.restart_threshold, config.restart_until
    require(0 <= threshold < 1, "restart_threshold", "in [0, 1)", threshold)
    require(0 <= until <= 1, "restart_until", "in [0, 1]", until)
