"""Precision, recall, density and coverage against the package of their authors."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc

from pipelines.evaluation.metrics import precision_recall as feature_neighbours
from pipelines.evaluation.metrics.precision_recall import precision_recall


def normal(count, dimension, shift=0.0, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)) + shift


@pytest.mark.parametrize("chunk", [1000, 7])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_figures_are_those_of_the_prdc_package(shift, k, chunk, monkeypatch, capsys):
    monkeypatch.setattr(feature_neighbours, "_CHUNK", chunk)
    real, generated = normal(60, 4), normal(45, 4, shift, seed=1)
    expected = compute_prdc(real_features=real, fake_features=generated, nearest_k=k)
    capsys.readouterr()
    found = precision_recall(torch.from_numpy(real), torch.from_numpy(generated), k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), abs=1e-12), name


def test_set_against_itself_has_everything():
    x = torch.from_numpy(normal(50, 3))
    found = precision_recall(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_sets_far_apart_have_nothing_in_common():
    found = precision_recall(
        torch.from_numpy(normal(50, 3)), torch.from_numpy(normal(50, 3, shift=100.0))
    )
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_samples_of_one_mode_are_precise_but_recall_little():
    # All generated images near one of two real clusters.
    real = np.concatenate([normal(100, 3), normal(100, 3, shift=50.0, seed=1)])
    found = precision_recall(torch.from_numpy(real), torch.from_numpy(normal(200, 3, seed=2)))
    assert found.precision > 0.8
    assert found.recall <= 0.5
    assert found.coverage <= 0.5


@pytest.mark.parametrize("shapes", [((5, 3), (9, 3)), ((9, 3), (5, 3)), ((9, 3), (9, 4))])
def test_too_few_images_or_other_features_are_refused(shapes):
    with pytest.raises(ValueError, match="two sets of more than 5 images each with features of"):
        precision_recall(*(torch.zeros(shape) for shape in shapes))
