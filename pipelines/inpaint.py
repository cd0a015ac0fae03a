"""`python -m pipelines.inpaint`: images with a hole, filled by a prior of any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pipelines.cli.command import parse, require_positive, run_command, say
from pipelines.data.location import DataLocation
from pipelines.data.outputs import refuse_in_data
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.sample import parse_label
from stage2_prior.config import SamplingSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class InpaintOptions:
    """Hide a part of images, fill it in several ways, and write all below each other.

    Needs a prior trained with --prior.any-order. Every column of the picture is an image: as it is,
    with its hole in gray, and each of its completions.
    """

    run: Path = LATEST
    """Run directory, or a directory that GenerationPipeline.save_pretrained wrote."""
    images: Path | None = None
    """Your own images: a file, or a folder of files, brought to the size and channels the run was
    trained on. None takes those of the test split."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now, for those of the test split."""
    num_images: int = 8
    """How many images, from the first on."""
    hide: Literal["right", "left", "top", "bottom", "center"] | None = None
    """What is hidden: a half, or in the center half the height by half the width. None hides the
    right half where there is no mask."""
    mask: Path | None = None
    """Image file of the size the run was trained on, instead of --hide: black is the hole, anything
    else is known."""
    n: int = 4
    """Completions per image; the first is drawn with the seed, the next with the seed plus one."""
    label: str | None = None
    """Class of all images, by name or number; None completes without a class."""
    seed: int = 0
    """Same seed, same completions, whatever the batch size; in [0, 2^63)."""
    settings: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=SamplingSettings
    )
    """How codes are drawn."""
    batch_size: int = 64
    """Images completed at once; memory grows with it."""
    out: Path | None = None
    """New PNG file; None takes the next free RUN/inpainted/NUMBER.png."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def read_mask(path: Path, height: int, width: int) -> Tensor:
    """The mask in an image file: bool (H, W), False where the file is black.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, has another size, or nothing in it is black.
    """
    import torch

    from pipelines.data.decoding import read_pixels

    if not path.is_file():
        raise FileNotFoundError(f"a mask is required in {path}, but there is no such file")
    mask = read_pixels(path, None, 3).any(axis=0)
    if mask.shape != (height, width):
        raise ValueError(
            f"the mask must be as large as the run's images, {height} high and {width} wide, got "
            f"{mask.shape[0]} and {mask.shape[1]} in {path}"
        )
    if mask.all():
        raise ValueError(f"the mask must be black where the hole is, but nothing in {path} is")
    return torch.from_numpy(mask)


def main() -> None:
    """Reads the options and completes."""
    options = parse(InpaintOptions)
    directory = RunDirectory(options.run)
    require_positive(options, "n", "num_images", "batch_size")
    if options.hide is not None and options.mask is not None:
        raise ValueError("either --hide or --mask says what is hidden, got both: leave one out")

    import torch

    from pipelines.files.images import check_png, draw_grid
    from pipelines.files.numbering import save_new
    from pipelines.generation.masks import known_places, mask_hiding
    from pipelines.generation.pipeline import GenerationPipeline
    from pipelines.runs.messages import images_to_show
    from pipelines.training.device import choose_device

    folder = directory.path / "inpainted"
    check_png(options.out, folder)
    if directory.config_file.exists():
        refuse_in_data(options.out, options.data.of(directory.config().data))
    device = choose_device(options.device)
    pipeline = GenerationPipeline.from_pretrained(directory.path).to(device)
    label = parse_label(options.label, pipeline.class_names)
    seeds = range(options.seed, options.seed + options.n)
    for seed in (seeds[0], seeds[-1]):
        pipeline.check(options.settings, label, seed=seed, inpainting=True)
    _, height, width = image_shape = pipeline.vqvae.image_shape
    mask = (
        mask_hiding(options.hide or "right", height, width)
        if options.mask is None
        else read_mask(options.mask, height, width)
    )
    found, what = images_to_show(directory, image_shape, "test", options.images, options.data)
    images = torch.from_numpy(found.images[: options.num_images].copy())
    completions = [
        pipeline.inpaint(
            images,
            mask,
            label,
            settings=options.settings,
            seed=seed,
            batch_size=options.batch_size,
        )
        for seed in seeds
    ]
    masked = torch.where(mask, images, 128)
    rows = torch.cat([images, masked, *completions]).numpy()
    out = save_new(options.out, folder, draw_grid(rows, len(images)).save)
    grids = zip(pipeline.vqvae.grid_shapes, pipeline.vqvae.strides, strict=True)
    places = [known_places(mask[None], shape, stride) for shape, stride in grids]
    drawn = sum(int((~known).sum()) for known in places)
    say(
        f"{len(images)} images of {what}, completions of each: {options.n}, codes drawn given the "
        f"others: {drawn} of {pipeline.prior.num_codes}"
    )
    say(f"wrote originals, holes and completions below each other to {out}")


if __name__ == "__main__":
    run_command(main)
