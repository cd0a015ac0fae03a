"""Inpainted images of a run as one picture."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipelines.cli.echo import say
from pipelines.data.decoding import read_pixels
from pipelines.data.outputs import refuse_in_data
from pipelines.files.images import check_png, draw_grid
from pipelines.files.numbering import save_new
from pipelines.generation.labels import parse_label
from pipelines.generation.masks import half_mask, known_codes
from pipelines.generation.options import InpaintOptions
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.data import images_to_show
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device

_GRAY = 128  # of masked pixels in the picture


def write_inpainted(options: InpaintOptions) -> None:
    """Inpaints images and writes them to `options.out`, or to a new file in the run directory."""
    directory = RunDirectory(options.run)
    folder = directory.path / "inpainted"
    check_png(options.out, folder)
    if directory.config_file.exists():
        refuse_in_data(options.out, options.data.of(directory.config().data))
    pipeline = GenerationPipeline.from_pretrained(directory.path).to(choose_device(options.device))
    label = parse_label(options.label, pipeline.class_names)
    seeds = range(options.seed, options.seed + options.n)
    for seed in (seeds[0], seeds[-1]):
        pipeline.check(options.settings, label, seed=seed, inpainting=True)
    _, height, width = image_shape = pipeline.vqvae.image_shape
    mask = (
        half_mask(options.hide or "right", height, width)
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
    rows = torch.cat([images, torch.where(mask, images, _GRAY), *completions]).numpy()
    out = save_new(options.out, folder, draw_grid(rows, len(images)).save)
    grids = zip(pipeline.vqvae.grid_shapes, pipeline.vqvae.strides, strict=True)
    num_unknown = sum(
        int((~known_codes(mask[None], shape, stride)).sum()) for shape, stride in grids
    )
    say(
        f"{len(images)} images of {what}, {options.n} completions of each; sampled codes: "
        f"{num_unknown} of {pipeline.prior.num_codes}, given the others"
    )
    say(f"wrote originals, masked images and completions below each other to {out}")


def read_mask(path: Path, height: int, width: int) -> Tensor:
    """Reads a mask from an image file: bool (H, W), False where the file is black."""
    if not path.is_file():
        raise FileNotFoundError(f"a mask is required in {path}, but there is no such file")
    mask = read_pixels(path, None, 3).any(axis=0)
    if mask.shape != (height, width):
        raise ValueError(
            f"the mask must be as large as the run's images, {height} high and {width} wide, got "
            f"{mask.shape[0]} and {mask.shape[1]} in {path}"
        )
    if mask.all():
        raise ValueError(f"the mask must be black where pixels are unknown, but {path} has none")
    return torch.from_numpy(mask)
