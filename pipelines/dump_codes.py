"""`python -m pipelines.dump_codes`: the code grids of a run's whole data set."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.command import named_run, parse, run_command, say
from pipelines.data.location import DataLocation
from pipelines.files.atomic import refuse_existing, refuse_unwritable
from pipelines.runs.augmentation import AugmentationConfig, also_seen
from pipelines.runs.config import settings_of_all
from pipelines.runs.directory import LATEST, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from pipelines.data.image_set import DataSplits, ImageSet
    from pipelines.runs.augmentation import View
    from stage1_vqvae.base import ImageTokenizer
    from stage1_vqvae.code_dump import CodeDump


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpOptions:
    """Encode every image of a run's data with its VQ-VAE and write the codes to RUN/codes."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Other views of the training images whose codes are written too, for a prior to learn from;
    its shares are only recorded here."""


def read_own_codes(directory: RunDirectory, model: ImageTokenizer) -> CodeDump:
    """The run's code dump, if the run's VQ-VAE made it.

    Raises:
        FileNotFoundError: There is no dump.
        ValueError: It is damaged, or another model made it.
    """
    from stage1_vqvae.code_dump import read_code_dump

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
    augmentation: AugmentationConfig,
) -> CodeDump:
    """Writes the codes of every split, or reads those that are there if this model made them.

    With `augmentation`, also those of other views of the training images.

    Raises:
        ValueError: Images are too small for `augmentation`, or the codes that are there were made
            by another model.
    """
    from pipelines.files.atomic import writing
    from pipelines.runs.batches import labelled_batches
    from pipelines.training.distributed import on_main
    from stage1_vqvae.code_dump import write_code_dump

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
    grids = " + ".join(
        f"{h}x{w} of {size}"
        for (h, w), size in zip(dump.grid_shapes, dump.codebook_sizes, strict=True)
    )
    others = f"; {also_seen(dump.other_views)}" if dump.other_views else ""
    say(f"codes: {grids} codes an image; images: {sizes}{others}")
    return dump


def _seen_as(
    view: View, images: ImageSet, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    from pipelines.runs.batches import labelled_batches

    for batch, labels in labelled_batches(images, device):
        yield view(batch), labels


def main() -> None:
    """Reads the options and dumps."""
    directory, config = named_run(sys.argv[1:])
    options = parse(DumpOptions, default=DumpOptions(augmentation=config.augmentation))
    data = options.data.of(config.data)
    config = replace(config, data=data, augmentation=options.augmentation)

    from pipelines.runs.messages import load_run_splits
    from pipelines.training.device import choose_device
    from pipelines.training.distributed import (
        agree,
        enter_on_main,
        on_main,
        process_group,
        require_shared,
    )
    from stage1_vqvae.pretrained import load_tokenizer

    def check() -> None:
        refuse_existing(directory.codes)
        directory.check_codes(config)
        refuse_unwritable(directory.codes)

    device = choose_device(options.device)
    with process_group(device):
        on_main(check)
        agree(settings_of_all(config.to_dict()))
        require_shared(directory.path)
        with enter_on_main(directory.owned("encoded")):
            model = load_tokenizer(directory.vqvae).to(device)
            splits = load_run_splits(directory, options.data)
            on_main(lambda: directory.begin_codes(config))
            dump_codes(directory, splits, model, device, config.augmentation)
    say(f"next: python -m pipelines.train_prior {directory.option}")


if __name__ == "__main__":
    run_command(main)
