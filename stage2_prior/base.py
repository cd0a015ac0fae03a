"""The contract of every prior: exact log-probabilities and samples of code grids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage2_prior.artifact import ArtifactRecord, save_artifact, weights_hash
from stage2_prior.config import PriorConfig
from stage2_prior.grids import (
    GridSpec,
    check_codes,
    check_known,
    split_by_grid,
    to_grids,
    to_sequence,
)
from stage2_prior.sampling.batching import SamplingBatch, SamplingRequest, split_into_batches
from stage2_prior.sampling.checks import (
    Context,
    Labels,
    check_any_order,
    check_computation,
    check_has_context,
    check_numbers,
    check_settings,
    context_tensor,
    decide_compilation,
    labels_or_null,
)
from stage2_prior.sampling.ordering import check_order
from stage2_prior.sampling.settings import SamplingSettings
from stage2_prior.sampling.stepper import CodeStepper, DecodingStart, SamplingRule, sample_in_order
from stage2_prior.spec import PriorSpec

ARTIFACT_KIND = "prior"
FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorRecord(ArtifactRecord):
    """The `config.json` of a saved prior; the fields are the arguments of `CodePrior`."""

    spec: PriorSpec
    model: PriorConfig


class CodePrior(nn.Module, ABC):
    """A distribution p(codes | labels, context) over a tuple of code grids.

        prior = load_prior("runs/latest/prior")
        nats = prior.log_prob(codes, labels)                          # (B,)
        codes = prior.sample(64, labels, SamplingSettings(top_p=0.95), seed=0)

    A kind of prior defines `forward` and `stepper`.

    Args:
        config: The network.
        spec: Code grids, classes and context.
    """

    any_order: bool = False
    """Whether codes can be predicted in other orders than the prior's own. Such a prior takes an
    `order` in `forward`."""
    supports_precision_and_compile: ClassVar[bool] = False
    """Whether `SamplingSettings.precision` and `compile` may be chosen."""

    def __init__(self, config: PriorConfig, spec: PriorSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @property
    def grids(self) -> tuple[GridSpec, ...]:
        """Shape and codebook size of each code grid."""
        return self.spec.grids

    @property
    def num_classes(self) -> int | None:
        """Labels are in [0, num_classes); None for a prior without labels."""
        return self.spec.num_classes

    @property
    def num_codes(self) -> int:
        """L, the codes of one image over all grids."""
        return self.spec.num_codes

    @property
    def null_label(self) -> int:
        """The label that stands for `no label`, one past the classes."""
        return self.spec.null_label

    @property
    def vqvae_hash(self) -> str | None:
        """`weights_hash` of the tokenizer that made the codes, if known."""
        return self.spec.vqvae_hash

    @property
    def can_guide(self) -> bool:
        """Whether a guidance scale can be used: trained with labels, and with dropped ones."""
        return self.num_classes is not None and self.config.label_dropout > 0

    @property
    def sampling_order(self) -> Tensor:
        """Positions of the sequence in the prior's own order of sampling: int64 (L,)."""
        return torch.arange(self.num_codes)

    @abstractmethod
    def forward(
        self, sequence: Tensor, labels: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Computes the logits of every code given the codes before it (teacher forcing).

        Args:
            sequence: int64 (B, L), the codes in raster order, grid after grid.
            labels: int64 (B,) in [0, num_classes], `null_label` for no label; above that the
                spec's extra labels.
            context: int64 (B, Lc), the context grids as one sequence like `sequence`, or float32
                (B, Lc, D); None for a prior without context.

        Returns:
            float32 (B, h_i * w_i, K_i) per grid.
        """

    @torch.no_grad()
    def stepper(
        self,
        labels: Tensor,
        context: Tensor | None = None,
        settings: SamplingSettings | None = None,
        start: DecodingStart | None = None,
    ) -> CodeStepper:
        """Starts decoding a batch position by position; only in evaluation mode.

        Args:
            labels: int64 (B,) in [0, num_classes], `null_label` for no label.
            context: int64 (B, Lc) or float32 (B, Lc, D), as for `forward`.
            settings: Precision and compilation of the network; None for float32, not compiled.
            start: Order and known codes, for a prior of any order; None decodes all codes in the
                order of `sampling_order`.

        Raises:
            ValueError: Context, settings or start do not fit the prior.
        """
        check_has_context(context is not None, self.spec.context)
        if start is not None:
            check_any_order(self.any_order, "decoding in a given order")
        settings = SamplingSettings() if settings is None else settings
        possible = self.supports_precision_and_compile
        check_computation(settings, self.config, possible=possible)
        settings = decide_compilation(settings, 0, self._device, possible=possible)
        return self._stepper(labels, context, settings, start)

    @abstractmethod
    def _stepper(
        self,
        labels: Tensor,
        context: Tensor | None,
        settings: SamplingSettings,
        start: DecodingStart | None,
    ) -> CodeStepper:
        """Starts decoding as `stepper` does, with checked arguments and without gradients."""

    @torch.no_grad()
    def log_prob(
        self,
        codes: tuple[Tensor, ...],
        labels: Labels | None = None,
        context: Context | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Computes log p(codes | labels, context), exactly and without dropout.

        Args:
            codes: int64 (B, h_i, w_i) per grid.
            labels: Integers (B,), one for all, or None for the distribution without labels.
            context: int64 (B, h_i, w_i) per context grid, or float32 (B, Lc, D); None for a prior
                without context.
            order: int64 (L,) or (B, L), the positions (grid after grid, row by row) in the order in
                which they are predicted, for a prior of any order; None for the prior's own.

        Returns:
            float64 (B,), in nats; divide by ln(2) * num_codes for bits per code.

        Raises:
            TypeError: Codes, labels, context or order have a wrong dtype.
            ValueError: Codes, labels, context or order do not fit the prior.
        """
        check_codes(codes, self.grids)
        sequence = to_sequence(codes).long().to(self._device)
        all_labels = self._labels(labels, len(sequence))
        all_context = self._context(context, len(sequence))
        if order is not None:
            check_any_order(self.any_order, "log_prob under an order")
            order = check_order(order, len(sequence), self.num_codes).to(self._device)
        with self._evaluating():
            nll = self.nll(sequence, all_labels, all_context, order)
        return -(nll.cpu() if nll.device.type == "mps" else nll).double().sum(dim=1)

    def nll(
        self,
        sequence: Tensor,
        labels: Tensor,
        context: Tensor | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Computes -log p of each code given those before it, differentiable, in nats.

        Takes what `forward` takes; `order`, int64 (B, L), is for a prior of any order only.

        Returns:
            float32 (B, L).
        """
        check_has_context(context is not None, self.spec.context)
        arguments = (sequence, labels, context)
        all_logits = self(*arguments) if order is None else self(*arguments, order)
        parts = split_by_grid(sequence, self.grids)
        # One flat row of K logits per code: softmax over a strided axis is slow on a CPU.
        nats = [
            F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="none").view_as(part)
            for logits, part in zip(all_logits, parts, strict=True)
        ]
        return torch.cat(nats, dim=1)

    def resolve(
        self, settings: SamplingSettings | None, num_samples: int, *, labelled: bool
    ) -> SamplingSettings:
        """Checks settings for `num_samples` images, and decides `compile="auto"`.

        Raises:
            TypeError: They are not `SamplingSettings`.
            ValueError: They do not fit the prior, or exclude each other.
            RuntimeError: `compile` is on, and nothing can be compiled here.
        """
        settings = SamplingSettings() if settings is None else settings
        if not isinstance(settings, SamplingSettings):
            raise TypeError(f"settings must be SamplingSettings, got {type(settings).__name__}")
        possible = self.supports_precision_and_compile
        check_settings(
            settings, self.config, self.num_classes, labelled=labelled, has_options=possible
        )
        num_codes = num_samples * self.num_codes
        return decide_compilation(settings, num_codes, self._device, possible=possible)

    def sample(
        self,
        count: int,
        labels: Labels | None = None,
        settings: SamplingSettings | None = None,
        *,
        context: Context | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> tuple[Tensor, ...]:
        """Samples number `first_index` to `first_index + count - 1` of `seed`.

        Args:
            count: Number of samples.
            labels: As for `log_prob`, with B = count.
            settings: How to sample; None samples from the model as it is.
            context: As for `log_prob`, with B = count.
            seed: In [0, 2^63). A sample's random numbers depend on the seed and its index alone, so
                that it is the same in every batch. Another machine, number of threads or version of
                torch may round a logit differently, which changes about one code in a million; so
                may `settings.compile`, whose `auto` depends on `count`.
            first_index: Index of the first sample, at least 0.
            batch_size: Samples per batch; the memory of the network grows with it.

        Returns:
            int64 (count, h_i, w_i) per grid, on the prior's device.

        Raises:
            TypeError: Labels or context have a wrong dtype.
            ValueError: Labels, context, settings or seed do not fit the prior.
        """
        count, seed, first_index, batch_size = check_numbers(count, seed, first_index, batch_size)
        settings = self.resolve(settings, count, labelled=labels is not None)
        if settings.num_steps is not None:
            check_any_order(self.any_order, "sampling several codes at a time")
        nothing = torch.zeros(count, self.num_codes, dtype=torch.int64, device=self._device)
        request = SamplingRequest(
            labels=self._labels(labels, count),
            context=self._context(context, count),
            codes=nothing,
            known=nothing.bool(),
            order=self.sampling_order[None].to(self._device),
            settings=settings,
            seed=seed,
            first_index=first_index,
        )
        return self._sample(request, batch_size)

    def complete(
        self,
        codes: tuple[Tensor, ...],
        known: tuple[Tensor, ...],
        labels: Labels | None = None,
        settings: SamplingSettings | None = None,
        *,
        context: Context | None = None,
        order: Tensor | None = None,
        seed: int = 0,
        first_index: int = 0,
        batch_size: int = 64,
    ) -> tuple[Tensor, ...]:
        """Samples the unknown codes given the known ones.

        The known codes come first in the order. The others are sampled after them, one by one, each
        given all before it: exactly from the model's p(unknown | known) under that order. With
        `settings.num_steps`, several are sampled at a time, in an order of their own.

        Args:
            codes: int64 (B, h_i, w_i) per grid; values at unknown positions do not matter.
            known: bool (B, h_i, w_i) per grid, True for a code to keep.
            labels: As for `log_prob`.
            settings: As for `sample`.
            context: As for `log_prob`.
            order: int64 (L,) or (B, L); known and unknown codes each keep this order among
                themselves. None for the raster order.
            seed: As for `sample`: the code at a position depends on seed, index and position.
            first_index: As for `sample`.
            batch_size: As for `sample`; only samples with equally many known codes share a batch.

        Returns:
            int64 (B, h_i, w_i) per grid, on the prior's device.

        Raises:
            TypeError: Codes, labels, context or order have a wrong dtype, or known is not bool.
            ValueError: The prior has one order only, or something does not fit it.
        """
        check_any_order(
            self.any_order, "completing known codes or sampling several codes at a time"
        )
        check_codes(codes, self.grids)
        check_known(known, self.grids)
        count, seed, first_index, batch_size = check_numbers(
            len(codes[0]), seed, first_index, batch_size
        )
        if len(known[0]) != count:
            raise ValueError(f"known must have {count} rows like codes, got {len(known[0])}")
        all_known = to_sequence(known).to(self._device)
        num_unknown = int((~all_known).sum())
        settings = self.resolve(
            settings, -(-num_unknown // self.num_codes), labelled=labels is not None
        )
        if order is not None and settings.num_steps is not None:
            raise ValueError(
                "num_steps samples in an order of its own: leave order or num_steps out"
            )
        order = self.sampling_order if order is None else order
        request = SamplingRequest(
            labels=self._labels(labels, count),
            context=self._context(context, count),
            codes=to_sequence(codes).long().to(self._device),
            known=all_known,
            order=check_order(order, count, self.num_codes).to(self._device),
            settings=settings,
            seed=seed,
            first_index=first_index,
        )
        return self._sample(request, batch_size)

    def weights_hash(self) -> str:
        """Computes the SHA-256 (hex) of the weights' names, shapes and values."""
        return weights_hash(self.state_dict())

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` to a new `directory`, atomically.

        Raises:
            FileExistsError: `directory` exists.
            OSError: The disk is full or refuses.
            ValueError: Weights are not float32.
        """
        fields = {"spec": asdict(self.spec), "model": asdict(self.config)}
        save_artifact(directory, ARTIFACT_KIND, fields, self, FORMAT_VERSION)

    @torch.no_grad()
    def _sample(self, request: SamplingRequest, batch_size: int) -> tuple[Tensor, ...]:
        result = request.codes.clone()
        with self._evaluating():
            for batch in split_into_batches(request, batch_size):
                if batch.start.num_known < self.num_codes:
                    sampled = self._sample_batch(batch, request.settings)
                    result[batch.rows.to(result.device)] = sampled[: len(batch.rows)]
        return to_grids(result, self.grids)

    def _sample_batch(self, batch: SamplingBatch, settings: SamplingSettings) -> Tensor:
        """Samples the unknown codes of a batch: int64 (B, L), by position."""
        order, codes = batch.start.order.expand_as(batch.start.codes), batch.start.codes
        unknown = order[:, batch.start.num_known :]
        uniform = batch.noise.block(0)
        with self._batch_stepper(batch, settings) as stepper:
            uniform = uniform.gather(1, unknown.to(uniform.device))
            sampled = sample_in_order(stepper, SamplingRule(settings, self.num_codes), uniform)
        return codes.scatter(1, unknown, sampled)

    def _batch_stepper(self, batch: SamplingBatch, settings: SamplingSettings) -> CodeStepper:
        if settings.guided:
            batch = batch.with_unlabelled_copies(self.null_label)
        start = batch.start if self.any_order else None
        return self.stepper(batch.labels, batch.context, settings, start)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Sets evaluation mode for the length of the block."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _labels(self, labels: Labels | None, count: int) -> Tensor:
        """Converts labels to what `forward` takes: int64 (count,)."""
        return labels_or_null(labels, count, self.config, self.num_classes).to(self._device)

    def _context(self, context: Context | None, count: int) -> Tensor | None:
        """Converts a context to what `forward` takes; None for a prior without."""
        tensor = context_tensor(context, count, self.spec.context)
        if tensor is not None and tensor.is_floating_point():
            return tensor.to(next(self.parameters()))
        return None if tensor is None else tensor.to(self._device)
