"""What the tests of the report share."""

import pytest
from tiny_evaluations import conditions

from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.evaluation.settings import EvaluationSettings
from stage1_vqvae.model import VQVAE
from stage2_prior.pretrained import load_prior
from stage2_prior.sampling.settings import SamplingSettings


@pytest.fixture(scope="session")
def evaluation(rgb_run):
    """Makes an evaluation of one metric of `rgb_run`, with some fields changed."""
    prior = load_prior(rgb_run / "prior")
    made_with = conditions(
        settings=EvaluationSettings(samples=1234, sampling=SamplingSettings(temperature=0.9)),
        vqvae=VQVAE.from_pretrained(rgb_run / "vqvae").weights_hash()[:16],
        prior=prior.weights_hash()[:16],
    )

    def make(**changes):
        metric = Metric(
            group="generation",
            name="fd_classifier",
            label="FD-classifier",
            value=8.0312,
            std=0.1234,
            repetitions=3,
            unit="",
            better="lower",
            explanation="How far samples <are> from real images.",
            num_images=1234,
            references=(Reference(label="train & test", value=0.402),),
        )
        record = {
            "run": "run",
            "conditions": made_with,
            "metrics": (metric,),
            "notes": ("FID was not measured: no weights",),
            "seconds": {"classifier": 61.0},
            "environment": {"torch": "2.9"},
        }
        return Evaluation(**(record | changes))

    return make
