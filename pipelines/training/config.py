"""Settings of the training loop. Imports no torch, so that `--help` is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

PrecisionChoice = Literal["auto", "fp32", "bf16"]
OptimizerChoice = Literal["adamw", "muon"]
FIELDS_WITHOUT_EFFECT = ("checkpoint_every", "log_every")
"""Settings that may change between a stop and its resume: the weights do not depend on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Settings of one training: duration, batches, optimizer, precision, checkpoints and logs."""

    epochs: float = 10.0
    """Passes over the training split; fractions are allowed (0.5 is half of the images)."""
    batch_size: int = 64
    """Images per optimizer step, over all processes and all accumulated parts together."""
    accumulation: int = 1
    """Parts each batch is split into to save memory; the gradient is that of the whole batch."""
    optimizer: OptimizerChoice = "adamw"
    """adamw, or muon: Muon for the weights of hidden linear maps and convolutions (steps of the
    same size in all directions, which need far fewer images) and AdamW for the rest: first and
    last layers, embeddings, biases and gains."""
    learning_rate: float = 2e-3
    """Peak learning rate, reached at the end of the warm-up; one scale for both optimizers."""
    final_learning_rate: float = 0.0
    """Where the cosine ends, as a share of `learning_rate` in [0, 1]; 1 keeps the rate constant."""
    warmup_fraction: float = 0.05
    """Share of all steps in [0, 1] over which the learning rate rises linearly; 0 for none."""
    weight_decay: float = 0.01
    """Decoupled weight decay, on tensors of two or more dimensions only; 0 for none."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the gradient's first and second moments, each in [0, 1)."""
    clip_norm: float | None = 1.0
    """Largest global L2 norm of the gradient, above which it is scaled down; None never clips."""
    average_decay: float = 0.999
    """Decay per step of the averaged weights used after training, in [0, 1); 0 for the last ones.
    The first steps use min(decay, (1 + step) / (10 + step)), so that short runs average too."""
    precision: PrecisionChoice = "auto"
    """Number format of convolutions and matrix products: auto takes bf16 where a short test at the
    start shows it to be right and faster on this machine, and fp32 elsewhere."""
    compile: bool = False
    """Compile the objective's forward and backward pass at the start, which takes up to minutes:
    for a GPU, where many small operations cost more to start than to do. Random numbers and the
    last bits differ from those of an uncompiled training."""
    validate_every: float = 1.0
    """Epochs between two validations; the end of training is always validated."""
    patience: int | None = None
    """Validations without improvement after which training stops early; None never stops."""
    checkpoint_every: int = 250
    """Optimizer steps between two checkpoints; does not change the result. The end of training is
    always saved."""
    log_every: int = 50
    """Optimizer steps that one line of training metrics averages."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "validate_every"):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive and finite")
        for name in ("batch_size", "accumulation", "checkpoint_every", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("final_learning_rate", "warmup_fraction"):
            self._require(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        self._require("average_decay", 0 <= self.average_decay < 1, "in [0, 1)")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "zero or more and finite")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)")
        self._require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "positive or None")
        self._require("patience", self.patience is None or self.patience >= 1, "1 or more, or None")
        self._require("optimizer", self.optimizer in ("adamw", "muon"), "adamw or muon")
        self._require("precision", self.precision in ("auto", "fp32", "bf16"), "auto, fp32 or bf16")
        if self.batch_size % self.accumulation != 0:
            raise ValueError(
                f"batch_size must be a multiple of accumulation, got {self.batch_size} and "
                f"{self.accumulation}: every part of a batch has to be equally large"
            )

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")

    def check_processes(self, count: int, name: str = "batch_size") -> None:
        """Checks that `count` processes can share every part of a batch of size `name` equally."""
        if self.batch_size % (self.accumulation * count) != 0:
            raise ValueError(
                f"{name} must be a multiple of accumulation times the number of processes, got "
                f"{self.batch_size}, {self.accumulation} and {count}"
            )

    def total_steps(self, num_examples: int) -> int:
        """Returns the optimizer steps of the training for `num_examples`; at least 1."""
        return max(1, round(self.epochs * num_examples / self.batch_size))

    def steps_between_validations(self, num_examples: int) -> int:
        """Returns `validate_every` in optimizer steps; at least 1."""
        return max(1, round(self.validate_every * num_examples / self.batch_size))
