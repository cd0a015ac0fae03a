"""Reconstructions of a run as one picture."""

from __future__ import annotations

from pipelines.cli.echo import say
from pipelines.data.image_set import ImageSet
from pipelines.data.outputs import refuse_in_data
from pipelines.files.images import check_png, draw_reconstructions
from pipelines.files.numbering import save_new
from pipelines.generation.options import ReconstructOptions
from pipelines.runs.batches import image_batches, reconstruct_images
from pipelines.runs.data import images_to_show
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from stage1_vqvae.objective import measure_reconstruction
from stage1_vqvae.pretrained import load_tokenizer


def write_reconstructions(options: ReconstructOptions) -> None:
    """Measures reconstructions and writes some to `options.out`, or to a new file of the run."""
    directory = RunDirectory(options.run)
    folder = directory.path / "reconstructions"
    check_png(options.out, folder)
    refuse_in_data(options.out, options.data.of(directory.config().data))
    device = choose_device(options.device)
    model = load_tokenizer(directory.vqvae).to(device)
    found = images_to_show(
        directory, model.image_shape, options.split, options.images, options.data
    )
    images = found.images
    metrics = measure_reconstruction(model, image_batches(images, device))
    shown = ImageSet(images.images[: options.n])
    picture = draw_reconstructions(shown.images, reconstruct_images(model, shown))
    out = save_new(options.out, folder, picture.save)
    say(
        f"psnr {metrics.psnr:.2f} dB, l1 {metrics.l1:.2f} of 255, usage "
        f"{min(metrics.usage):.1%}, perplexity {min(metrics.perplexity):.0f} over {len(images):,} "
        f"images of {found.description}"
    )
    say(f"wrote {len(shown)} pairs to {out}")
