"""What a pipeline is besides its two models: classes and sampling settings. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.files.records import read_record
from pipelines.runs.directory import RunDirectory
from pipelines.tuning.record import tuned_settings
from stage2_prior.sampling.settings import SamplingSettings

PIPELINE_FILE = "pipeline.json"
PIPELINE_KIND, PIPELINE_VERSION = "pipeline", 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineRecord:
    """The `pipeline.json` of a saved pipeline."""

    class_names: tuple[str, ...] = ()
    """Names by label; empty if unknown."""
    train_images_per_class: tuple[int, ...] = ()
    """By label; empty if unknown."""
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    """How it samples unless told otherwise."""


def read_pipeline_record(directory: Path) -> PipelineRecord:
    """Reads the file of a saved pipeline, or what a run has of it.

    The settings of a run are those chosen on its validation split for its present models, or the
    defaults. Without any file the record is empty.
    """
    path, run = directory / PIPELINE_FILE, RunDirectory(directory)
    if path.exists():
        cure = "restore it, or remove it to go without class names and chosen sampling settings"
        return read_record(
            path, PIPELINE_KIND, PIPELINE_VERSION, PipelineRecord, cure=cure, sealed=True
        )
    if not run.config_file.exists():
        return PipelineRecord()
    data = run.data()
    return PipelineRecord(
        class_names=data.class_names,
        train_images_per_class=data.train_images_per_class,
        settings=tuned_settings(run) or SamplingSettings(),
    )
