import hashlib
from itertools import chain

import numpy as np
import pytest

from pipelines.data.splitting import GivenSplits, carve, fixed_permutation, split


class Numbers(list):
    """The simplest thing that can be split."""

    def take(self, indices):
        return Numbers(self[index] for index in indices)


def run(train, validation=None, test=None, **options):
    fractions = {"validation_fraction": 0.05, "test_fraction": 0.1}
    return split(GivenSplits(train, validation, test), **(fractions | options))


def test_fixed_permutation_holds_every_index_once():
    assert sorted(fixed_permutation(1000).tolist()) == list(range(1000))


def test_fixed_permutation_never_changes():
    digest = hashlib.sha256(fixed_permutation(10_000).astype("<i8").tobytes()).hexdigest()
    assert digest == "596e1d1d9e86499f8493999cd3232d936c9cb97d132a801985aeed8b86d0b956"


def test_split_is_disjoint_and_covers_everything():
    parts = run(Numbers(range(997)))
    assert sorted(chain(*parts)) == list(range(997))


def test_split_carves_the_test_split_first_and_validation_from_the_rest():
    # 0.1 of 1000, then 0.05 of the remaining 900.
    train, validation, test = run(Numbers(range(1000)))
    assert (len(train), len(validation), len(test)) == (855, 45, 100)


@pytest.mark.parametrize(
    ("count", "validated"),
    [
        *((3, 1), (5, 1), (50, 9), (199, 36), (200, 36), (223, 40), (500, 40), (888, 40)),
        # 5 % of what the test split leaves, as ever.
        *((889, 40), (1000, 45), (10_000, 450)),
    ],
)
def test_split_validates_on_40_images_of_small_sets_but_at_most_on_a_fifth(count, validated):
    parts = run(Numbers(range(count)), validation_fraction=None)
    assert len(parts[1]) == validated
    assert sum(map(len, parts)) == count


def test_split_keeps_a_given_test_split():
    train, validation, test = run(Numbers(range(100)), test=Numbers("abc"))
    assert sorted(test) == ["a", "b", "c"]
    assert sorted(train + validation) == list(range(100))


def test_split_keeps_a_given_validation_split():
    train, validation, test = run(Numbers(range(100)), validation=Numbers("abc"))
    assert sorted(validation) == ["a", "b", "c"]
    assert sorted(train + test) == list(range(100))


def test_split_validates_on_the_same_images_whatever_the_limit():
    _, all_validation, all_test = run(Numbers(range(1000)))
    train, validation, test = run(Numbers(range(1000)), limit=7)
    assert (validation, test) == (all_validation[:7], all_test[:7])
    assert len(train) == 7
    assert [len(part) for part in run(Numbers(range(20)), limit=1000)] == [17, 1, 2]


@pytest.mark.parametrize(
    ("given", "needed"),
    [({}, 3), ({"test": Numbers("t")}, 2), ({"test": Numbers("t"), "validation": Numbers("v")}, 1)],
)
def test_split_refuses_too_few_images(given, needed):
    message = f"at least {needed} images .*, got {needed - 1}"
    with pytest.raises(ValueError, match=message):
        run(Numbers(range(needed - 1)), **given)


def test_split_of_the_fewest_images_gives_one_each():
    assert [len(part) for part in run(Numbers(range(3)))] == [1, 1, 1]


def test_carve_refuses_to_leave_nothing():
    message = r"0\.9 of 4 .*data\.test_fraction"
    with pytest.raises(ValueError, match=message):
        carve(np.arange(4), 0.9, "test")
