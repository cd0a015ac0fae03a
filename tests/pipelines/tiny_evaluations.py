"""Evaluations that nothing was measured for."""

from pipelines.evaluation.record import EvaluationConditions
from pipelines.evaluation.settings import EvaluationSettings


def conditions(**changes):
    """Conditions of an evaluation, with some fields changed."""
    fields = {
        "settings": EvaluationSettings(samples=100),
        "data_fingerprint": "0123456789abcdef",
        "vqvae": "1" * 16,
        "prior": "2" * 16,
        "feature_networks": {"classifier": "0123-4567"},
    }
    return EvaluationConditions(**(fields | changes))
