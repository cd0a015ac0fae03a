"""The contract every prior keeps: exact log-probabilities and samples of code grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.artifact import ArtifactRecord, load_artifact, save_artifact
from stage2_prior.config import PriorConfig, SamplingSettings
from stage2_prior.grids import (
    GridSpec,
    check_codes,
    check_grids,
    check_known,
    split_by_grid,
    to_grids,
    to_sequence,
)
from stage2_prior.sampling.checks import (
    Labels,
    check_any_order,
    check_has_context,
    check_numbers,
    check_settings,
    context_sequence,
    decide_compilation,
    labels_or_null,
)
from stage2_prior.sampling.noise import AddressedNoise
from stage2_prior.sampling.ordering import check_order, known_first
from stage2_prior.sampling.padding import ROW_MULTIPLE, num_missing

ARTIFACT_KIND = "prior"
_MAX_CLASSES = 1 << 24
_MAX_VIEWS = 1 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRecord(ArtifactRecord):
    """The `config.json` of a saved prior; the fields are the arguments of `CodePrior`."""

    grids: tuple[GridSpec, ...]
    num_classes: int | None
    vqvae_sha256: str | None
    context_grids: tuple[GridSpec, ...]
    num_views: int
    model: PriorConfig


@runtime_checkable
class DrawsOpenCodes(Protocol):
    """What a prior offers besides where its `any_order` is true: some codes drawn, given others."""

    def draw_open(
        self,
        labels: Tensor,
        settings: SamplingSettings,
        noise: AddressedNoise,
        context: Tensor | None,
        codes: Tensor,
        order: Tensor,
        num_known: int,
    ) -> Tensor:
        """Draws all but the first `num_known` positions of the order; only in evaluation mode.

        Args:
            labels: int64 (B,), as for `CodePrior.forward`.
            settings: How to draw.
            noise: The batch's random numbers.
            context: int64 (B, Lc) or None, as for `CodePrior.forward`.
            codes: int64 (B, L), of which the known ones count.
            order: int64 (B, L), or (1, L) for all.
            num_known: How many known positions the order begins with, the same for all.

        Returns:
            int64 (B, L), all codes.
        """
        ...


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
        num_views: How many views of an image it is trained on, of which view 0 is the image itself:
            the only one that log-probabilities and samples are of.

    Raises:
        ValueError: There are no grids or too many (see `check_grids`), or num_classes or num_views
            is out of range.
    """

    def __init__(
        self,
        config: PriorConfig,
        grids: tuple[GridSpec, ...],
        num_classes: int | None = None,
        vqvae_hash: str | None = None,
        context_grids: tuple[GridSpec, ...] = (),
        num_views: int = 1,
    ) -> None:
        super().__init__()
        if not grids:
            raise ValueError("at least one grid is required, got none")
        check_grids(grids)
        check_grids(context_grids, "context_grids")
        if num_classes is not None and not _is_between(num_classes, 1, _MAX_CLASSES):
            raise ValueError(
                f"num_classes must be from 1 to {_MAX_CLASSES:,}, or None, got {num_classes!r}"
            )
        if not _is_between(num_views, 1, _MAX_VIEWS):
            raise ValueError(f"num_views must be from 1 to {_MAX_VIEWS:,}, got {num_views!r}")
        self.config = config
        self.grids = grids
        self.num_classes = num_classes
        self.vqvae_hash = vqvae_hash
        self.context_grids = context_grids
        self.num_views = num_views

    @property
    def num_codes(self) -> int:
        """L, the codes of one image over all grids."""
        return sum(grid.num_codes for grid in self.grids)

    @property
    def null_label(self) -> int:
        """The label that stands for `no label`, one past the classes."""
        return self.num_classes or 0

    @property
    def num_conditions(self) -> int:
        """What a label can be in training: each class and `no label`, in each view.

        One learned vector each, and not one a view added to one a label, so that a prior is drawn
        from as if there were no views.
        """
        return self.num_views * (self.null_label + 1)

    def in_view(self, labels: Tensor, views: Tensor) -> Tensor:
        """Labels int64 (B,) in [0, num_classes] with their views (B,) in [0, num_views), as one.

        int64 (B,) in [0, num_conditions). In view 0, the image itself, a label is what it was.
        """
        return labels + views * (self.null_label + 1)

    @property
    def any_order(self) -> bool:
        """Whether codes can be predicted in other orders than the prior's own.

        Such a prior also takes an `order` in `forward`, and is one that `DrawsOpenCodes`.
        """
        return False

    @property
    def has_sampler_options(self) -> bool:
        """Whether `SamplingSettings.precision` and `compile` may be chosen."""
        return False

    @property
    def fills_rows(self) -> bool:
        """Whether drawing gives a row the same bits in a batch of any size; see `row_filling`."""
        return False

    @abstractmethod
    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Logits of every code given the codes before it (teacher forcing).

        Args:
            sequence: int64 (B, L), the codes in raster order, grid after grid.
            labels: int64 (B,) in [0, num_classes], `null_label` for no label; of another view than
                the image itself what `in_view` gives.
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
        labels: Labels | None = None,
        context: tuple[Tensor, ...] | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Log p(codes | labels, context), exact; without dropout, whichever mode the prior is in.

        Args:
            codes: int64 (B, h_i, w_i) per grid.
            labels: Integers (B,), one for all, or None for the distribution without labels.
            context: int64 (B, h_i, w_i) per context grid; None where the prior has none.
            order: int64 (L,) or (B, L), the positions (grid after grid, row by row) in the order in
                which they are predicted, for a prior of any order; None for the prior's own.

        Returns:
            float64 (B,), in nats; divide by ln(2) * num_codes for bits per code.

        Raises:
            TypeError: Codes, labels, context or order are not integers.
            ValueError: Codes, labels, context or order do not fit the prior.
        """
        check_codes(codes, self.grids)
        sequence = to_sequence(codes).long().to(self._device)
        all_labels = self._labels(labels, len(sequence))
        context_sequence = self._context(context, len(sequence))
        if order is not None:
            check_any_order(self.any_order, "log_prob under an order")
            order = check_order(order, len(sequence), self.num_codes).to(self._device)
        with self._evaluating():
            nll = self.nll(sequence, all_labels, context_sequence, order)
        return -(nll.cpu() if nll.device.type == "mps" else nll).double().sum(dim=1)

    def nll(
        self,
        sequence: Tensor,
        labels: Tensor,
        context: Tensor | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """-log p of each code given those before it, differentiable: float32 (B, L), in nats.

        Args:
            sequence: int64 (B, L), as for `forward`.
            labels: int64 (B,), as for `forward`.
            context: int64 (B, Lc) or None, as for `forward`.
            order: int64 (B, L), only for a prior of any order; None for the prior's own.

        Raises:
            ValueError: A context is missing, or given to a prior without.
        """
        check_has_context(context is not None, self.context_grids)
        arguments = (sequence, labels, context)
        all_logits = self(*arguments) if order is None else self(*arguments, order)
        parts = split_by_grid(sequence, self.grids)
        return torch.cat(
            [
                # One flat row of K logits per code: softmax over a strided axis is slow on a CPU.
                F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="none").view_as(
                    part
                )
                for logits, part in zip(all_logits, parts, strict=True)
            ],
            dim=1,
        )

    @torch.no_grad()
    def sample(
        self,
        count: int,
        labels: Labels | None = None,
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
            labels: Integers (count,), one for all, or None for the distribution without labels.
            settings: How to draw; None draws from the model as it is.
            context: int64 (count, h_i, w_i) per context grid; None where the prior has none.
            seed: In [0, 2^63). A sample's random numbers depend on the seed and its index alone,
                so that it is the same in whatever batch it is drawn. Another machine, number of
                threads or version of torch may round a logit differently, which turns about one
                draw in a million; so may `settings.compile`, whose `auto` goes by `count`.
            first_index: Index of the first sample, at least 0.
            batch_size: How many are drawn at once; memory grows with it and not with `count`.

        Returns:
            int64 (count, h_i, w_i) per grid.

        Raises:
            TypeError: Labels or context are not integers.
            ValueError: Labels, context, settings or seed do not fit the prior.
        """
        count, seed, first_index, batch_size = check_numbers(count, seed, first_index, batch_size)
        settings = self._settings(settings, count * self.num_codes, labelled=labels is not None)
        if settings.num_steps is not None:  # every position is open
            nothing = torch.zeros(count, self.num_codes, dtype=torch.int64)
            return self.complete(
                to_grids(nothing, self.grids),
                to_grids(nothing.bool(), self.grids),
                labels,
                settings,
                context=context,
                seed=seed,
                first_index=first_index,
                batch_size=batch_size,
            )
        all_labels = self._labels(labels, count)
        all_context = self._context(context, count)
        multiple = self._batch_multiple(settings, min(count, batch_size))
        sequences = []
        with self._evaluating():
            for start in range(0, count, batch_size):
                rows = torch.arange(start, min(start + batch_size, count))
                noise, (batch_labels, batch_context) = self._filled(
                    rows, multiple, seed, first_index, (all_labels, all_context)
                )
                assert batch_labels is not None
                drawn = self.draw_sequence(batch_labels, settings, noise.block(0), batch_context)
                sequences.append(drawn[: len(rows)])
        return to_grids(torch.cat(sequences), self.grids)

    @torch.no_grad()
    def complete(
        self,
        codes: tuple[Tensor, ...],
        known: tuple[Tensor, ...],
        labels: Labels | None = None,
        settings: SamplingSettings | None = None,
        *,
        context: tuple[Tensor, ...] | None = None,
        order: Tensor | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> tuple[Tensor, ...]:
        """Draws the codes that are not known, given those that are.

        The known codes come first in the order, the others are drawn after them, one by one, each
        given all before it: exactly from the model's p(open | known) under that order. With
        `settings.num_steps`, several are drawn at a time, in an order of their own.

        Args:
            codes: int64 (B, h_i, w_i) per grid; what open places hold does not matter.
            known: bool (B, h_i, w_i) per grid, True for a code to keep.
            labels: Integers (B,), one for all, or None for the distribution without labels.
            settings: How to draw; None draws from the model as it is.
            context: int64 (B, h_i, w_i) per context grid; None where the prior has none.
            order: int64 (L,) or (B, L); known and open codes each keep the order they have here.
                None for the raster order.
            seed: As for `sample`: the code at a place depends on seed, index and place.
            first_index: Index of the first sample.
            batch_size: How many are drawn at once. Samples with equally many known codes are drawn
                together.

        Returns:
            int64 (B, h_i, w_i) per grid, on the prior's device.

        Raises:
            TypeError: Codes, labels, context or order are not integers, or known is not bool.
            ValueError: The prior has one order only, or something does not fit it.
        """
        check_any_order(self.any_order, "completing known codes or drawing several codes at a time")
        check_codes(codes, self.grids)
        check_known(known, self.grids)
        count, seed, first_index, batch_size = check_numbers(
            len(codes[0]), seed, first_index, batch_size
        )
        num_open = int(sum((~grid).sum() for grid in known))
        settings = self._settings(settings, num_open, labelled=labels is not None)
        if len(known[0]) != count:
            raise ValueError(f"known must have {count} rows like codes, got {len(known[0])}")
        if order is not None and settings.num_steps is not None:
            raise ValueError("num_steps draws in an order of its own: leave order or num_steps out")
        if order is None:
            order = torch.arange(self.num_codes)
        order = check_order(order, count, self.num_codes).to(self._device)
        sequence = to_sequence(codes).long().to(self._device)
        known_sequence = to_sequence(known).to(self._device)
        all_labels = self._labels(labels, count)
        all_context = self._context(context, count)
        num_known = known_sequence.sum(dim=1).cpu()
        multiple = self._batch_multiple(settings, min(count, batch_size))
        result = sequence.clone()
        with self._evaluating():
            for number in sorted(set(num_known.tolist())):
                for rows in (num_known == number).nonzero()[:, 0].split(batch_size):
                    noise, batch = self._filled(
                        rows,
                        multiple,
                        seed,
                        first_index,
                        (all_labels, all_context, sequence, known_sequence, order),
                    )
                    drawn = self._draw_open(noise, batch, settings, number)
                    result[rows.to(result.device)] = drawn[: len(rows)]
        return to_grids(result, self.grids)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` to a new `directory`, atomically.

        Raises:
            FileExistsError: `directory` exists.
            OSError: The disk is full or refuses.
            ValueError: Weights are not float32.
        """
        fields = {
            "grids": [asdict(grid) for grid in self.grids],
            "num_classes": self.num_classes,
            "vqvae_sha256": self.vqvae_hash,
            "context_grids": [asdict(grid) for grid in self.context_grids],
            "num_views": self.num_views,
            "model": asdict(self.config),
        }
        save_artifact(directory, ARTIFACT_KIND, fields, self)

    @staticmethod
    def from_pretrained(directory: str | Path) -> CodePrior:
        """Loads what `save_pretrained` wrote, of whatever kind, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: The files are damaged or do not belong together.
        """
        from stage2_prior.pretrained import (
            build_prior,  # it imports the kinds, which import this file
        )

        def build(saved: PriorRecord) -> CodePrior:
            return build_prior(
                saved.model,
                saved.grids,
                saved.num_classes,
                saved.vqvae_sha256,
                saved.context_grids,
                saved.num_views,
            )

        return load_artifact(directory, ARTIFACT_KIND, PriorRecord, build).eval()

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

    def _batch_multiple(self, settings: SamplingSettings, largest: int) -> int:
        """What batches are filled up to a multiple of, the largest having so many rows.

        Compiled code knows one size, so that a last, smaller batch would be compiled anew.
        """
        if settings.compile == "on":
            return largest + num_missing(largest)
        return 1 if self.fills_rows else ROW_MULTIPLE

    def _filled(
        self,
        rows: Tensor,
        multiple: int,
        seed: int,
        first_index: int,
        tensors: tuple[Tensor | None, ...],
    ) -> tuple[AddressedNoise, list[Tensor | None]]:
        """Noise and tensors of some rows, filled up to a multiple of so many rows.

        The rows that fill up are copies of the first one.
        """
        filled = F.pad(rows, (0, num_missing(len(rows), multiple)), value=int(rows[0]))
        # Random numbers are float64, which MPS does not know.
        noise_device = "cpu" if self._device.type == "mps" else self._device
        noise = AddressedNoise(seed, (filled + first_index).to(noise_device), self.num_codes)
        return noise, [None if t is None else t[filled.to(t.device)] for t in tensors]

    def _draw_open(
        self,
        noise: AddressedNoise,
        batch: list[Tensor | None],
        settings: SamplingSettings,
        num_known: int,
    ) -> Tensor:
        labels, context, codes, known, order = batch
        assert labels is not None
        assert codes is not None
        assert known is not None
        assert order is not None
        if settings.num_steps is not None and settings.step_order == "random":
            order = noise.block(1).to(order.device).argsort(dim=1)
        order = known_first(order, known)
        if (order == order[:1]).all():
            order = order[:1]
        assert isinstance(self, DrawsOpenCodes), "any_order is true, so there must be draw_open"
        return self.draw_open(labels, settings, noise, context, codes, order, num_known)

    def _labels(self, labels: Labels | None, count: int) -> Tensor:
        """Labels as `forward` takes them: int64 (count,)."""
        return labels_or_null(labels, count, self.config, self.num_classes).to(self._device)

    def _context(self, context: tuple[Tensor, ...] | None, count: int) -> Tensor | None:
        """The context as `forward` takes it: int64 (count, Lc), or None for a prior without."""
        sequence = context_sequence(context, count, self.context_grids)
        return None if sequence is None else sequence.to(self._device)

    def _settings(
        self, settings: SamplingSettings | None, num_draws: int, *, labelled: bool
    ) -> SamplingSettings:
        """The settings for drawing `num_draws` codes, all decided; see `check_settings`."""
        settings = SamplingSettings() if settings is None else settings
        if not isinstance(settings, SamplingSettings):
            raise TypeError(f"settings must be SamplingSettings, got {type(settings).__name__}")
        check_settings(
            settings,
            self.config,
            self.num_classes,
            labelled=labelled,
            has_sampler_options=self.has_sampler_options,
        )
        return decide_compilation(
            settings, num_draws, self._device, possible=self.has_sampler_options
        )


def _is_between(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and least <= value <= most
