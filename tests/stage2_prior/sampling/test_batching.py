"""Batches of a sampling request, and rows that are padded."""

import pytest
import torch
from references import splitmix_uniform

from stage2_prior import SamplingSettings
from stage2_prior.sampling.batching import SamplingRequest, split_into_batches
from stage2_prior.sampling.padding import pad_rows


def request(num_known, compile_="off"):
    """Six codes of each image, of which the last so many are known."""
    count = len(num_known)
    turn = torch.arange(6).flip(0).expand(count, -1)
    return SamplingRequest(
        labels=torch.arange(count),
        context=10 * torch.arange(count)[:, None],
        codes=100 * torch.arange(count)[:, None] + torch.arange(6),
        known=turn < torch.tensor(num_known)[:, None],
        order=torch.arange(6)[None],
        settings=SamplingSettings(compile=compile_),
        seed=3,
        first_index=20,
    )


def test_batches_hold_all_images_once_those_of_equally_many_known_codes_together():
    num_known = [0, 2, 0, 6, 0, 2, 0]
    found = []
    for batch in split_into_batches(request(num_known), 3):
        rows = batch.rows.tolist()
        found.append((rows, batch.start.num_known))
        assert batch.labels.tolist() == rows
        assert batch.context[:, 0].tolist() == [10 * row for row in rows]
        assert batch.start.codes[:, 0].tolist() == [100 * row for row in rows]
        known = batch.start.num_known
        order = [*range(6 - known, 6), *range(6 - known)]  # known positions first
        assert batch.start.order.tolist() == [order]  # one for all images
        numbers = [[splitmix_uniform(3, 20 + row, t) for t in range(6)] for row in rows]
        assert batch.noise.block(0).tolist() == numbers
    assert found == [([0, 2, 4], 0), ([6], 0), ([1, 5], 2), ([3], 6)]


def test_compiled_batches_are_all_of_one_size():
    # A multiple of four, so that a row is rounded alike in all of them.
    batches = list(split_into_batches(request([0, 0, 0, 0, 0, 4], "on"), 3))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3, 4], [5]]
    # The first sample of each is repeated.
    assert [b.labels.tolist() for b in batches] == [[0, 1, 2, 0], [3, 4, 3, 3], [5, 5, 5, 5]]
    assert all(len(b.noise.block(0)) == len(b.start.codes) == 4 for b in batches)
    (small,) = split_into_batches(request([0, 0], "on"), 64)
    assert len(small.labels) == 4


def test_a_batch_without_labels_is_appended_for_guidance():
    (batch,) = split_into_batches(request([0, 0]), 3)
    doubled = batch.with_unlabelled_copies(null_label=9)
    assert doubled.labels.tolist() == [0, 1, 9, 9]
    assert doubled.context[:, 0].tolist() == [0, 10, 0, 10]
    assert torch.equal(doubled.start.codes, batch.start.codes.repeat(2, 1))
    assert doubled.noise is batch.noise


@pytest.mark.parametrize(("rows", "padded"), [(1, 4), (4, 4), (6, 8)])
def test_rows_are_padded_with_zeros_to_whole_fours(rows, padded):
    x = torch.ones(rows, 2, 3)
    result = pad_rows(x)
    assert result.shape == (padded, 2, 3)
    assert torch.equal(result[:rows], x)
    assert not result[rows:].any()
