"""Checks of what may not change between a stop and its resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.files.records import to_json
from pipelines.runs.config import RunConfig, deciding, differences

if TYPE_CHECKING:
    from pipelines.data.data_record import DataRecord

_OF_STAGE_TWO = ("prior", "prior_training", "prior_from")


def changed_settings(old: RunConfig, new: RunConfig, *, with_prior: bool) -> list[str]:
    """Returns the deciding settings that differ, as `--seed was 0, is now 1`.

    Those of stage two count only `with_prior`, that is once it has begun.
    """
    before, now = deciding(old.to_dict()), deciding(new.to_dict())
    if not with_prior:
        for name in _OF_STAGE_TWO:
            del before[name], now[name]
    return differences(before, now)


def changed_data(
    old: DataRecord, new: DataRecord, old_config: RunConfig, new_config: RunConfig
) -> list[str]:
    """Lists differences between two sets of images, with their locations; empty for equal ones."""
    found = differences(to_json(old), to_json(new), "data ")
    if not found:
        return []
    before, now = ({"source": config.data.source} for config in (old_config, new_config))
    return [
        *(difference.removeprefix("--") for difference in found),
        *differences(before, now, "data."),
    ]
