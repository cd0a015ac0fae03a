"""`python -m pipelines.sample`: images from a trained run."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pipelines.cli.command import parse, require_positive, run_command, say
from pipelines.data.location import DataLocation
from pipelines.data.names import listed, printable, shortened
from pipelines.data.outputs import refuse_in_data
from pipelines.runs.directory import LATEST, RunDirectory
from stage2_prior.config import SamplingSettings

if TYPE_CHECKING:
    from pipelines.data.image_set import DataSplits


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleOptions:
    """Draw code grids from a run's prior, decode them, and write the images."""

    n: int = 64
    """How many images."""
    run: Path = LATEST
    """Run directory, or a directory that GenerationPipeline.save_pretrained wrote."""
    label: str | None = None
    """Class of all images, by name or number; None goes through all classes that had training
    images in turn."""
    seed: int = 0
    """Same seed, same images, whatever the batch size; in [0, 2^63)."""
    settings: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=SamplingSettings
    )
    """How codes are drawn."""
    batch_size: int = 64
    """Images made at once, which the networks' memory grows with. The codes and images of all n are
    in memory besides."""
    nearest: bool = False
    """Also say how far the samples are from their nearest training images, beside test images: are
    any of them copies? Needs the run's data."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now, for nearest."""
    out: Path | None = None
    """New file or directory: FILE.png (one grid), FILE.npz (arrays that --data.source
    npz:FILE.npz reads), or a name without ending (a directory of single PNG files). None takes the
    next free RUN/samples/NUMBER.png."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def parse_label(text: str | None, class_names: tuple[str, ...]) -> int | None:
    """Finds the class that a name or a number means.

    A name comes first: the classes of folders called 1, 2 and 10 are numbered 0, 2 and 1. Among
    names the exact one comes first, then the only one that differs in upper and lower case alone.

    Raises:
        ValueError: There is no such class, or more than one.
    """
    if text is None:
        return None
    wanted = unicodedata.normalize("NFC", text)
    names = [unicodedata.normalize("NFC", name) for name in class_names]
    folded = [name.casefold() for name in names]
    found = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(folded) if name == wanted.casefold()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"label must name one class, but {shortened(text)} may mean "
            f"{listed(names[i] for i in found)}: write it as the class is written, or give its "
            "number"
        )
    # Without names the prior knows how many classes there are; more digits would fit no tensor.
    if text.isdecimal() and len(text) < 10 and (not names or int(text) < len(names)):
        return int(text)
    known = listed(names) or "no names are known, use a number"
    nearest = difflib.get_close_matches(wanted.casefold(), folded, n=1)
    suggestion = f": did you mean {names[folded.index(nearest[0])]}?" if nearest else ""
    raise ValueError(
        f"label must be a class name or number ({known}), got {shortened(text)}"
        f"{printable(suggestion)}"
    )


def training_data(directory: RunDirectory, location: DataLocation) -> DataSplits:
    """The images that a run was trained on, and its other splits.

    Raises:
        ValueError: The directory is no run's, or the data are no longer those.
    """
    from pipelines.runs.messages import load_run_splits

    if not directory.config_file.exists():
        raise ValueError(
            f"--nearest needs the images that the run was trained on, but {directory.path} has no "
            f"{directory.config_file.name} that names them: name a run, or leave --nearest out"
        )
    return load_run_splits(directory, location)


def main() -> None:
    """Reads the options and samples."""
    options = parse(SampleOptions)
    directory = RunDirectory(options.run)
    require_positive(options, "n", "batch_size")
    folder = directory.path / "samples"

    from pipelines.files.images import check_output, check_png, draw_grid, save_images
    from pipelines.files.numbering import save_new
    from pipelines.generation.pipeline import GenerationPipeline
    from pipelines.training.device import choose_device

    if options.out is None:
        check_png(None, folder)
    else:
        check_output(options.out)
    if directory.config_file.exists():
        refuse_in_data(options.out, options.data.of(directory.config().data))
    device = choose_device(options.device)
    pipeline = GenerationPipeline.from_pretrained(directory.path).to(device)
    label = parse_label(options.label, pipeline.class_names)
    pipeline.check(options.settings, label, seed=options.seed)
    splits = training_data(directory, options.data) if options.nearest else None
    images = pipeline(
        options.n,
        label,
        settings=options.settings,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    if options.out is None:
        out = save_new(None, folder, draw_grid(images.numpy()).save)
        say(f"wrote a grid of {len(images)} images to {out}")
    else:
        labels = pipeline.resolve_labels(options.n, label)
        known = None if labels is None else labels.numpy()
        say("wrote " + save_images(options.out, images.numpy(), known))
    if splits is not None:
        from pipelines.evaluation.sections.memorisation_summary import describe_memorisation

        say(describe_memorisation(images, pipeline.vqvae, splits))


if __name__ == "__main__":
    run_command(main)
