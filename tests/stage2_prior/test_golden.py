"""Priors saved by an earlier version still load and give what they gave (see make_golden.py)."""

import json

import pytest
import torch
from make_golden import GOLDEN, GRIDS, NUM_CLASSES, SETTINGS
from tiny_priors import KINDS

from stage2_prior import load_prior

EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
LABELS = torch.tensor(EXPECTED["labels"])


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def prior(kind):
    return load_prior(GOLDEN / kind)


def test_golden_prior_has_its_kind_grids_and_classes(prior, kind):
    assert (prior.config.kind, prior.grids, prior.num_classes) == (kind, GRIDS, NUM_CLASSES)
    assert (prior.spec.context, prior.any_order) == ((), False)


def test_golden_prior_gives_the_same_log_prob(prior, kind):
    codes = tuple(torch.tensor(grid) for grid in EXPECTED["codes"])
    for name, labels in (("log_prob", LABELS), ("log_prob_without_labels", None)):
        # Float32 logits of order 10 on any machine, summed over 12 codes.
        expected = torch.tensor(EXPECTED[name][kind], dtype=torch.float64)
        torch.testing.assert_close(prior.log_prob(codes, labels), expected, rtol=0, atol=1e-4)


def test_golden_prior_samples_the_same_codes(prior, kind):
    for name, settings in (("samples", None), ("samples_with_settings", SETTINGS)):
        codes = prior.sample(4, LABELS, settings, seed=11, first_index=5)
        assert [grid.tolist() for grid in codes] == EXPECTED[name][kind]
