"""The codes of a run: one dump of all its images, made by its VQ-VAE."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.location import DataLocation
from pipelines.files.atomic import refuse_existing, refuse_unwritable, writing
from pipelines.runs.batches import labelled_batches
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.runs.prior_augmentation import PriorAugmentationConfig, View, also_seen
from pipelines.training.device import choose_device
from pipelines.training.distributed import (
    agree,
    enter_on_main,
    on_main,
    process_group,
    require_shared,
)
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.code_dump import CodeDump, read_code_dump, write_code_dump
from stage1_vqvae.pretrained import load_tokenizer
from stage2_prior.grids import GridSpec


def grid_specs(codes: ImageTokenizer | CodeDump) -> tuple[GridSpec, ...]:
    """Returns the code grids of a model or of a dump, as stage two describes them."""
    return tuple(
        GridSpec(height, width, size)
        for (height, width), size in zip(codes.grid_shapes, codes.codebook_sizes, strict=True)
    )


def read_own_codes(directory: RunDirectory, model: ImageTokenizer) -> CodeDump:
    """Reads the run's code dump, if the run's VQ-VAE made it."""
    dump = read_code_dump(directory.codes)
    if dump.vqvae_hash != model.weights_hash():
        raise ValueError(
            f"{directory.codes} must hold the codes of {directory.vqvae}, but they were made by "
            "another VQ-VAE (the weights' hash differs): remove the codes and dump them again"
        )
    return dump


def dump_codes(
    directory: RunDirectory,
    splits: DataSplits,
    model: ImageTokenizer,
    device: torch.device,
    augmentation: PriorAugmentationConfig,
) -> CodeDump:
    """Writes the codes of every split, or reads those that are there if this model made them.

    With `augmentation`, also those of other views of the training images.
    """

    def write() -> None:
        if directory.codes.exists():
            return
        batches = {
            name: (len(images), labelled_batches(images, device))
            for name, images in splits.by_name.items()
        }
        other_views = {
            view.name: (len(splits.train), _seen_as(view, splits.train, device))
            for view in augmentation.other_views
        }
        with writing(directory.codes):
            write_code_dump(directory.codes, model, batches, splits.num_classes, other_views)

    augmentation.check_fits(splits.image_shape)
    on_main(write)
    dump = read_own_codes(directory, model)
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in dump.splits.items())
    grids = " + ".join(f"{g.height}x{g.width} of {g.codebook_size}" for g in grid_specs(dump))
    others = f"; {also_seen(dump.other_views)}" if dump.other_views else ""
    say(f"codes: {grids} codes an image; images: {sizes}{others}")
    return dump


def check_augmentation(directory: RunDirectory, augmentation: PriorAugmentationConfig) -> None:
    """Refuses to dump codes for another augmentation than the prior's."""
    prior = directory.any_prior()
    if prior and augmentation != directory.config().prior_augmentation:
        raise FileExistsError(
            f"{prior} was trained with other --prior-augmentation options: dump the codes with "
            "those, or remove it first"
        )


def dump_codes_of_run(
    directory: RunDirectory, config: RunConfig, location: DataLocation, device_name: str
) -> None:
    """Writes the codes of a run whose stage one is finished and that has no codes yet.

    `config` has the augmentation and the location of the images as they are now.
    """

    def check() -> None:
        refuse_existing(directory.codes)
        check_augmentation(directory, config.prior_augmentation)
        refuse_unwritable(directory.codes)

    def begin() -> None:
        check()  # another process may have had the lock since
        directory.begin(config)

    device = choose_device(device_name)
    with process_group(device):
        on_main(check)
        agree(settings_of_all(config.to_dict()))
        require_shared(directory.path)
        with enter_on_main(directory.owned("encoded")):
            model = load_tokenizer(directory.vqvae).to(device)
            splits = load_run_splits(directory, location)
            on_main(begin)
            dump_codes(directory, splits, model, device, config.prior_augmentation)


def _seen_as(
    view: View, images: ImageSet, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for batch, labels in labelled_batches(images, device):
        yield view(batch), labels
