"""Options of the commands that write images of a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.cli.command import expand_user
from pipelines.cli.options import Device, SampleSeed
from pipelines.data.location import DataLocation
from pipelines.generation.record import read_pipeline_record
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.runs.kinds import option_value
from stage2_prior.sampling.settings import SamplingSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class _SamplingOptions:
    """Options of every command that samples."""

    run: Path = LATEST
    """Run directory, or a directory that GenerationPipeline.save_pretrained wrote."""
    seed: SampleSeed = 0
    settings: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=SamplingSettings
    )
    """How codes are sampled."""
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleOptions(_SamplingOptions):
    """Sample code grids from a run's prior, decode them, and write the images.

    Sampling options that are not given have the values that were chosen on the run's validation
    split, by train_all or tune_sampling; the defaults below hold where none were.
    """

    n: int = 64
    """How many images."""
    label: str | None = None
    """Class of all images, by name or number; None goes through all classes that had training
    images in turn."""
    batch_size: int = 64
    """Images made at once, which the networks' memory grows with. The codes and images of all n are
    in memory besides."""
    nearest: bool = False
    """Also print how far the samples are from their nearest training images, compared with test
    images: are any of them copies? Needs the run's data."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now, for nearest."""
    out: Path | None = None
    """New file or directory: FILE.png (one grid), FILE.npz (arrays that --data.source
    npz:FILE.npz reads), or a name without ending (a directory of single PNG files). None takes the
    next free RUN/samples/NUMBER.png."""


def sample_defaults(argv: Sequence[str]) -> SampleOptions:
    """Returns the options of `sample` with the settings of the run that `argv` names.

    So an option that is given replaces one of them, and the others stay.
    """
    options = SampleOptions()
    if {"--help", "-h"}.intersection(argv):
        return options
    run = RunDirectory(expand_user(Path(option_value(argv, "--run") or LATEST)))
    return replace(options, settings=read_pipeline_record(run.path).settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class InpaintOptions(_SamplingOptions):
    """Mask a part of images, fill it in several ways, and write all below each other.

    Needs a prior trained with --prior.any-order. Every column of the picture is an image: the
    original, the original with the masked part in gray, and each of its completions.
    """

    images: Path | None = None
    """Your own images: a file, or a folder of files, brought to the size and channels the run was
    trained on, as its own images were. None takes those of the test split."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now, for those of the test split."""
    num_images: int = 8
    """How many images, from the first on."""
    hide: Literal["right", "left", "top", "bottom", "center"] | None = None
    """What is masked: a half, or in the center half the height by half the width. None without a
    mask file masks the right half."""
    mask: Path | None = None
    """Image file instead of --hide: black pixels are unknown, all others known. It has the size the
    run was trained on, or that of all files of --images, which it is then fitted like."""
    n: int = 4
    """Completions per image; the first has the seed, the next the seed plus one."""
    label: str | None = None
    """Class of all images, by name or number; None completes without a class."""
    batch_size: int = 64
    """Images completed at once; memory grows with it."""
    out: Path | None = None
    """New PNG file; None takes the next free RUN/inpainted/NUMBER.png."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructOptions:
    """Encode and decode images with a run's VQ-VAE; write originals above reconstructions."""

    run: Path = LATEST
    """Run directory with a trained VQ-VAE."""
    n: int = 32
    """How many images are shown, from the first on; the metrics are over the whole split."""
    split: Literal["train", "validation", "test"] = "test"
    """Which split of the data."""
    images: Path | None = None
    """Your own images instead of a split: a file, or a folder of files. They are brought to the
    size and channels the run was trained on, as its own images were."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    out: Path | None = None
    """New PNG file; None takes the next free RUN/reconstructions/NUMBER.png."""
    device: Device = "auto"
