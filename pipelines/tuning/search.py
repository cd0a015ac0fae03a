"""Search for sampling settings: every candidate's samples against the validation split."""

from __future__ import annotations

from pipelines.cli.echo import say
from pipelines.evaluation.run_networks import check_networks_folder
from pipelines.files.atomic import refuse_unwritable
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.report.page import write_report
from pipelines.runs.data import load_run_splits
from pipelines.runs.directory import RunDirectory
from pipelines.training.device import choose_device
from pipelines.tuning.measurement import judge_of, measure_candidates
from pipelines.tuning.options import GUIDANCE_SCALES, TuneSamplingOptions
from pipelines.tuning.record import arguments, describe_choice
from stage1_vqvae.pretrained import load_tokenizer
from stage2_prior.pretrained import load_prior
from stage2_prior.sampling.settings import SamplingSettings


def tune_sampling(directory: RunDirectory, options: TuneSamplingOptions) -> None:
    """Measures all candidates, prints the best, and writes the record and the report.

    `TuneSamplingOptions.check` has accepted the options.
    """
    check_data(directory)
    path = directory.tuning
    if path.is_dir():
        raise ValueError(f"{path} cannot be written, since it is a directory: move it away")
    refuse_unwritable(directory.path)
    check_networks_folder(directory)
    device = choose_device(options.device)
    with directory.owned("measured", take_turns=True):
        pipeline = _pipeline(directory).to(device)
        num_images = directory.data().num_images.validation
        candidates = candidate_settings(options, pipeline, num_images)
        splits = load_run_splits(directory, options.data)
        tuning = measure_candidates(
            judge_of(directory.path, splits, device),
            pipeline,
            candidates,
            splits,
            num_images=num_images,
            images_per_set=num_images,
            sets=options.sets,
            seed=options.seed,
            batch_size=options.batch_size,
        )
        say(describe_choice(tuning))
        tuning.write(path)
        say(f"wrote {path} and {write_report(directory.path, splits=splits)}")
        say("the chosen settings are what `sample` takes for options that are not given")
        say(f"next: python -m pipelines.evaluate {directory.option}{arguments(tuning.settings)}")


def _pipeline(directory: RunDirectory) -> GenerationPipeline:
    """Loads a run without the settings chosen before, whose record may be damaged."""
    data = directory.data()
    return GenerationPipeline(
        load_tokenizer(directory.vqvae),
        load_prior(directory.prior),
        data.class_names,
        data.train_images_per_class,
    )


def check_data(directory: RunDirectory) -> None:
    """Refuses, before any work, a run whose data have too few images to compare."""
    sizes = directory.data().num_images
    if not 2 <= sizes.validation <= sizes.train:
        raise ValueError(
            "at least 2 validation images and as many training images are required, got "
            f"{sizes.validation} and {sizes.train}: train a run with another "
            "--data.validation-fraction"
        )


def candidate_settings(
    options: TuneSamplingOptions, pipeline: GenerationPipeline, num_samples: int
) -> list[SamplingSettings]:
    """Returns every temperature with every guidance scale, `compile` decided for all together."""
    prior = pipeline.prior
    schedule = options.settings.guidance_schedule
    if schedule != "constant" and not prior.can_guide:
        raise ValueError(
            f"guidance_schedule {schedule} needs a prior that can be guided, and this one was not "
            "trained without labels: leave the schedule out, or train a prior with "
            "--prior.label-dropout above 0"
        )
    scales = options.guidance_scales or (GUIDANCE_SCALES if prior.can_guide else (1.0,))
    candidates = options.candidates(scales)
    for candidate in candidates:
        pipeline.check(candidate, seed=options.seed)
    total, labelled = len(candidates) * options.sets * num_samples, prior.num_classes is not None
    return [prior.resolve(candidate, total, labelled=labelled) for candidate in candidates]
