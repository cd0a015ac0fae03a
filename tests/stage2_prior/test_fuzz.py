"""Saved priors of strangers: refused in a sentence, or loaded; see `fuzzing`."""

import pytest
from fuzzing import check_cases
from tiny_priors import KINDS, make_prior

from stage2_prior import GridSpec, load_prior

GRIDS = (GridSpec(2, 3, 5), GridSpec(2, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_prior_is_refused_or_loaded(tmp_path, kind):
    prior = make_prior(kind, GRIDS, 3, (GridSpec(1, 2, 3),))
    prior.save_pretrained(tmp_path / "saved")
    outcomes = check_cases(kind, tmp_path / "saved", tmp_path / "work", load_prior)
    assert min(outcomes.values()) > 0  # mutations reach what is behind the seal
