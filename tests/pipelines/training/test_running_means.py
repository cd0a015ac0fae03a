import pytest
import torch

from pipelines.training.running_means import RunningMeans


def window_over(values, folds):
    window = RunningMeans()
    for index, value in enumerate(values):
        window.add({"loss": torch.tensor(value)})
        if index in folds:
            window.fold()
    return window


def test_window_gives_the_mean_of_each_metric():
    window = window_over([1.0, 2.0, 6.0], folds=())
    window.add({"other": torch.tensor(5.0)})  # in one step only
    assert window.take_means() == {"loss": 3.0, "other": 5.0}


@pytest.mark.parametrize("folds", [(3, 4), range(40)])
def test_window_means_do_not_depend_on_where_it_was_folded(folds):
    values = torch.rand(40, generator=torch.Generator().manual_seed(0)).tolist()
    whole = window_over(values, folds=()).take_means()
    assert window_over(values, folds).take_means() == whole


def test_window_starts_empty_after_taking_the_means():
    window = window_over([1.0, 3.0], folds=())
    window.take_means()
    window.add({"loss": torch.tensor(9.0)})
    assert window.take_means() == {"loss": 9.0}


def test_window_of_nothing_is_empty():
    assert RunningMeans().take_means() == {}
