"""Stage two of a run: its prior is trained on its codes."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from pipelines.cli.echo import say
from pipelines.files.atomic import refuse_unwritable, writing
from pipelines.runs.batches import code_batches
from pipelines.runs.codes import grid_specs, read_own_codes
from pipelines.runs.compilation import check_compilation
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.directory import RunDirectory
from pipelines.runs.fit import fit
from pipelines.runs.messages import say_fit
from pipelines.runs.models import new_prior
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.tasks import PriorTask
from pipelines.training.device import choose_device
from pipelines.training.distributed import (
    agree,
    enter_on_main,
    is_main,
    on_main,
    process_group,
    require_shared,
)
from pipelines.training.launch import num_processes
from pipelines.training.randomness import derive_seed
from stage1_vqvae.code_dump import CodeDump, read_other_views
from stage1_vqvae.pretrained import load_tokenizer
from stage2_prior.base import CodePrior
from stage2_prior.objective import measure_bits_per_code
from stage2_prior.pretrained import load_prior


def train_prior(
    config: RunConfig,
    directory: RunDirectory,
    dump: CodeDump,
    device: torch.device,
    *,
    resume: bool,
) -> CodePrior:
    """Trains stage two, measures it on the test split and saves it to the run directory.

    A finished prior in the directory is loaded instead.
    """
    if on_main(directory.prior.exists):
        say(f"prior: already trained, in {directory.prior}")
        prior = load_prior(directory.prior)
        if prior.vqvae_hash != dump.vqvae_hash:
            raise ValueError(
                f"{directory.prior} must be trained on {directory.codes}, but was trained on the "
                "codes of another VQ-VAE (the weights' hash differs): restore it, or remove it "
                "and train it again"
            )
        return prior.to(device)
    require_views(dump, config.prior_augmentation, directory)
    torch.manual_seed(derive_seed(config.seed, "prior weights"))
    prior = new_prior(config, grid_specs(dump), dump.num_classes, dump.vqvae_hash)
    task = PriorTask(
        prior, dump, read_other_views(directory.codes, dump), config.prior_augmentation
    )

    def measure() -> dict[str, float]:
        bits = measure_bits_per_code(prior, code_batches(dump.splits["test"]))
        return {
            "bits_per_code": bits,
            "order_0_entropy": dump.order_0_entropy("test"),
            "bits_per_image": bits * prior.num_codes,
        }

    training, seed = config.prior_training, config.seed
    result = fit(task, training, directory, measure, seed=seed, device=device, resume=resume)
    if is_main():
        with writing(directory.prior):
            prior.save_pretrained(directory.prior)
    say_fit("prior", result, config)
    return prior


def train_prior_of_run(
    directory: RunDirectory, config: RunConfig, device_name: str, *, resume: bool
) -> None:
    """Trains the prior of a run whose codes are dumped.

    `config` has the prior's settings as they are now. With `resume` a prior in training goes on;
    without one, a new one begins.
    """

    def check() -> bool:
        directory.check_prior(config, resume=resume)
        writes = not directory.prior.exists()
        if writes:
            refuse_unwritable(directory.path)
        return writes

    def begin() -> None:
        check()  # another process may have had the lock since
        directory.begin(config)

    config.prior_training.check_processes(num_processes(), "--prior-training.batch-size")
    device = choose_device(device_name)
    check_compilation(config, device)
    with process_group(device), ExitStack() as stack:
        writes = on_main(check)
        agree({**settings_of_all(config.to_dict()), "resume": resume})
        if writes:
            require_shared(directory.path)
        dump = read_own_codes(directory, load_tokenizer(directory.vqvae))
        require_views(dump, config.prior_augmentation, directory)
        # Refuses what does not fit before anything is written.
        new_prior(config, grid_specs(dump), dump.num_classes, device="meta")
        if writes:
            stack.enter_context(enter_on_main(directory.owned("trained")))
            on_main(begin)
        train_prior(config, directory, dump, device, resume=resume)
        on_main(directory.mark_latest)


def require_views(
    dump: CodeDump, augmentation: PriorAugmentationConfig, directory: RunDirectory
) -> None:
    """Refuses to train on a dump whose views are not those of the settings."""
    if dump.other_views != augmentation.names:
        expected, found = (
            ", ".join(names) or "none" for names in (augmentation.names, dump.other_views)
        )
        raise ValueError(
            f"the other views of the training images in {directory.codes} must be those of "
            f"--prior-augmentation ({expected}), but they are {found}: give the "
            "--prior-augmentation options that the codes were dumped with, or remove the codes "
            "and dump them again"
        )
