"""A whole run: both stages, the code dump, samples and a report."""

from __future__ import annotations

import torch

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.evaluation.run_networks import check_networks_folder
from pipelines.files.images import save_grid
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.page import write_report
from pipelines.runs.codes import dump_codes
from pipelines.runs.directory import RunDirectory
from pipelines.runs.options import TrainAllOptions
from pipelines.runs.stage_one import open_run, train_vqvae
from pipelines.runs.stage_two import train_prior
from pipelines.training.config import TrainingConfig
from pipelines.training.distributed import on_main
from pipelines.tuning.after_training import choose_settings
from pipelines.tuning.record import tuned_settings

_SHOWN_SAMPLES = 100


def train_all(options: TrainAllOptions) -> None:
    """Trains both stages, chooses sampling settings, samples and writes the report.

    With `resume`, does what is missing.
    """
    run, resume = options.directory, options.resume
    results = (*run.results, run.tuning) if options.tune else run.results
    with open_run(options, results) as (config, splits, device):
        if options.dry_run:
            return
        vqvae = train_vqvae(config, run, splits, device, resume=resume)
        dump = dump_codes(run, splits, vqvae, device, config.prior_augmentation)
        prior = train_prior(config, run, dump, device, resume=resume)

        pipeline = GenerationPipeline(
            vqvae.to(device), prior, splits.class_names, splits.train_images_per_class
        )

        def show() -> None:
            if options.tune and not run.tuning.exists():
                _tune(run, pipeline, splits, config.prior_training)
            if not run.samples.exists():
                settings = tuned_settings(run)
                images = pipeline(_SHOWN_SAMPLES, settings=settings, seed=config.seed)
                save_grid(run.samples, images.numpy())
            run.mark_latest()
            if not run.report.exists():
                _report(run, splits, device)

        on_main(show)
    say(f"images: {run.samples} (sampled from the prior), {run.reconstructions} (by stage one)")
    say(f"next: python -m pipelines.sample {run.option} --n 64")


def _tune(
    run: RunDirectory, pipeline: GenerationPipeline, splits: DataSplits, training: TrainingConfig
) -> None:
    """Chooses sampling settings; an error does not undo the finished run."""
    images_seen = training.total_steps(len(splits.train)) * training.batch_size
    try:
        check_networks_folder(run)
        tuning = choose_settings(run, pipeline, splits, images_seen)
    except (OSError, RuntimeError, ValueError) as error:
        say(f"sampling settings: not chosen ({error})")
        return
    if tuning is not None:
        for path in (run.samples, run.report):  # of a run that sampled by other settings
            path.unlink(missing_ok=True)
        tuning.write(run.tuning)


def _report(run: RunDirectory, splits: DataSplits, device: torch.device) -> None:
    """Writes the report; an error does not undo the finished run."""
    try:
        say(f"report: {write_report(run.path, splits=splits, device=device)}")
    except (OSError, RuntimeError, ValueError) as error:
        say(f"report: not written ({error}); the run is finished without it")
