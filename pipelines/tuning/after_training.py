"""The choice of sampling settings at the end of a training, in about a tenth of its time."""

from __future__ import annotations

import itertools

from pipelines.cli.echo import say
from pipelines.data.image_set import DataSplits
from pipelines.generation.pipeline import GenerationPipeline
from pipelines.runs.directory import RunDirectory
from pipelines.tuning.measurement import judge_of, measure_candidates
from pipelines.tuning.record import SamplingTuning, describe_settings
from stage2_prior.sampling.settings import SamplingSettings

_TEMPERATURES, _GUIDANCE_SCALES = (0.9, 1.0, 1.1), (1.0, 1.5)
# Fewer samples than 200 a setting give another order of the settings under every seed.
_SETS, _MIN_PER_SET, _MAX_PER_SET = 4, 50, 100
_MIN_IMAGES, _MAX_IMAGES = 20, 1000
# Sampling an image takes as long as training a prior on two or three.
_TRAINED_PER_SAMPLE = 10
_BATCH = 256


def choose_settings(
    directory: RunDirectory, pipeline: GenerationPipeline, splits: DataSplits, images_seen: int
) -> SamplingTuning | None:
    """Tries a few temperatures, and guidance where the prior can be guided, on validation images.

    The number of samples depends on `images_seen`, those of the prior's whole training even if it
    stopped early, and not on the time that anything takes: so the choice can be made again.

    Returns:
        What was measured; None if there are too few images.
    """
    prior = pipeline.prior
    scales = _GUIDANCE_SCALES if prior.can_guide else (1.0,)
    candidates = [
        SamplingSettings(temperature=temperature, guidance_scale=scale)
        for temperature, scale in itertools.product(_TEMPERATURES, scales)
    ]
    num_images = min(len(splits.validation), len(splits.train), _MAX_IMAGES)
    samples = images_seen // _TRAINED_PER_SAMPLE // len(candidates)
    per_set = min(samples // _SETS, _MAX_PER_SET)
    if num_images < _MIN_IMAGES or per_set < _MIN_PER_SET:
        say(
            f"sampling settings: not chosen, since {num_images:,} validation images (or a training "
            f"of {images_seen:,}) are too few; `tune_sampling` tries as much as is wanted"
        )
        return None
    tuning = measure_candidates(
        judge_of(directory.path, splits, next(prior.parameters()).device),
        pipeline,
        candidates,
        splits,
        num_images=num_images,
        images_per_set=per_set,
        sets=_SETS,
        seed=0,
        batch_size=_BATCH,
    )
    say(
        f"sampling settings: {describe_settings(tuning.settings)}, chosen on the validation split; "
        "`sample` takes them for options that are not given"
    )
    return tuning
