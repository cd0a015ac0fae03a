"""The contract every prior keeps: exact log-probabilities and samples of code grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.artifact import CONFIG_FILE, load_artifact, load_weights, save_artifact
from stage2_prior.config import (
    PriorConfig,
    SamplingSettings,
    prior_config_from_dict,
    prior_config_to_dict,
)
from stage2_prior.grids import (
    GridSpec,
    check_codes,
    grids_from_list,
    grids_to_list,
    split_by_grid,
    to_grids,
    to_sequence,
)
from stage2_prior.noise import addressed_uniform

ARTIFACT_KIND = "prior"
_CONFIG_FIELDS = {"grids", "num_classes", "vqvae_sha256", "model"}
# Absent in what older versions saved: those priors know no context.
_OPTIONAL_FIELDS = {"context_grids"}

# Matrix products and convolutions of a few rows sum in another order than those of many, and the
# last bit of a logit that differs can turn a draw. Batches filled up to a multiple of this gave the
# same bits whatever their size (x86 with AVX512, MKL and oneDNN, 1 to 16 threads).
_ROW_MULTIPLE = 16


class CodePrior(nn.Module, ABC):
    """A distribution p(codes | labels, context) over a tuple of code grids.

        prior = CodePrior.from_pretrained("runs/latest/prior")
        nats = prior.log_prob(codes, labels)                          # (B,)
        codes = prior.sample(64, labels, SamplingSettings(top_p=0.95), seed=0)

    Args:
        config: The network.
        grids: Shape and codebook size of each grid.
        num_classes: Labels are in [0, num_classes); None for a prior without labels.
        vqvae_hash: `weights_hash` of the VQ-VAE that made the codes, if known.
        context_grids: Shape and codebook size of each grid that the codes are conditioned on.

    Raises:
        ValueError: There are no grids, or num_classes is below 1.
    """

    def __init__(
        self,
        config: PriorConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
    ) -> None:
        super().__init__()
        if not grids:
            raise ValueError("at least one grid is required, got none")
        if num_classes is not None and not (isinstance(num_classes, int) and num_classes >= 1):
            raise ValueError(f"num_classes must be at least 1 or None, got {num_classes!r}")
        self.config = config
        self.grids = grids
        self.num_classes = num_classes
        self.vqvae_hash = vqvae_hash
        self.context_grids = context_grids

    @property
    def num_codes(self) -> int:
        """L, the codes of one image over all grids."""
        return sum(grid.num_codes for grid in self.grids)

    @property
    def null_label(self) -> int:
        """The label that stands for `no label`, one past the classes."""
        return self.num_classes or 0

    @abstractmethod
    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits of every code given the codes before it (teacher forcing).

        Args:
            sequence: int64 (B, L), the codes in raster order, grid after grid.
            labels: int64 (B,) in [0, num_classes], `null_label` for no label.
            context: int64 (B, Lc), the context grids as one sequence like `sequence`; None where
                the prior has none.

        Returns:
            float32 (B, h_i * w_i, K_i) per grid.
        """

    @abstractmethod
    def draw_sequence(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        uniform: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """Draws int64 (B, L) from labels (B,) and one uniform number per code, float64 (B, L).

        Only called in evaluation mode; `context` as for `forward`.
        """

    @torch.no_grad()
    def log_prob(
        self,
        codes: tuple[Tensor, ...],
        labels: Tensor | None = None,
        context: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Log p(codes | labels, context), exact; without dropout, whichever mode the prior is in.

        Args:
            codes: int64 (B, h_i, w_i) per grid.
            labels: int64 (B,), or None for the distribution without labels.
            context: int64 (B, h_i, w_i) per context grid; None where the prior has none.

        Returns:
            float64 (B,), in nats; divide by ln(2) * num_codes for bits per code.

        Raises:
            TypeError: Codes, labels or context are not integers.
            ValueError: Codes, labels or context do not fit the prior.
        """
        check_codes(codes, self.grids)
        sequence = to_sequence(codes).long().to(self._device)
        labels = self._labels_or_null(labels, len(sequence))
        context_sequence = self._context_sequence(context, len(sequence))
        with self._evaluating():
            nll = self.nll(sequence, labels, context_sequence)
        return -(nll.cpu() if nll.device.type == "mps" else nll).double().sum(dim=1)

    def nll(self, sequence: Tensor, labels: Tensor, context: Tensor | None = None) -> Tensor:
        """-log p of each code given those before it, differentiable: float32 (B, L), in nats.

        Args:
            sequence: int64 (B, L), as for `forward`.
            labels: int64 (B,), as for `forward`.
            context: int64 (B, Lc) or None, as for `forward`.
        """
        parts = split_by_grid(sequence, self.grids)
        return torch.cat(
            [
                # One flat row of K logits per code: softmax over a strided axis is slow on a CPU.
                F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="none").view_as(
                    part
                )
                for logits, part in zip(self(sequence, labels, context), parts, strict=True)
            ],
            dim=1,
        )

    @torch.no_grad()
    def sample(
        self,
        count: int,
        labels: Tensor | None = None,
        settings: SamplingSettings | None = None,
        *,
        context: tuple[Tensor, ...] | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> tuple[Tensor, ...]:
        """Draws samples number `first_index` to `first_index + count - 1` of `seed`.

        Args:
            count: How many.
            labels: int64 (count,), or None for the distribution without labels.
            settings: How to draw; None draws from the model as it is.
            context: int64 (count, h_i, w_i) per context grid; None where the prior has none.
            seed: In [0, 2^63). A sample's random numbers depend on the seed and its index alone,
                so that it is the same in whatever batch it is drawn. Another machine, number of
                threads or version of torch may round a logit differently, which turns about one
                draw in a million.
            first_index: Index of the first sample, at least 0.
            batch_size: How many are drawn at once, in effect rounded up to a multiple of 16;
                memory grows with it and not with `count`.

        Returns:
            int64 (count, h_i, w_i) per grid.

        Raises:
            TypeError: Labels or context are not integers.
            ValueError: Labels, context, settings or seed do not fit the prior.
        """
        settings = settings or SamplingSettings()
        self._check_request(count, labels, settings, seed, first_index, batch_size)
        all_labels = self._labels_or_null(labels, count)
        all_context = self._context_sequence(context, count)
        # Random numbers are float64, which MPS does not know.
        noise_device = "cpu" if self._device.type == "mps" else self._device
        indices = torch.arange(first_index, first_index + count, device=noise_device)
        sequences = []
        with self._evaluating():
            for start in range(0, count, batch_size):
                batch = slice(start, start + batch_size)
                uniform = addressed_uniform(seed, indices[batch], self.num_codes)
                here = None if all_context is None else all_context[batch]
                sequences.append(self._draw_filled(all_labels[batch], settings, uniform, here))
        return to_grids(torch.cat(sequences), self.grids)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` to a new `directory`, atomically.

        Raises:
            FileExistsError: `directory` exists.
        """
        config = {
            "grids": grids_to_list(self.grids),
            "num_classes": self.num_classes,
            "vqvae_sha256": self.vqvae_hash,
            "context_grids": grids_to_list(self.context_grids),
            "model": prior_config_to_dict(self.config),
        }
        save_artifact(directory, ARTIFACT_KIND, config, self)

    @staticmethod
    def from_pretrained(directory: str | Path) -> CodePrior:
        """Loads what `save_pretrained` wrote, of whatever kind, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The files are damaged or do not belong together.
        """
        from stage2_prior.build import build_prior  # it imports the kinds, which import this file

        config, state = load_artifact(directory, ARTIFACT_KIND)
        if differing := (config.keys() - _OPTIONAL_FIELDS) ^ _CONFIG_FIELDS:
            raise ValueError(
                f"{CONFIG_FILE} in {directory} must have the fields of a saved prior, but "
                f"{sorted(differing)} are missing or unknown: save it again"
            )
        prior = build_prior(
            prior_config_from_dict(config["model"]),
            grids_from_list(config["grids"]),
            config["num_classes"],
            config["vqvae_sha256"],
            grids_from_list(config.get("context_grids", [])),
        )
        load_weights(prior, state, directory)
        return prior.eval()

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for the length of the block."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _draw_filled(
        self, labels: Tensor, settings: SamplingSettings, uniform: Tensor, context: Tensor | None
    ) -> Tensor:
        """`draw_sequence` in a batch filled up to a multiple of `_ROW_MULTIPLE` rows."""
        missing = -len(labels) % _ROW_MULTIPLE
        filled = F.pad(labels, (0, missing)), F.pad(uniform, (0, 0, 0, missing))
        if context is not None:
            context = F.pad(context, (0, 0, 0, missing))
        return self.draw_sequence(filled[0], settings, filled[1], context)[: len(labels)]

    def _context_sequence(self, context: tuple[Tensor, ...] | None, count: int) -> Tensor | None:
        """The context grids as int64 (count, Lc), or None for a prior without."""
        if not self.context_grids:
            if context is not None:
                raise ValueError("this prior was trained without context: leave context out")
            return None
        if context is None:
            raise ValueError(
                f"this prior was trained with {len(self.context_grids)} context grids, got none: "
                "name the codes that it is to go by"
            )
        check_codes(context, self.context_grids, name="context")
        if len(context[0]) != count:
            raise ValueError(f"context must have {count} rows, got {len(context[0])}")
        return to_sequence(context).long().to(self._device)

    def _labels_or_null(self, labels: Tensor | None, count: int) -> Tensor:
        if labels is None:
            self._check_null_is_trained()
            return torch.full((count,), self.null_label, device=self._device)
        if self.num_classes is None:
            raise ValueError("this prior was trained without labels: leave labels out")
        if labels.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"labels must be int64, got {labels.dtype}: convert them with .long()")
        if labels.shape != (count,):
            raise ValueError(f"labels must have shape ({count},), got {tuple(labels.shape)}")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels must be in [0, {self.num_classes}), got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        return labels.long().to(self._device)

    def _check_null_is_trained(self) -> None:
        if self.num_classes is not None and not self.config.label_dropout:
            raise ValueError(
                "going without labels or using a guidance scale needs a prior trained with "
                "label_dropout above 0, got 0: name labels and keep guidance_scale at 1"
            )

    def _check_request(
        self,
        count: int,
        labels: Tensor | None,
        settings: SamplingSettings,
        seed: int,
        first_index: int,
        batch_size: int,
    ) -> None:
        if count < 1 or batch_size < 1:
            raise ValueError(f"count and batch_size must be at least 1, got {count}, {batch_size}")
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"seed must be in [0, 2^63), got {seed}")
        if not 0 <= first_index < (1 << 63) - count:
            raise ValueError(f"first_index must be in [0, 2^63 - count), got {first_index}")
        if labels is None and settings.guidance_scale != 1:
            raise ValueError(
                f"guidance_scale {settings.guidance_scale} needs labels to guide towards: "
                "name labels or keep it at 1"
            )
        if settings.guidance_scale != 1:
            self._check_null_is_trained()
