"""What the tests of the report share."""

import pytest

from pipelines.evaluation.evaluation_record import Evaluation, Figure, Reference


@pytest.fixture(scope="session")
def evaluation():
    """Makes an evaluation of one figure, with some fields changed."""

    def make(**changes):
        figure = Figure(
            group="generation",
            name="fd_classifier",
            label="FD-classifier",
            value=8.0312,
            spread=0.1234,
            repetitions=3,
            unit="",
            better="lower",
            explanation="How far samples <are> from real images.",
            num_images=1234,
            references=(Reference(label="train & test", value=0.402),),
        )
        record = {
            "run": "run",
            "settings": {"samples": 1234, "sampling": {"temperature": 0.9, "top_k": None}},
            "figures": (figure,),
            "notes": ("FID was not measured: no weights",),
            "seconds": {"classifier": 61.0},
            "environment": {"torch": "2.9"},
        }
        return Evaluation(**(record | changes))

    return make
