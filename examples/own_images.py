"""Both stages trained on your own images from Python, then a grid of samples.

    python examples/own_images.py --source folder:my_photos --out runs/mine

The result is a run directory: `python -m pipelines.evaluate --run runs/mine` and all other commands
take it. The defaults are those of the recipe `folder-64`; smaller ones give a quick first look.
"""

from dataclasses import replace
from pathlib import Path

import tyro

from pipelines.files.images import save_grid
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.both_stages import train_all
from pipelines.runs.options import TrainAllOptions
from pipelines.runs.recipes import RECIPES
from stage1_vqvae import EMAQuantizerConfig
from stage2_prior import SamplingSettings


def main(
    source: str,
    out: Path,
    image_size: int = 64,
    codebook_size: int = 1024,
    width: int = 160,
    prior_width: int = 256,
    epochs: float = 40,
    batch_size: int = 64,
    num_samples: int = 16,
) -> None:
    """Trains a VQ-VAE and a prior on `source` and writes `out`/grid.png.

    Args:
        source: folder:PATH (PNG, JPEG or WebP files) or npz:PATH (uint8 `images`).
        out: New run directory.
        image_size: Height and width in pixels; images are resized and cropped to it.
        codebook_size: Number of codes.
        width: Channels of the VQ-VAE.
        prior_width: Width of the transformer, a multiple of its 8 heads.
        epochs: Passes over the training images, in each stage.
        batch_size: Images per optimizer step.
        num_samples: Images in the grid.
    """
    recipe = RECIPES["folder-64"]
    run = replace(
        recipe,
        data=replace(recipe.data, source=source, image_size=(image_size, image_size)),
        vqvae=replace(
            recipe.vqvae, width=width, quantizer=EMAQuantizerConfig(codebook_size=codebook_size)
        ),
        vqvae_training=replace(recipe.vqvae_training, epochs=epochs, batch_size=batch_size),
        prior=replace(recipe.prior, width=prior_width),
        prior_training=replace(recipe.prior_training, epochs=epochs, batch_size=batch_size),
    )
    train_all(TrainAllOptions(run=run, out=out))

    pipeline = GenerationPipeline.from_pretrained(out)
    images = pipeline(num_samples, settings=SamplingSettings(temperature=0.9, top_p=0.95), seed=1)
    save_grid(out / "grid.png", images.numpy())  # uint8 (N, C, H, W)


if __name__ == "__main__":
    tyro.cli(main)
