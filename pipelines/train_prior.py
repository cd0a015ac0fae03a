"""`python -m pipelines.train_prior`: stage two on the codes of a run."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.command import named_run, parse, run_command, say, with_prior_kind
from pipelines.dump_codes import read_own_codes
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.augmentation import AugmentationConfig
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.training.config import TrainingConfig
from pipelines.training.launch import num_processes
from stage2_prior.config import PriorConfig

if TYPE_CHECKING:
    import torch

    from stage1_vqvae.code_dump import CodeDump
    from stage2_prior.base import CodePrior


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPriorOptions:
    """Train stage two, the prior over code grids, into a run directory that holds codes."""

    run: Path = LATEST
    """Run directory with a code dump; the options below start from its settings. On several
    processes: torchrun --nproc-per-node 2 -- -m pipelines.train_prior --run RUN, since torchrun
    has a --run of its own."""
    resume: bool = False
    """Go on from the last checkpoint; the options must be the same, except for those that change
    no result."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""
    prior: PriorConfig
    """The prior."""
    prior_training: TrainingConfig
    """Its training."""
    prior_from: Path | None = None
    """Run whose prior this one starts from, with a new schedule; model, code grids and classes must
    be the same. None starts from random weights."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Other views of the training images that it learns from; the codes must have been dumped with
    them."""


def train_prior(
    config: RunConfig,
    directory: RunDirectory,
    dump: CodeDump,
    device: torch.device,
    *,
    resume: bool,
) -> CodePrior:
    """Trains stage two, measures it on the test split and saves it to the run directory.

    A prior that is already there is loaded instead: it was saved whole, when it was finished.

    Raises:
        ValueError: The dump has other views of the training images than `config` asks for, or the
            prior that is there was trained on other codes.
    """
    import torch

    from pipelines.files.atomic import writing
    from pipelines.runs.batches import code_batches
    from pipelines.runs.messages import describe_fit, say_training, test_row
    from pipelines.runs.tasks import PriorTask
    from pipelines.training.distributed import is_main, on_main
    from pipelines.training.metrics_log import MetricsLog
    from pipelines.training.progress import progress_for
    from pipelines.training.randomness import derive_seed
    from pipelines.training.trainer import Trainer
    from stage1_vqvae.code_dump import read_other_views
    from stage1_vqvae.quantizers.usage import code_counts, entropy_bits
    from stage2_prior.base import CodePrior
    from stage2_prior.objective import measure_bits_per_code

    if on_main(directory.prior.exists):
        say(f"prior: already trained, in {directory.prior}")
        prior = CodePrior.from_pretrained(directory.prior)
        if prior.vqvae_hash != dump.vqvae_hash:
            raise ValueError(
                f"{directory.prior} must be trained on {directory.codes}, but was trained on the "
                "codes of another VQ-VAE (the weights' hash differs): restore it, or remove it "
                "and train it again"
            )
        return prior.to(device)
    require_views(dump, config.augmentation, directory)
    torch.manual_seed(derive_seed(config.seed, "prior weights"))
    prior = new_prior(config, dump)
    metrics = MetricsLog(directory.metrics, directory.tensorboard)
    trainer = Trainer(
        PriorTask(prior, dump, read_other_views(directory.codes, dump), config.augmentation),
        config.prior_training,
        checkpoint_dir=directory.checkpoints / "prior",
        metrics=metrics,
        device=device,
        seed=config.seed,
        progress=progress_for(),
    )
    result = trainer.fit(resume=resume)
    test = dump.splits["test"]
    entropies = [
        entropy_bits(code_counts(grid, size))
        for grid, size in zip(test.codes, dump.codebook_sizes, strict=True)
    ]
    bits = measure_bits_per_code(prior, code_batches(test))
    values = {
        "bits_per_code": bits,
        "order_0_entropy": sum(
            entropy * grid.num_codes for entropy, grid in zip(entropies, prior.grids, strict=True)
        )
        / prior.num_codes,
        "bits_per_image": bits * prior.num_codes,
    }
    if is_main():
        metrics.write(test_row("prior", result, values))
        with writing(directory.prior):
            prior.save_pretrained(directory.prior)
    say_training("prior", result, values, "on the test split")
    say(describe_fit("prior", result, trainer.task.monitor))
    return prior


def new_prior(config: RunConfig, dump: CodeDump, device: str = "cpu") -> CodePrior:
    """The prior as its training begins, with the weights of `config.prior_from` or random ones.

    On the meta device it has no weights, and only what does not fit is refused.

    Raises:
        FileNotFoundError: There is no prior to start from.
        ValueError: It is another one, or the settings do not go with the codes.
    """
    import torch

    from pipelines.runs.starting_weights import start_prior_from
    from stage2_prior.grids import GridSpec
    from stage2_prior.pretrained import build_prior

    grids = tuple(
        GridSpec(height, width, size)
        for (height, width), size in zip(dump.grid_shapes, dump.codebook_sizes, strict=True)
    )
    num_views, hash_ = config.augmentation.num_views, dump.vqvae_hash
    with torch.device(device):
        prior = build_prior(config.prior, grids, dump.num_classes, hash_, num_views=num_views)
    if config.prior_from is not None:
        start_prior_from(prior, config.prior_from)
    return prior


def require_views(
    dump: CodeDump, augmentation: AugmentationConfig, directory: RunDirectory
) -> None:
    """Refuses to train on a dump whose views are not those of the settings.

    Raises:
        ValueError: They are not.
    """
    if dump.other_views != augmentation.names:
        expected, found = (
            ", ".join(names) or "none" for names in (augmentation.names, dump.other_views)
        )
        raise ValueError(
            f"the other views of the training images in {directory.codes} must be those of "
            f"--augmentation ({expected}), but they are {found}: give the --augmentation options "
            "that the codes were dumped with, or remove the codes and dump them again"
        )


def main() -> None:
    """Reads the options and trains."""
    argv = sys.argv[1:]
    directory, config = named_run(argv)
    options = parse(
        TrainPriorOptions,
        default=TrainPriorOptions(
            prior=with_prior_kind(config.prior, argv),
            prior_training=config.prior_training,
            prior_from=config.prior_from,
            augmentation=config.augmentation,
        ),
    )
    config = replace(
        config,
        prior=options.prior,
        prior_training=options.prior_training,
        prior_from=options.prior_from and options.prior_from.expanduser().resolve(),
        augmentation=options.augmentation,
    )

    from pipelines.training.device import choose_device
    from pipelines.training.distributed import (
        agree,
        enter_on_main,
        on_main,
        process_group,
        require_shared,
    )
    from stage1_vqvae.pretrained import load_tokenizer

    def check() -> bool:
        directory.check_prior(config, resume=options.resume)
        writes = not directory.prior.exists()
        if writes:
            refuse_unwritable(directory.path)
        return writes

    config.prior_training.check_processes(num_processes(), "--prior-training.batch-size")
    device = choose_device(options.device)
    with process_group(device), ExitStack() as stack:
        writes = on_main(check)
        agree({**settings_of_all(config.to_dict()), "resume": options.resume})
        if writes:
            require_shared(directory.path)
        dump = read_own_codes(directory, load_tokenizer(directory.vqvae))
        require_views(dump, config.augmentation, directory)
        new_prior(config, dump, "meta")  # refuses what does not fit before anything is written
        if writes:
            stack.enter_context(enter_on_main(directory.owned("trained")))
            on_main(lambda: directory.begin_prior(config, resume=options.resume))
        train_prior(config, directory, dump, device, resume=options.resume)
        on_main(directory.mark_latest)
    say(f"next: python -m pipelines.sample {directory.option}")


if __name__ == "__main__":
    run_command(main)
