"""Stage one of a run: its directory is opened, and its VQ-VAE trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from pipelines.cli.echo import say
from pipelines.data.data_record import data_record
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.load import load_splits
from pipelines.files.atomic import writing
from pipelines.files.images import save_reconstructions
from pipelines.files.records import to_json
from pipelines.runs.batches import image_batches, reconstruct_images
from pipelines.runs.choosing import choose_by_data, continued
from pipelines.runs.compilation import check_compilation
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.cost import plan_costs
from pipelines.runs.directory import RunDirectory
from pipelines.runs.fit import fit
from pipelines.runs.messages import plan_data, plan_models, say_fit
from pipelines.runs.models import new_vqvae
from pipelines.runs.options import TrainOptions
from pipelines.runs.probe import measure_speed
from pipelines.runs.tasks import VQVAETask
from pipelines.training.device import choose_device
from pipelines.training.distributed import (
    agree,
    enter_on_main,
    is_main,
    on_main,
    process_group,
    require_shared,
)
from pipelines.training.randomness import derive_seed
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import measure_reconstruction

_SHOWN_RECONSTRUCTIONS = 32


@contextmanager
def open_run(
    options: TrainOptions, results: Sequence[Path]
) -> Iterator[tuple[RunConfig, DataSplits, torch.device]]:
    """Loads the data, prints what will be trained, and begins or re-opens the run directory.

    The directory is locked for the length of the block, unless all `results` of the command exist.
    Under torchrun every process calls this and joins the others; rank 0 writes. Yields the settings
    with all that the data have chosen, the data, and where to compute.
    """
    options.run.check_processes(options.left_open)
    directory, resume = options.directory, options.resume

    device = choose_device(options.run.device)
    check_compilation(options.run, device)
    with process_group(device), ExitStack() as stack:
        options = continued(options)
        config = options.run
        config.check_processes(options.left_open)  # a continued run may have had others
        writes = on_main(lambda: options.check(results))
        agree({**settings_of_all(config.to_dict()), "resume": resume, "hours": options.hours})
        if writes:
            require_shared(directory.path)
            stack.enter_context(enter_on_main(directory.owned("trained")))
        splits = load_splits(config.data)
        say(plan_data(config, splits))
        config, speed = choose_by_data(config, options.left_open, options.hours, splits, device)
        say("\n".join(plan_models(config, splits)))
        if options.dry_run:
            speed = speed or measure_speed(config, splits, device)
            say("\n".join(plan_costs(config, splits, device, speed)))
            say(json.dumps(config.to_dict(), indent=2))
        else:
            data = data_record(splits)
            agree({"data": to_json(data)}, "give all of them the same images")
            on_main(lambda: directory.check(config, data, resume=resume))
            if writes:
                on_main(lambda: directory.begin(config, data))
        yield config, splits, device


def train_vqvae(
    config: RunConfig,
    directory: RunDirectory,
    splits: DataSplits,
    device: torch.device,
    *,
    resume: bool,
) -> VQVAE:
    """Trains stage one, measures it on the test split and saves it to the run directory.

    A finished model in the directory is loaded instead.
    """
    if on_main(directory.vqvae.exists):
        say(f"vqvae: already trained, in {directory.vqvae}")
        return VQVAE.from_pretrained(directory.vqvae).to(device)
    training = config.vqvae_training
    torch.manual_seed(derive_seed(config.seed, "vqvae weights"))
    model = new_vqvae(config, splits.image_shape)
    task = VQVAETask(
        model,
        splits.train,
        splits.validation,
        batch_size=training.batch_size // training.accumulation,
        augmentation=config.vqvae_augmentation,
        has_codebook=config.vqvae_from is not None,
    )

    def measure() -> dict[str, float]:
        model.to(memory_format=torch.channels_last)
        metrics = measure_reconstruction(model, image_batches(splits.test, device))
        return {
            "psnr": metrics.psnr,
            "l1": metrics.l1,
            "usage": min(metrics.usage),
            "perplexity": min(metrics.perplexity),
            "entropy": sum(metrics.entropy) / len(metrics.entropy),
        }

    seed = config.seed
    result = fit(task, training, directory, measure, seed=seed, device=device, resume=resume)
    if is_main():
        originals = ImageSet(splits.test.images[:_SHOWN_RECONSTRUCTIONS])
        reconstructions = reconstruct_images(model, originals)
        save_reconstructions(directory.reconstructions, originals.images, reconstructions)
        with writing(directory.vqvae):
            model.save_pretrained(directory.vqvae)
    say_fit("vqvae", result, config)
    return model
