"""Residual quantization: each grid of codes refines what the grids before it left over.

Lee et al. 2022, "Autoregressive image generation using residual quantization" (RQ-VAE); quantizer
dropout: Zeghidour et al. 2021, "SoundStream: an end-to-end neural audio codec", section III.C.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import islice

import torch
from torch import Tensor, nn

from stage1_vqvae.quantizer_config import ResidualConfig
from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput


class ResidualQuantizer(Quantizer):
    """r_1 = z, r_{i+1} = r_i - q_i(r_i), z_q = sum_i q_i(r_i) (RQ-VAE, section 3.1).

    Where the base cannot adapt to smaller residuals (fixed levels, signs), stage i works on r_i
    divided by its `residual_scale` to the power i - 1. Loss terms of all stages are summed, as the
    paper's commitment loss is, and reach z_e; the gradient of z_q reaches it once, by the first,
    where the base copies it, and through the choice of each stage where the base assigns softly.

    Args:
        config: How many stages, quantizer dropout.
        stages: A quantizer for each grid, all of the same D.
    """

    decodes_prefixes = True

    def __init__(self, config: ResidualConfig, stages: list[Quantizer]) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(stages)
        self.codebook_dim = config.codebook_dim
        self.codebook_sizes = tuple(size for stage in stages for size in stage.codebook_sizes)
        self.num_fit_batches = stages[0].num_fit_batches
        self.copies_gradient = stages[0].copies_gradient

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """That of the base."""
        z: Tensor = self._stage(0).to_code_space(z_e)
        return z

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Quantizes in stages; in training mode, images may keep only the first of them."""
        residual, z_q = z, torch.zeros_like(z)
        kept = self._kept_stages(z)
        codes: tuple[Tensor, ...] = ()
        losses: dict[str, Tensor] = {}
        for i in range(len(self.stages)):
            scale = self._scale(i)
            output = self._stage(i).quantize(residual / scale)
            quantized = output.z_q * scale
            left_over = residual - quantized.detach()
            if i and self.copies_gradient:
                # A copy of the gradient to z, which the first stage has handed on already.
                quantized = quantized - (residual - residual.detach())
            z_q = z_q + quantized * (i < kept)
            codes += output.codes
            for name, loss in output.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
            residual = left_over
        return QuantizerOutput(z_q, codes, losses)

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """See `Quantizer.assign`."""
        codes: tuple[Tensor, ...] = ()
        for i in range(len(self.stages)):
            grids, z = self._step(i, z)
            codes += grids
        return codes

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """The sum of the stages' vectors; of the first stages, where fewer grids are given."""
        parts = [self._stage(i).decode((grid,)) * self._scale(i) for i, grid in enumerate(codes)]
        # One after the other, as `quantize` adds them: sums of torch round in another order.
        return reduce(torch.add, torch.stack(parts).unbind())

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Each stage's, in units of z: float32 (K, D)."""
        vectors = []
        for i in range(len(self.stages)):
            (own,) = self._stage(i).code_vectors()
            scale = self._scale(i)
            vectors.append(own * (scale.flatten() if isinstance(scale, Tensor) else scale))
        return tuple(vectors)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fits one stage after the other, each to what is left over."""
        residuals = list(islice(batches, self.num_fit_batches))
        for i in range(len(self.stages)):
            self._stage(i).fit(z / self._scale(i) for z in residuals)
            residuals = [self._step(i, z)[1] for z in residuals]

    def set_progress(self, fraction: float) -> None:
        """Passes the fraction on."""
        for i in range(len(self.stages)):
            self._stage(i).set_progress(fraction)

    def _step(self, i: int, residual: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Codes of stage i, and what they leave over."""
        codes = self._stage(i).assign(residual / self._scale(i))
        return codes, residual - self._stage(i).decode(codes) * self._scale(i)

    def _kept_stages(self, z: Tensor) -> Tensor:
        """How many stages each image keeps: int64 (B, 1, 1, 1)."""
        stages, shape = len(self.stages), (len(z), 1, 1, 1)
        everything = torch.full(shape, stages, device=z.device)
        if not (self.training and self.config.quantizer_dropout):
            return everything
        dropped = torch.rand(shape, device=z.device) < self.config.quantizer_dropout
        prefix = torch.randint(1, stages + 1, shape, device=z.device)
        return torch.where(dropped, prefix, everything)

    def _stage(self, i: int) -> Quantizer:
        stage: Quantizer = self.stages[i]  # type: ignore[assignment] # ModuleList forgets
        return stage

    def _scale(self, i: int) -> Tensor | float:
        """What stage i multiplies its vectors by, for (B, D, h, w)."""
        scale = self._stage(0).residual_scale()
        return scale[:, None, None] ** i if isinstance(scale, Tensor) else scale**i
