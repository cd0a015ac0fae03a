"""What a user chooses about a VQ-VAE. Imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

Likelihood: TypeAlias = Literal["mse", "l1", "bernoulli"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """What every quantizer with a learned codebook of K vectors has in common."""

    codebook_size: int = 512
    """K, the number of code vectors; a grid position costs log2(K) bits before entropy coding."""
    codebook_dim: int = 8
    """D, the dimension of a code vector; small values (4 to 16) keep the whole codebook in use."""
    commitment_weight: float = 1.0
    """Beta of the paper's equation 3: how strongly z_e is pulled to its code. The paper uses 0.25
    and finds 0.1 to 2 alike; with every term averaged over its elements, 0.25 lets z_e run away
    from a young codebook and 0.5 to 1 do not."""
    cosine: bool = False
    """Compare directions only: z_e and the code vectors are scaled to unit length."""
    decay: float = 0.99
    """Decay per forward pass (a step has `accumulation` of them) of the moving statistics of how
    often each code is used and, for the EMA quantizer, of the vectors it stands for."""
    kmeans_batches: int = 8
    """Training batches whose z_e start the codebook by k-means; 0 starts from random vectors."""
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
        _require(self.codebook_size >= 2, "codebook_size", "at least 2", self.codebook_size)
        _require(self.codebook_dim >= 1, "codebook_dim", "at least 1", self.codebook_dim)
        _require(
            self.commitment_weight >= 0, "commitment_weight", "at least 0", self.commitment_weight
        )
        _require(0 < self.decay < 1, "decay", "in (0, 1)", self.decay)
        _require(self.kmeans_batches >= 0, "kmeans_batches", "at least 0", self.kmeans_batches)
        _require(
            0 <= self.restart_threshold < 1,
            "restart_threshold",
            "in [0, 1)",
            self.restart_threshold,
        )
        _require(0 <= self.restart_until <= 1, "restart_until", "in [0, 1]", self.restart_until)
        _require(
            not (self.cosine and self.codebook_dim == 1),
            "codebook_dim",
            "at least 2 with cosine=True (one dimension has only two directions)",
            self.codebook_dim,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EMAQuantizerConfig(CodebookConfig):
    """Codebook learned as moving averages of its z_e (VQ-VAE paper, appendix A.1)."""

    kind: Literal["ema"] = "ema"
    """Quantizer: `ema` or `gradient`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientQuantizerConfig(CodebookConfig):
    """Codebook learned by gradient descent on the codebook loss (VQ-VAE paper, equation 3)."""

    kind: Literal["gradient"] = "gradient"
    """Quantizer: `ema` or `gradient`."""
    codebook_weight: float = 1.0
    """Weight of ||sg[z_e] - e||^2, the term that moves the code vectors (1 in the paper)."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        CodebookConfig.__post_init__(self)
        _require(self.codebook_weight > 0, "codebook_weight", "above 0", self.codebook_weight)


QuantizerConfig: TypeAlias = EMAQuantizerConfig | GradientQuantizerConfig
QUANTIZER_CONFIGS: dict[str, type[QuantizerConfig]] = {
    "ema": EMAQuantizerConfig,
    "gradient": GradientQuantizerConfig,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VQVAEConfig:
    """Networks, quantizer and likelihood of a VQ-VAE; the image's shape comes from the data."""

    downsampling: Literal[2, 4, 8, 16] = 4
    """Pixels per side of the square that one code stands for."""
    width: int = 128
    """Channels of the networks at the resolution of the codes."""
    fine_width: int = 64
    """Channels at every finer resolution, where each convolution costs four times as much."""
    num_layers: int = 3
    """Residual blocks at the resolution of the codes, in the encoder and in the decoder."""
    fine_layers: int = 1
    """Residual blocks at every finer resolution."""
    quantizer: QuantizerConfig = field(default_factory=EMAQuantizerConfig)
    """How z_e becomes codes."""
    likelihood: Likelihood = "mse"
    """What the decoder's output means: `mse` (Gaussian), `l1` (Laplace) or `bernoulli` (logits of
    intensities in [0, 1], binary cross-entropy)."""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A value is out of range.
        """
        _require(
            self.downsampling in (2, 4, 8, 16), "downsampling", "2, 4, 8 or 16", self.downsampling
        )
        _require(self.width >= 1, "width", "at least 1", self.width)
        _require(self.fine_width >= 1, "fine_width", "at least 1", self.fine_width)
        _require(self.num_layers >= 0, "num_layers", "at least 0", self.num_layers)
        _require(self.fine_layers >= 0, "fine_layers", "at least 0", self.fine_layers)
        _require(
            self.likelihood in ("mse", "l1", "bernoulli"),
            "likelihood",
            "mse, l1 or bernoulli",
            self.likelihood,
        )

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> VQVAEConfig:
        """Rebuilds a config from `to_dict()`; every field must be there and none left over.

        Raises:
            ValueError: A field is missing, unknown or out of range.
        """
        quantizer = values.get("quantizer")
        kind = quantizer.get("kind") if isinstance(quantizer, Mapping) else None
        if not isinstance(quantizer, Mapping) or kind not in QUANTIZER_CONFIGS:
            raise ValueError(
                f"quantizer.kind must be one of {', '.join(QUANTIZER_CONFIGS)}, got {kind!r}: "
                "the config is of another version"
            )
        quantizer_config = QUANTIZER_CONFIGS[kind]
        _require_fields(quantizer_config, quantizer)
        _require_fields(VQVAEConfig, values)
        return VQVAEConfig(**{**values, "quantizer": quantizer_config(**quantizer)})


def _require(holds: bool, name: str, requirement: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {requirement}, got {value}")


def _require_fields(cls: type[Any], values: Mapping[str, Any]) -> None:
    expected = {f.name for f in fields(cls)}
    if expected != values.keys():
        raise ValueError(
            f"a {cls.__name__} must have exactly the fields it was saved with, but "
            f"{sorted(expected ^ values.keys())} are missing or unknown: "
            "the config is of another version"
        )
