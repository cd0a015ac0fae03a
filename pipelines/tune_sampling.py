"""`python -m pipelines.tune_sampling`: which temperature and guidance make the best samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.cli.command import parse, require_positive, run_command, say
from pipelines.data.location import DataLocation
from pipelines.files.atomic import refuse_unwritable
from pipelines.runs.directory import LATEST, RunDirectory
from pipelines.tuning.record import TUNING_FILE, MeasuredSettings, SamplingTuning
from stage2_prior.config import GuidanceSchedule, SamplingSettings

if TYPE_CHECKING:
    from pipelines.data.image_set import DataSplits
    from pipelines.generation.pipeline import GenerationPipeline
    from stage2_prior.base import CodePrior

HEADING = f"  {'temperature':>11}  {'guidance':>8}  {'FD':>7}  {'spread':>6}  {'right class':>11}"
_GUIDANCE_SCALES = (1.0, 1.25, 1.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneSamplingOptions:
    """Try temperatures and guidance scales, all with all, and say which samples are best.

    The samples are compared with the images of the validation split, so that `evaluate`, which
    measures on the test split, says what the choice is worth on images it was not made by. Writes
    sampling_tuning.json into the run directory, in place of that of an earlier try, and renews the
    run's report.
    """

    run: Path = LATEST
    """Run directory with both models, on labelled data."""
    temperatures: tuple[float, ...] = (1.0, 1.1, 1.2)
    """Temperatures to try."""
    first_temperature: float | None = None
    """Temperature of the first code, from which it goes in even steps to each temperature that is
    tried at the last; None draws every code alike."""
    guidance_scales: tuple[float, ...] | None = None
    """Guidance scales to try; None takes 1, 1.25 and 1.5 where the prior can be guided, else 1."""
    guidance_schedule: GuidanceSchedule = "constant"
    """How guidance is spread over the codes of an image: `linear` and `cosine` go from
    first_guidance_scale to the scale that is tried."""
    first_guidance_scale: float = 1.0
    """With a schedule, the guidance scale of the first code: 1 follows the label as trained, below
    1 less, so that first codes vary more than those of its class."""
    guidance_power: float = 1.0
    """With a schedule, above 1 guidance comes later, below 1 earlier."""
    top_p: float | None = None
    """Keep only the likeliest codes that together have at least this probability, in (0, 1]."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Matrix products of the transformer while sampling."""
    sets: int = 2
    """Sets of samples per choice, each as large as the validation split; their spread says which
    differences are chance."""
    seed: int = 0
    """Of the samples; in [0, 2^63)."""
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    batch_size: int = 256
    """Samples drawn at once; memory grows with it."""
    device: str = "auto"
    """Where to compute: auto (the first of cuda, mps, cpu), cpu, mps, cuda or cuda:N."""


def check_options(options: TuneSamplingOptions) -> None:
    """Refuses early, before any work, what cannot be tried.

    Raises:
        ValueError: A number is out of range, or there is nothing to try.
    """
    require_positive(options, "sets", "batch_size")
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"seed must be in [0, 2^63), got {options.seed}")
    for name in ("temperatures", "guidance_scales"):
        values = getattr(options, name)
        if values is not None and (not values or len(set(values)) < len(values)):
            raise ValueError(
                f"{name} must name at least one value, each once, got "
                f"{' '.join(map(str, values)) or 'none'}"
            )
    if 0 in options.temperatures:
        raise ValueError(
            "temperature 0 draws one image per class, which no distance between sets is meant for: "
            "leave it out"
        )
    unguided = options.first_guidance_scale == 1 and set(options.guidance_scales or ()) == {1.0}
    if options.guidance_schedule != "constant" and unguided:
        raise ValueError(
            f"guidance_schedule {options.guidance_schedule} needs a guidance scale other than 1: "
            "name some with --guidance-scales, or leave the schedule out"
        )
    _settings(options, options.guidance_scales or _GUIDANCE_SCALES)


def ways_to_try(
    options: TuneSamplingOptions, prior: CodePrior, num_samples: int
) -> list[SamplingSettings]:
    """Every temperature with every guidance scale, `compile` decided for all together.

    Args:
        options: What to try.
        prior: Draws.
        num_samples: Samples in a set.

    Raises:
        ValueError: The prior cannot draw in one of these ways.
    """
    from stage2_prior.sampling.checks import check_settings, decide_compilation

    guidable = prior.num_classes is not None and prior.config.label_dropout > 0
    scales = options.guidance_scales or (_GUIDANCE_SCALES if guidable else (1.0,))
    if options.guidance_schedule != "constant" and not guidable:
        raise ValueError(
            f"guidance_schedule {options.guidance_schedule} needs a prior that can be guided, and "
            "this one was not trained without labels: leave the schedule out, or train a prior "
            "with --prior.label-dropout above 0"
        )
    ways = _settings(options, scales)
    for way in ways:
        check_settings(
            way,
            prior.config,
            prior.num_classes,
            labelled=prior.num_classes is not None,
            has_sampler_options=prior.has_sampler_options,
        )
    num_draws = len(ways) * options.sets * num_samples * prior.num_codes
    device = next(prior.parameters()).device
    possible = prior.has_sampler_options
    return [decide_compilation(way, num_draws, device, possible=possible) for way in ways]


def describe_choice(tuning: SamplingTuning) -> str:
    """Says which settings are best, and which others cannot be told from them."""
    nearest = tuning.nearest
    words = f"nearest: {_name(nearest.settings)}"
    if nearest.spread is None:
        return words + "; with one set nothing is known of chance: --sets 2 tells"
    others = ", ".join(_name(one.settings) for one in tuning.as_near)
    return words + (f"; no farther than chance: {others}" if others else "")


def table_row(one: MeasuredSettings) -> str:
    """One line under `HEADING`."""
    spread = "-" if one.spread is None else f"{one.spread:.3f}"
    agreement = "-" if one.agreement is None else f"{one.agreement:.1%}"
    return (
        f"  {one.settings.temperature:>11g}  {one.settings.guidance_scale:>8g}  "
        f"{one.distance:>7.3f}  {spread:>6}  {agreement:>11}"
    )


def arguments(settings: SamplingSettings) -> str:
    """The options that `sample` and `evaluate` know the settings by, each with a space before."""
    values = asdict(replace(settings, compile="off"))
    defaults = asdict(SamplingSettings())
    return "".join(
        f" --{name.replace('_', '-')} {value}"
        for name, value in values.items()
        if value != defaults[name]
    )


def _settings(options: TuneSamplingOptions, scales: Sequence[float]) -> list[SamplingSettings]:
    plain = SamplingSettings(
        first_temperature=options.first_temperature,
        top_p=options.top_p,
        precision=options.precision,
        compile="auto",
    )
    ways = []
    for temperature, scale in itertools.product(options.temperatures, scales):
        way = replace(plain, temperature=temperature)
        # From 1 to 1 there is nothing for a schedule to do.
        if options.guidance_schedule == "constant" or {scale, options.first_guidance_scale} != {1}:
            way = replace(
                way,
                guidance_scale=scale,
                guidance_schedule=options.guidance_schedule,
                first_guidance_scale=options.first_guidance_scale,
                guidance_power=options.guidance_power,
            )
        ways.append(way)
    return ways


def _name(settings: SamplingSettings) -> str:
    return f"temperature {settings.temperature:g} with guidance {settings.guidance_scale:g}"


def check_data(directory: RunDirectory) -> None:
    """Refuses early, before any work, a run on whose data nothing can be compared.

    Raises:
        ValueError: They have no labels, or too few images.
    """
    data = directory.data()
    if data.num_classes is None:
        raise ValueError(
            "samples are compared in the features of a classifier, which needs labels, but the "
            f"data of {directory.path} have none: train on labelled data"
        )
    sizes = data.num_images
    if not 2 <= sizes.validation <= sizes.train:
        raise ValueError(
            "at least 2 validation images and as many training images are required, got "
            f"{sizes.validation} and {sizes.train}: train a run with another "
            "--data.validation-fraction"
        )


def tune(
    directory: RunDirectory,
    options: TuneSamplingOptions,
    pipeline: GenerationPipeline,
    ways: Sequence[SamplingSettings],
    splits: DataSplits,
) -> SamplingTuning:
    """Measures all settings, and says each when it is measured.

    Args:
        directory: The run.
        options: How much is drawn.
        pipeline: The run's models, where to compute.
        ways: What is tried.
        splits: The run's data, which `check_data` has accepted.

    Raises:
        ValueError: The feature classifier that was kept is damaged.
    """
    from pipelines.evaluation.loaded_run import joined_sets, run_classifier
    from pipelines.evaluation.metrics.feature_networks import classifier_network
    from pipelines.evaluation.metrics.frechet import frechet_distance
    from pipelines.training.precision import resolve_precision
    from pipelines.tuning.search import measure_settings
    from stage2_prior.artifact import weights_hash

    real, validation = joined_sets(splits.train, splits.validation), splits.validation
    device = next(pipeline.prior.parameters()).device
    say("feature classifier ...")
    classifier, key = run_classifier(
        directory.path, splits, real, device, resolve_precision("auto", device)
    )
    network = classifier_network(classifier, key)
    floor = frechet_distance(
        network.features(validation.images),
        network.features(splits.train.images[: len(validation)]),
    )
    say(
        f"FD-classifier of {options.sets} x {len(validation):,} samples from the validation split "
        f"(as many training images, which the classifier has learned from: {floor:.3f})"
    )
    if len(validation) < 10 * network.num_features:
        say(
            f"note: {len(validation):,} images are few for {network.num_features:,} features: the "
            "distances are too high, and only to be compared with each other"
        )
    say(HEADING)
    measured = []
    for one in measure_settings(
        pipeline,
        ways,
        validation,
        network,
        sets=options.sets,
        seed=options.seed,
        batch_size=options.batch_size,
        agreement=classifier.accuracy,
    ):
        say(table_row(one))
        measured.append(one)
    return SamplingTuning(
        vqvae=pipeline.vqvae.weights_hash(),
        prior=weights_hash(pipeline.prior.state_dict()),
        feature_network=key,
        images_per_set=len(validation),
        seed=options.seed,
        floor=floor,
        measured=tuple(measured),
    )


def main() -> None:
    """Reads the options and tries."""
    options = parse(TuneSamplingOptions)
    directory = RunDirectory(options.run)
    directory.config()  # refuses early what is no run
    check_options(options)
    check_data(directory)
    path = directory.path / TUNING_FILE
    if path.is_dir():
        raise ValueError(f"{path} cannot be written, since it is a directory: move it away")

    from pipelines.evaluation.conditions import check_networks_folder
    from pipelines.generation.pipeline import GenerationPipeline
    from pipelines.report.page import write_report
    from pipelines.runs.messages import load_run_splits
    from pipelines.training.device import choose_device

    refuse_unwritable(directory.path)
    check_networks_folder(directory)
    device = choose_device(options.device)
    with directory.owned("measured", take_turns=True):
        pipeline = GenerationPipeline.from_pretrained(directory.path).to(device)
        num_samples = directory.data().num_images.validation
        ways = ways_to_try(options, pipeline.prior, num_samples)
        splits = load_run_splits(directory, options.data)
        tuning = tune(directory, options, pipeline, ways, splits)
        say(describe_choice(tuning))
        chosen = arguments(tuning.nearest.settings)
        say(f"next: python -m pipelines.evaluate {directory.option}{chosen}")
        tuning.write(path)
        say(f"wrote {path} and {write_report(directory.path, test=splits.test)}")


if __name__ == "__main__":
    run_command(main)
