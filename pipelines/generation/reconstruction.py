"""Reconstructions of a run as one picture."""

from __future__ import annotations

from pathlib import Path

from pipelines.cli.echo import say
from pipelines.data.image_set import ImageSet
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.files.images import check_png, draw_reconstructions
from pipelines.files.numbering import save_new
from pipelines.runs.batches import image_batches, reconstruct_images
from pipelines.runs.data import images_to_show
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from stage1_vqvae.objective import measure_reconstruction
from stage1_vqvae.pretrained import load_tokenizer


def write_reconstructions(
    directory: RunDirectory,
    n: int,
    *,
    split: str,
    path: Path | None,
    location: DataLocation,
    out: Path | None,
    device_name: str,
) -> None:
    """Measures reconstructions and writes the first to `out`, or a new file in the run directory.

    Args:
        directory: Run with a trained VQ-VAE.
        n: Images in the picture.
        split: train, validation or test; not used with a `path`.
        path: An image file or a folder of them instead of a split.
        location: Where the run's images are now.
        out: New PNG file.
        device_name: As `choose_device`.

    Raises:
        FileExistsError: The output exists.
        FileNotFoundError: The model or the images are missing.
        ValueError: One of them is damaged or does not fit.
        OSError: The output cannot be written.
    """
    folder = directory.path / "reconstructions"
    check_png(out, folder)
    refuse_in_data(out, location.of(directory.config().data))
    device = choose_device(device_name)
    model = load_tokenizer(directory.vqvae).to(device)
    images, what = images_to_show(directory, model.image_shape, split, path, location)
    metrics = measure_reconstruction(model, image_batches(images, device))
    shown = ImageSet(images.images[:n])
    picture = draw_reconstructions(shown.images, reconstruct_images(model, shown))
    out = save_new(out, folder, picture.save)
    say(
        f"psnr {metrics.psnr:.2f} dB, l1 {metrics.l1:.2f} of 255, usage "
        f"{min(metrics.usage):.1%}, perplexity {min(metrics.perplexity):.0f} over {len(images):,} "
        f"images of {what}"
    )
    say(f"wrote {len(shown)} pairs to {out}")
