"""`python -m pipelines.train_all`: both stages, samples and a report, in one run directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cli.command import run_command, say
from pipelines.dump_codes import dump_codes
from pipelines.train_prior import train_prior
from pipelines.train_vqvae import (
    TrainOptions,
    check_batches,
    open_run,
    read_train_options,
    train_vqvae,
)

if TYPE_CHECKING:
    import torch

    from pipelines.data.image_set import ImageSet
    from pipelines.runs.directory import RunDirectory

_SHOWN_SAMPLES = 100


def train_all(options: TrainOptions) -> None:
    """Runs both stages and the dump, then draws and reports; with `resume`, what is left of it."""
    run, config = options.directory, options.run
    check_batches(config)

    from pipelines.files.images import save_grid
    from pipelines.generation.pipeline import GenerationPipeline
    from pipelines.training.device import choose_device
    from pipelines.training.distributed import on_main, process_group

    device = choose_device(config.device)
    with process_group(device), open_run(options, run.results) as splits:
        if options.dry_run:
            return
        vqvae = train_vqvae(config, run, splits, device, resume=options.resume)
        dump = dump_codes(run, splits, vqvae, device, config.augmentation)
        prior = train_prior(config, run, dump, device, resume=options.resume)

        def show() -> None:
            if not run.samples.exists():
                pipeline = GenerationPipeline(
                    vqvae.to(device), prior, splits.class_names, splits.train_images_per_class
                )
                images = pipeline(_SHOWN_SAMPLES, seed=config.seed)
                save_grid(run.samples, images.numpy())
            run.mark_latest()
            if not run.report.exists():
                _report(run, splits.test, device)

        on_main(show)
    say(f"images: {run.samples} (drawn by the prior), {run.reconstructions} (by stage one)")
    say(f"next: python -m pipelines.sample {run.option} --n 64")


def _report(run: RunDirectory, test: ImageSet, device: torch.device) -> None:
    """Writes the report; whatever stops it does not undo a run that is finished."""
    from pipelines.report.page import write_report

    try:
        say(f"report: {write_report(run.path, test=test, device=device)}")
    except (OSError, RuntimeError, ValueError) as error:
        say(f"report: not written ({error}); the run is finished without it")


def main() -> None:
    """Reads the options and trains."""
    train_all(
        read_train_options("Train a VQ-VAE, dump its codes, train a prior on them, and sample.")
    )


if __name__ == "__main__":
    run_command(main)
