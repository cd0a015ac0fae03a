"""Residual quantization: each grid of codes quantizes the residual of the grids before it.

Lee et al. 2022, "Autoregressive image generation using residual quantization" (RQ-VAE); quantizer
dropout: Zeghidour et al. 2021, "SoundStream: an end-to-end neural audio codec", section III.C.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput
from stage1_vqvae.quantizers.composite import CompositeQuantizer
from stage1_vqvae.quantizers.config import ResidualConfig


class ResidualQuantizer(CompositeQuantizer):
    """r_1 = z, r_{i+1} = r_i - q_i(r_i), z_q = sum_i q_i(r_i) (RQ-VAE, section 3.1).

    Fixed code vectors (levels, signs) cannot adapt to smaller residuals. There stage i > 1 takes
    those of the base, shifted by its `residual_offset` o and scaled by its `residual_scale` s:

        q_i(r) = s^(i-1) (q(r / s^(i-1) - o) + o)

    The offset centres an even number of levels L, as residuals are centred: without it, no stage
    would correct what lies above the top level. Each stage then divides the largest error by L, or
    by L - 1 where L is odd. The price: zero is no level of an even stage, which therefore adds an
    error to a residual of zero.

    Loss terms of all stages are summed, as the paper's commitment loss is, and reach z_e. The
    gradient of z_q reaches z_e through the first stage alone where the base is straight-through,
    and through the choice of each stage where the base assigns softly.
    """

    decodes_prefixes = True

    def __init__(self, config: ResidualConfig, stages: list[Quantizer]) -> None:
        super().__init__(stages)
        self.config = config
        self.stages = nn.ModuleList(stages)
        self.codebook_dim = config.codebook_dim

    def to_code_space(self, z_e: Tensor) -> Tensor:
        """Maps z_e to the code space of the base."""
        return self._parts[0].to_code_space(z_e)

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Quantizes in stages; in training mode, dropout keeps only the first of an image's."""
        residual, z_q = z, torch.zeros_like(z)
        kept = self._kept_stages(z)
        codes: tuple[Tensor, ...] = ()
        losses: dict[str, Tensor] = {}
        for i, stage in enumerate(self._parts):
            output = stage.quantize(self._to_stage(i, residual))
            quantized = self._from_stage(i, output.z_q)
            next_residual = residual - quantized.detach()
            if i and self.is_straight_through:
                # The first stage has copied the gradient to z already.
                quantized = quantized - (residual - residual.detach())
            z_q = z_q + quantized * (i < kept)
            codes += output.codes
            for name, loss in output.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
            residual = next_residual
        return QuantizerOutput(z_q, codes, losses)

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """See `Quantizer.assign`."""
        codes: tuple[Tensor, ...] = ()
        for i in range(len(self._parts)):
            grids, z = self._step(i, z)
            codes += grids
        return codes

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Sums the stages' vectors; those of the first stages where fewer grids are given."""
        parts = [
            self._from_stage(i, self._parts[i].decode((grid,))) for i, grid in enumerate(codes)
        ]
        # One after the other, as `quantize` adds them: sums of torch round in another order.
        return reduce(torch.add, torch.stack(parts).unbind())

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns each stage's code vectors in units of z: float32 (K, D)."""
        return tuple(
            self._from_stage(i, vectors[:, :, None, None]).flatten(1)
            for i, stage in enumerate(self._parts)
            for vectors in stage.code_vectors()
        )

    def fit(self, batches: list[Tensor]) -> None:
        """Fits one stage after the other, each to the residuals of the stages before."""
        for i, stage in enumerate(self._parts):
            stage.fit([self._to_stage(i, z) for z in batches])
            batches = [self._step(i, z)[1] for z in batches]

    def _step(self, i: int, residual: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Returns the codes of stage i and the residual after it."""
        codes = self._parts[i].assign(self._to_stage(i, residual))
        return codes, residual - self._from_stage(i, self._parts[i].decode(codes))

    def _kept_stages(self, z: Tensor) -> Tensor:
        """Samples how many stages each image keeps: int64 (B, 1, 1, 1)."""
        stages, shape = len(self._parts), (len(z), 1, 1, 1)
        everything = torch.full(shape, stages, device=z.device)
        if not (self.training and self.config.quantizer_dropout):
            return everything
        dropped = torch.rand(shape, device=z.device) < self.config.quantizer_dropout
        prefix = torch.randint(1, stages + 1, shape, device=z.device)
        return torch.where(dropped, prefix, everything)

    def _to_stage(self, i: int, residual: Tensor) -> Tensor:
        """Maps (B, D, h, w) to the units of stage i; inverts `_from_stage`."""
        scale, offset = self._units(i)
        return residual / scale - offset

    def _from_stage(self, i: int, vectors: Tensor) -> Tensor:
        """Maps (B, D, h, w) to the units of z."""
        scale, offset = self._units(i)
        return (vectors + offset) * scale

    def _units(self, i: int) -> tuple[Tensor | float, Tensor | float]:
        """Returns scale and offset of stage i, for (B, D, h, w)."""
        stage = self._parts[i]
        scale, offset = stage.residual_scale(), stage.residual_offset() if i else 0.0
        if isinstance(scale, Tensor):
            scale = scale[:, None, None]
        if isinstance(offset, Tensor):
            offset = offset[:, None, None]
        return scale**i, offset
