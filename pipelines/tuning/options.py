"""Options of a search for sampling settings. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli.options import Device, SampleSeed, check_seed, require_positive
from pipelines.data.location import DataLocation
from pipelines.runs.directory import LATEST
from stage2_prior.sampling.settings import SamplingSettings

GUIDANCE_SCALES = (1.0, 1.25, 1.5)
# The scale is replaced by each that is tried; a schedule is only valid with one other than 1.
_DEFAULTS = SamplingSettings(guidance_scale=GUIDANCE_SCALES[-1], compile="auto")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneSamplingOptions:
    """Try temperatures and guidance scales, all with all, and print which samples are best.

    The samples are compared with the images of the validation split. So `evaluate`, which measures
    on the test split, measures the choice on images it was not made by. Writes sampling_tuning.json
    into the run directory, in place of an earlier one, and renews the run's report. `sample` takes
    the chosen settings for options that are not given.
    """

    run: Path = LATEST
    """Run directory with both models."""
    temperatures: tuple[float, ...] = (1.0, 1.1, 1.2)
    """Temperatures to try, instead of one temperature."""
    guidance_scales: tuple[float, ...] | None = None
    """Guidance scales to try, instead of one guidance-scale; None takes 1, 1.25 and 1.5 where the
    prior can be guided, else 1."""
    settings: Annotated[SamplingSettings, tyro.conf.arg(name="")] = field(
        default_factory=lambda: _DEFAULTS
    )
    """How codes are sampled otherwise."""
    sets: int = 2
    """Sets of samples per choice, each as large as the validation split. Their spread shows which
    differences are noise."""
    seed: SampleSeed = 0
    data: DataLocation = field(default_factory=DataLocation)
    """Where the run's images are now."""
    batch_size: int = 256
    """Samples made at once; memory grows with it."""
    device: Device = "auto"

    def check(self) -> None:
        """Refuses early, before any work, what cannot be tried."""
        require_positive(self, "sets", "batch_size")
        check_seed(self.seed)
        for name in ("temperature", "guidance_scale"):
            if getattr(self.settings, name) != getattr(_DEFAULTS, name):
                option = f"--{name}".replace("_", "-")
                raise ValueError(f"{option} is one of those that are tried: name it in {option}s")
        for name in ("temperatures", "guidance_scales"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(
                    f"{name} must name at least one value, each once, got "
                    f"{' '.join(map(str, values)) or 'none'}"
                )
        if 0 in self.temperatures:
            raise ValueError(
                "temperature 0 samples one image per class, which no distance between sets is "
                "meant for: leave it out"
            )
        schedule = self.settings.guidance_schedule
        unguided = set(self.guidance_scales or ()) == {self.settings.first_guidance_scale} == {1}
        if schedule != "constant" and unguided:
            raise ValueError(
                f"guidance_schedule {schedule} needs a guidance scale other than 1: name some with "
                "--guidance-scales, or leave the schedule out"
            )
        self.candidates(self.guidance_scales or GUIDANCE_SCALES)

    def candidates(self, guidance_scales: Sequence[float]) -> list[SamplingSettings]:
        """Lists every temperature with each of `guidance_scales`."""
        settings = self.settings
        # From 1 to 1 a schedule changes nothing, and would be refused.
        unguided = replace(
            settings, guidance_schedule="constant", guidance_power=1.0, first_guidance_scale=1.0
        )
        return [
            replace(
                unguided if {scale, settings.first_guidance_scale} == {1} else settings,
                temperature=temperature,
                guidance_scale=scale,
            )
            for temperature, scale in itertools.product(self.temperatures, guidance_scales)
        ]
