"""Choices for a run, made from its images, its machine, or the run that it continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.runs.choices import (
    Facts,
    Speed,
    Value,
    choose,
    describe_choices,
    taken_from,
    with_values,
)
from pipelines.runs.config import RunConfig, settings_of_all
from pipelines.runs.directory import RunDirectory
from pipelines.runs.length_rules import DEFAULT_HOURS, LENGTH_RULES
from pipelines.runs.options import TrainOptions
from pipelines.runs.probe import measure_speed
from pipelines.runs.rules import (
    CHOSEN_OPTIONS,
    EPOCHS,
    GRID_OPTIONS,
    MODEL_RULES,
    data_warnings,
)
from pipelines.training.distributed import agree, on_main, world_size


def continued(options: TrainOptions) -> TrainOptions:
    """Closes open options with the values of the run that is resumed or started from.

    A run that is resumed keeps all, whatever the speed of the machine now. One that starts from
    another's weights takes over the model alone; a prior that does so without its VQ-VAE, also what
    decides the code grids.
    """
    values = on_main(lambda: _values_of_earlier(options))
    left_open = tuple(option for option in options.left_open if option not in values)
    return replace(options, run=with_values(options.run, values), left_open=left_open)


def _values_of_earlier(options: TrainOptions) -> dict[str, Value]:
    run, left_open = options.run, options.left_open
    if not left_open:
        return {}
    if options.resume and options.directory.config_file.exists():
        earlier = options.directory.config()
        if earlier.recipe == run.recipe:
            return taken_from(earlier, run, left_open)
    values: dict[str, Value] = {}
    for start, parts in (
        (run.prior_from, ("--prior.", "--prior-augmentation.", *GRID_OPTIONS)),
        (run.vqvae_from, ("--vqvae.",)),
    ):
        if start is not None and RunDirectory(start).config_file.exists():
            of_model = [option for option in left_open if option.startswith(parts)]
            values |= taken_from(RunDirectory(start).config(), run, of_model)
    return values


def choose_by_data(
    config: RunConfig,
    left_open: Sequence[str],
    hours: float | None,
    splits: DataSplits,
    device: torch.device,
) -> tuple[RunConfig, Speed | None]:
    """Chooses the options `left_open` by `rules`, and prints each choice with its reason.

    All processes of a run choose the same. `hours` are those of both trainings; None takes the
    default of the device. Returns the settings, and the speed of training with them where it was
    measured.
    """
    if not left_open:
        return config, None
    facts = Facts(
        num_train=len(splits.train),
        num_validation=len(splits.validation),
        image_shape=splits.image_shape,
        device=device.type,
        num_processes=world_size(),
        given=tuple(option for option in CHOSEN_OPTIONS if option not in left_open),
        hours=hours or DEFAULT_HOURS.get(device.type, 1.0),
    )
    config, of_models = choose(MODEL_RULES, facts, config, left_open)
    needs_speed = any(option in left_open for option in EPOCHS)
    speed = measure_speed(config, splits, device) if needs_speed else None
    facts = replace(facts, speed=speed)
    config, of_lengths = choose(LENGTH_RULES, facts, config, left_open)
    if choices := (*of_models, *of_lengths):
        say(describe_choices(choices))
    for warning in data_warnings(sum(map(len, splits.by_name.values())), splits.image_shape):
        say(f"warning: {warning}")
    agree(settings_of_all(config.to_dict()))
    return config, speed
