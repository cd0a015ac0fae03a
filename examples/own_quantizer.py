"""A quantizer of your own, trained in a VQ-VAE by a plain PyTorch loop.

python examples/own_quantizer.py --steps 300
"""

import torch
import tyro
from torch import Tensor, nn

from pipelines.data.config import DataConfig
from pipelines.data.load import load_splits
from stage1_vqvae import VQVAE, VQVAEConfig
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction
from stage1_vqvae.quantizers.base import Quantizer, QuantizerOutput, to_grid, to_map, to_points


class SoftGradientQuantizer(Quantizer):
    """Nearest code in the forward pass, softmax over the distances in the backward pass.

    Mentzer et al. 2018, "Conditional probability models for deep image compression", section 3.2,
    with vectors instead of scalars. The gradient reaches encoder and codebook without a loss term.
    """

    is_straight_through = False  # unlike a straight-through estimator

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.codebook_dim = codebook_dim
        self.codebook_sizes = (codebook_size,)
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dim))

    def quantize(self, z: Tensor) -> QuantizerOutput:
        """Quantizes z_e, float32 (B, D, h, w)."""
        logits = self._logits(z)
        codes = logits.argmax(dim=1)
        soft = logits.softmax(dim=1) @ self.codebook
        z_q = soft + (self.codebook[codes] - soft).detach()
        return QuantizerOutput(to_map(z_q, z.shape), (to_grid(codes, z.shape),), losses={})

    def assign(self, z: Tensor) -> tuple[Tensor, ...]:
        """Returns the codes of z_e, int64 (B, h, w)."""
        return (to_grid(self._logits(z).argmax(dim=1), z.shape),)

    def decode(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Returns the vectors of codes, float32 (B, D, h, w)."""
        return self.codebook[codes[0]].movedim(-1, 1)

    def code_vectors(self) -> tuple[Tensor, ...]:
        """Returns the codebook, float32 (K, D)."""
        return (self.codebook,)

    def _logits(self, z: Tensor) -> Tensor:
        """Returns -||z - e||^2 without ||z||^2, which cancels in the softmax: float32 (N, K)."""
        return 2 * to_points(z) @ self.codebook.T - self.codebook.square().sum(dim=1)


def main(steps: int = 300, batch_size: int = 64, codebook_size: int = 256) -> None:
    """Trains a small VQ-VAE on the embedded images and prints loss, PSNR and codebook usage."""
    splits = load_splits(DataConfig())
    config = VQVAEConfig(width=64, fine_width=16, num_layers=1)
    model = VQVAE(config, splits.image_shape)
    model.quantizer = SoftGradientQuantizer(codebook_size, config.quantizer.codebook_dim)
    objective = VQVAEObjective(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images = torch.from_numpy(splits.train.images)  # uint8 (N, C, H, W)
    for step in range(1, steps + 1):
        loss = objective(images[torch.randint(len(images), (batch_size,))]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    test = measure_reconstruction(model, torch.split(torch.from_numpy(splits.test.images), 256))
    print(f"test PSNR {test.psnr:.2f} dB, codes in use {test.usage[0]:.0%} of {codebook_size}")


if __name__ == "__main__":
    tyro.cli(main)
