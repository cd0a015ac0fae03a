"""Inpainted images of a run as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.cli.echo import say
from pipelines.data.decoding import read_pixels
from pipelines.data.form import ImageForm
from pipelines.data.outputs import refuse_in_data
from pipelines.data.pixels import fitted
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
    drawn = None if options.mask is None else read_mask(options.mask)
    found = images_to_show(directory, image_shape, "test", options.images, options.data)
    images = torch.from_numpy(found.images.images[: options.num_images].copy())
    if drawn is None:
        mask = half_mask(options.hide or "right", height, width)
    else:
        mask = fit_mask(drawn, found.form, found.file_sizes[: options.num_images])
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
        f"{len(images)} images of {found.description}, {options.n} completions of each; "
        f"sampled codes: {num_unknown} of {pipeline.prior.num_codes}, given the others"
    )
    say(f"wrote originals, masked images and completions below each other to {out}")


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Reads a mask from an image file: bool (H, W), False where the file is black."""
    if not path.is_file():
        raise FileNotFoundError(f"a mask is required in {path}, but there is no such file")
    mask: NDArray[np.bool_] = (read_pixels(path, ImageForm(), 3) > 0).max(axis=0)
    if mask.all():
        raise ValueError(f"the mask must be black where pixels are unknown, but {path} has none")
    return mask


def fit_mask(
    mask: NDArray[np.bool_], form: ImageForm, file_sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """Brings a mask that is as large as the images' files to their form, as they were.

    Args:
        mask: bool (H, W), True for a known pixel.
        form: Form of the images, with a size. A mask of that size stays as it is.
        file_sizes: Height and width of each image in its file; empty without files.

    Returns:
        bool (H, W) of `form.size`. A pixel is known if its whole area in the file is, or if it is
        padding.

    Raises:
        ValueError: The mask has another size, or its unknown pixels were cropped away.
    """
    assert form.size is not None
    if mask.shape != form.size:
        if set(file_sizes) != {mask.shape}:
            files = ", or all files of --images" if file_sizes else ""
            raise ValueError(
                f"the mask must be as large as the run's images, {form.size[0]} high and "
                f"{form.size[1]} wide{files}, got {mask.shape[0]} and {mask.shape[1]}"
            )
        # 0 stays exactly 0 in a mean of zeros, whatever the weights.
        unknown = Image.fromarray((~mask).astype(np.float32))
        fitted_unknown = fitted(unknown, form.size, form.fit, 0, Image.Resampling.BOX)
        mask = np.asarray(fitted_unknown) == 0
        if mask.all():
            raise ValueError(
                f"the mask must be black where the images are, but its black pixels lie in what is "
                f"cut off to get {form.size[0]} by {form.size[1]} pixels"
            )
    return torch.from_numpy(mask)
