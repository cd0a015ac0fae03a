"""A whole run: both stages, the code dump, samples and a report."""

from __future__ import annotations

import torch

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.files.images import save_grid
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.page import write_report
from pipelines.runs.codes import dump_codes
from pipelines.runs.directory import RunDirectory
from pipelines.runs.options import TrainOptions
from pipelines.runs.stage_one import open_run, train_vqvae
from pipelines.runs.stage_two import train_prior
from pipelines.training.distributed import on_main

_SHOWN_SAMPLES = 100


def train_all(options: TrainOptions) -> None:
    """Trains both stages, then samples and writes the report; with `resume`, what is missing."""
    run, resume = options.directory, options.resume
    with open_run(options, run.results) as (config, splits, device):
        if options.dry_run:
            return
        vqvae = train_vqvae(config, run, splits, device, resume=resume)
        dump = dump_codes(run, splits, vqvae, device, config.prior_augmentation)
        prior = train_prior(config, run, dump, device, resume=resume)

        def show() -> None:
            if not run.samples.exists():
                pipeline = GenerationPipeline(
                    vqvae.to(device), prior, splits.class_names, splits.train_images_per_class
                )
                images = pipeline(_SHOWN_SAMPLES, seed=config.seed)
                save_grid(run.samples, images.numpy())
            run.mark_latest()
            if not run.report.exists():
                _report(run, splits, device)

        on_main(show)
    say(f"images: {run.samples} (sampled from the prior), {run.reconstructions} (by stage one)")
    say(f"next: python -m pipelines.sample {run.option} --n 64")


def _report(run: RunDirectory, splits: DataSplits, device: torch.device) -> None:
    """Writes the report; an error does not undo the finished run."""
    try:
        say(f"report: {write_report(run.path, splits=splits, device=device)}")
    except (OSError, RuntimeError, ValueError) as error:
        say(f"report: not written ({error}); the run is finished without it")
