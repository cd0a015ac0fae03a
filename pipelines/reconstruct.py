"""`python -m pipelines.reconstruct`: what stage one keeps of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.cli.command import parse, require_positive, run_command, say
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.runs.directory import LATEST, RunDirectory


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructOptions:
    """Encode and decode images with a run's VQ-VAE; write originals above reconstructions."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE."""
    n: int = 32
    """How many images are shown, from the first on; the figures are over the whole split."""
    split: Literal["train", "validation", "test"] = "test"
    """Which split of the data."""
    images: Path | None = None
    """Your own images instead of a split: a file, or a folder of files. They are brought to the
    size and channels the run was trained on."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    out: Path | None = None
    """New PNG file; None takes the next free RUN/reconstructions/NUMBER.png."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def main() -> None:
    """Reads the options and reconstructs."""
    options = parse(ReconstructOptions)
    directory = RunDirectory(options.run)
    directory.config()  # refuses what is no run, before anything heavy is imported
    require_positive(options, "n")

    from pipelines.files.images import check_png, draw_reconstructions
    from pipelines.files.numbering import save_new
    from pipelines.runs.batches import image_batches
    from pipelines.runs.messages import images_to_show
    from pipelines.training.device import choose_device
    from stage1_vqvae.objective import measure_reconstruction
    from stage1_vqvae.pretrained import load_tokenizer

    folder = directory.path / "reconstructions"
    check_png(options.out, folder)
    refuse_in_data(options.out, options.data.of(directory.config().data))
    device = choose_device(options.device)
    model = load_tokenizer(directory.vqvae).to(device)
    images, what = images_to_show(
        directory, model.image_shape, options.split, options.images, options.data
    )
    figures = measure_reconstruction(model, image_batches(images, device))
    picture = draw_reconstructions(model, images.images[: options.n])
    out = save_new(options.out, folder, picture.save)
    say(
        f"psnr {figures.psnr:.2f} dB, l1 {figures.l1:.2f} of 255, usage "
        f"{min(figures.usage):.1%}, perplexity {min(figures.perplexity):.0f} over {len(images):,} "
        f"images of {what}"
    )
    say(f"wrote {min(options.n, len(images))} pairs to {out}")


if __name__ == "__main__":
    run_command(main)
