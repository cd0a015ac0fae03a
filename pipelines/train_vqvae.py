"""`python -m pipelines.train_vqvae`: stage one alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pipelines.cli.command import parse, recipe_defaults, run_command, say
from pipelines.data.location import with_absolute_paths
from pipelines.files.atomic import refuse_unwritable
from pipelines.files.records import to_json
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.directory import RUNS, RunDirectory
from pipelines.training.config import PrecisionChoice
from pipelines.training.launch import num_processes

if TYPE_CHECKING:
    import torch

    from pipelines.data.image_set import DataSplits
    from stage1_vqvae.model import VQVAE

_SHOWN_RECONSTRUCTIONS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """Where a run goes and how it starts; every option of `run` follows."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    """What is trained."""
    out: Path | None = None
    """Run directory to make; None takes runs/RECIPE."""
    resume: bool = False
    """Go on with the run that is there, from its last checkpoint; the options must be the same,
    except for those that change no result, such as where the images are now. Where there is none
    yet, begin."""
    start_from: Path | None = None
    """Finished run whose weights both stages start from, for example to train it further: with the
    same models, a new schedule, in a new directory. None leaves it to vqvae-from and prior-from."""
    precision: PrecisionChoice | None = None
    """Number format of both stages' convolutions and matrix products: auto takes bf16 where a short
    test at the start shows it to be right and faster, and fp32 elsewhere. None leaves it to
    vqvae-training.precision and prior-training.precision."""
    dry_run: bool = False
    """Read (and, if need be, download) the data, print every setting and what would be trained,
    and write nothing else."""

    def check(self, results: Sequence[Path]) -> None:
        """Refuses what cannot be trained or written, before any work is done.

        Args:
            results: What the command makes; where all of it is there, nothing will be written.

        Raises:
            FileExistsError: The directory holds a run and `resume` is False, or something else.
            ValueError: The run that is to be resumed has other settings.
            FileNotFoundError: A run whose weights are to be started from has none.
            OSError: The directory cannot be written.
        """
        for start, model in ((self.run.vqvae_from, "vqvae"), (self.run.prior_from, "prior")):
            if start is not None and not (start / model).is_dir():
                raise FileNotFoundError(
                    f"a run with a trained {model} is required to start from, but {start / model} "
                    "does not exist: check the path"
                )
        if self.dry_run:
            return
        self.directory.check(self.run, resume=self.resume)
        if self.writes(results):
            refuse_unwritable(self.directory.path)

    def writes(self, results: Sequence[Path]) -> bool:
        """Whether anything is left to write, once `check` has accepted the directory.

        Args:
            results: What the command makes.
        """
        if self.dry_run:
            return False
        is_finished = all(path.exists() for path in results)
        return not is_finished or self.directory.config() != self.run

    @property
    def directory(self) -> RunDirectory:
        """The run directory."""
        return RunDirectory(self.out or RUNS / self.run.recipe)


def read_train_options(description: str) -> TrainOptions:
    """Reads the command line of `train_all` and `train_vqvae`; `description` heads the help."""
    options = parse(
        TrainOptions,
        default=TrainOptions(run=recipe_defaults(sys.argv[1:])),
        description=description,
    )
    run = options.run
    if options.precision is not None:
        run = replace(
            run,
            vqvae_training=replace(run.vqvae_training, precision=options.precision),
            prior_training=replace(run.prior_training, precision=options.precision),
        )
    if options.start_from is not None:
        run = replace(run, vqvae_from=options.start_from, prior_from=options.start_from)
    return replace(options, run=found_from_anywhere(run))


def found_from_anywhere(run: RunConfig) -> RunConfig:
    """`run` with absolute paths, so that what it records holds in any working directory."""
    vqvae_from, prior_from = (
        path and path.expanduser().resolve() for path in (run.vqvae_from, run.prior_from)
    )
    data = with_absolute_paths(run.data)
    return replace(run, data=data, vqvae_from=vqvae_from, prior_from=prior_from)


def check_batches(run: RunConfig) -> None:
    """Makes sure that the processes can share the batches of both stages.

    Raises:
        ValueError: They cannot.
    """
    count = num_processes()
    run.vqvae_training.check_processes(count, "--vqvae-training.batch-size")
    run.prior_training.check_processes(count, "--prior-training.batch-size")


@contextmanager
def open_run(options: TrainOptions, results: Sequence[Path]) -> Iterator[DataSplits]:
    """Loads the data, says what will be trained, and begins or re-opens the run directory.

    It is this command's own for the length of the block, unless nothing will be written to it.
    Every process of a run calls it, inside the process group; rank 0 writes.

    Args:
        options: Of the command.
        results: What the command makes.

    Yields:
        The data.

    Raises:
        ValueError: As `TrainOptions.check`, or the processes are not alike.
        OSError: As `TrainOptions.check`.
    """
    from pipelines.data.data_record import data_record
    from pipelines.data.load import load_splits
    from pipelines.runs.messages import plan
    from pipelines.training.distributed import agree, enter_on_main, on_main, require_shared

    directory = options.directory

    def check() -> bool:
        options.check(results)
        return options.writes(results)

    writes = on_main(check)
    agree({**settings_of_all(options.run.to_dict()), "resume": options.resume})
    with ExitStack() as stack:
        if writes:
            require_shared(directory.path)
            stack.enter_context(enter_on_main(directory.owned("trained")))
        splits = load_splits(options.run.data)
        say(plan(options.run, splits))
        if options.dry_run:
            say(json.dumps(options.run.to_dict(), indent=2))
        else:
            data = data_record(splits)
            agree({"data": to_json(data)}, "give all of them the same images")
            open_directory = directory.begin if writes else directory.check
            on_main(lambda: open_directory(options.run, data, resume=options.resume))
        yield splits


def train_vqvae(
    config: RunConfig,
    directory: RunDirectory,
    splits: DataSplits,
    device: torch.device,
    *,
    resume: bool,
) -> VQVAE:
    """Trains stage one, measures it on the test split and saves it to the run directory.

    A model that is already there is loaded instead: it was saved whole, when it was finished.
    """
    import torch

    from pipelines.files.atomic import writing
    from pipelines.files.images import save_reconstructions
    from pipelines.runs.batches import image_batches
    from pipelines.runs.messages import say_training, test_row
    from pipelines.runs.starting_weights import start_vqvae_from
    from pipelines.runs.tasks import VQVAETask
    from pipelines.training.distributed import is_main, on_main
    from pipelines.training.metrics_log import MetricsLog
    from pipelines.training.progress import progress_for
    from pipelines.training.randomness import derive_seed
    from pipelines.training.trainer import Trainer
    from stage1_vqvae.model import VQVAE
    from stage1_vqvae.objective import measure_reconstruction

    if on_main(directory.vqvae.exists):
        say(f"vqvae: already trained, in {directory.vqvae}")
        return VQVAE.from_pretrained(directory.vqvae).to(device)
    training = config.vqvae_training
    torch.manual_seed(derive_seed(config.seed, "vqvae weights"))
    model = VQVAE(config.vqvae, splits.image_shape)
    if config.vqvae_from is not None:
        start_vqvae_from(model, config.vqvae_from)
    metrics = MetricsLog(directory.metrics, directory.tensorboard)
    trainer = Trainer(
        VQVAETask(
            model,
            splits.train,
            splits.validation,
            batch_size=training.batch_size // training.accumulation,
            has_codebook=config.vqvae_from is not None,
        ),
        training,
        checkpoint_dir=directory.checkpoints / "vqvae",
        metrics=metrics,
        device=device,
        seed=config.seed,
        progress=progress_for(),
    )
    result = trainer.fit(resume=resume)
    model.to(memory_format=torch.channels_last)
    figures = measure_reconstruction(model, image_batches(splits.test, device))
    values = {
        "psnr": figures.psnr,
        "l1": figures.l1,
        "usage": min(figures.usage),
        "perplexity": min(figures.perplexity),
        "entropy": sum(figures.entropy) / len(figures.entropy),
    }
    if is_main():
        metrics.write(test_row("vqvae", result, values))
        save_reconstructions(
            directory.reconstructions, model, splits.test.images[:_SHOWN_RECONSTRUCTIONS]
        )
        with writing(directory.vqvae):
            model.save_pretrained(directory.vqvae)
    say_training("vqvae", result, values, "on the test split")
    return model


def main() -> None:
    """Reads the options and trains."""
    options = read_train_options("Train stage one, the VQ-VAE, into a run directory.")
    check_batches(options.run)
    directory = options.directory
    results = (directory.vqvae, directory.reconstructions)

    from pipelines.training.device import choose_device
    from pipelines.training.distributed import process_group

    device = choose_device(options.run.device)
    with process_group(device), open_run(options, results) as splits:
        if options.dry_run:
            return
        train_vqvae(options.run, directory, splits, device, resume=options.resume)
    say(f"next: python -m pipelines.dump_codes {directory.option}")


if __name__ == "__main__":
    run_command(main)
