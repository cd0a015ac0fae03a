"""What the options of an evaluation come to."""

import pytest

from pipelines.evaluation.settings import EvaluationSettings


@pytest.mark.parametrize(
    ("options", "num_real", "expected"),
    [
        ({}, 60_000, (10_000, 60_000, 2)),
        ({"cas_samples": 5000, "samples": 100}, 600, (100, 600, 2)),
        ({"quick": True}, 60_000, (2000, 4000, 1)),
        ({"quick": True, "samples": 100, "cas_samples": 50}, 60_000, (100, 50, 1)),
    ],
)
def test_numbers_of_images_and_seeds(options, num_real, expected):
    settings = EvaluationSettings(**options)
    assert (settings.side, settings.num_cas_samples(num_real), settings.seeds) == expected
