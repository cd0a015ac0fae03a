import numpy as np
import pytest
import torch

from stage1_vqvae.quantizers import search
from stage1_vqvae.quantizers.search import code_sums, nearest_codes, unit_length


def brute_force(z, codebook):
    """Squared distances one pair at a time, in float64."""
    z, codebook = z.numpy().astype(np.float64), codebook.numpy().astype(np.float64)
    return np.array(
        [min(range(len(codebook)), key=lambda k: ((p - codebook[k]) ** 2).sum()) for p in z]
    )


@pytest.fixture
def recorded_blocks(monkeypatch):
    """The shapes of all score blocks that the search computes."""
    shapes = []
    mm = torch.mm

    def recording(*args, **options):
        result = mm(*args, **options)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(torch, "mm", recording)
    return shapes


@pytest.mark.parametrize("entries", [1 << 20, 35, 1], ids=["whole", "five rows", "one row"])
def test_nearest_codes_equals_brute_force(monkeypatch, entries):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", entries)
    z, codebook = torch.randn(53, 3), torch.randn(7, 3)
    np.testing.assert_array_equal(nearest_codes(z, codebook), brute_force(z, codebook))


@pytest.mark.parametrize("entries", [1 << 20, 8], ids=["whole", "two rows"])
def test_nearest_codes_takes_the_lowest_index_of_equally_near_codes(monkeypatch, entries):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", entries)
    # Small integers: every score is exact, so equally near codes tie exactly.
    codebook = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 1.0]])
    z = torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, -2.0], [5.0, 0.0], [-1.0, 0.0]])
    assert nearest_codes(z, codebook).tolist() == [1, 1, 2, 0, 1]


def test_nearest_codes_never_holds_more_than_one_block_of_scores(monkeypatch, recorded_blocks):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", 64)
    nearest_codes(torch.randn(1000, 2), torch.randn(10, 2))
    assert max(rows * codes for rows, codes in recorded_blocks) <= 64
    assert sum(rows for rows, _ in recorded_blocks) == 1000


def test_nearest_codes_of_a_codebook_above_the_block_goes_row_by_row(monkeypatch, recorded_blocks):
    monkeypatch.setattr(search, "_BLOCK_ENTRIES", 64)
    nearest_codes(torch.randn(5, 2), torch.randn(100, 2))
    assert recorded_blocks == [(1, 100)] * 5


def test_nearest_codes_of_what_is_no_number_are_codes_all_the_same():
    z = torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0], [1.0, 2.0]])
    codes = nearest_codes(z, torch.tensor([[0.0, 0.0], [1.0, 2.0], [5.0, 5.0]]))
    assert codes[2] == 1
    assert ((codes >= 0) & (codes < 3)).all()


def test_nearest_codes_of_no_points_is_empty():
    codes = nearest_codes(torch.empty(0, 2), torch.randn(3, 2))
    assert codes.shape == (0,)
    assert codes.dtype == torch.int64


def test_unit_length_keeps_the_direction():
    expected = torch.tensor([[0.6, -0.8], [0.0, 1.0]])
    torch.testing.assert_close(unit_length(torch.tensor([[3.0, -4.0], [0.0, 0.01]])), expected)


def test_code_sums_equals_a_sum_over_points():
    z, codes = torch.randn(40, 3), torch.randint(0, 5, (40,))
    sums = code_sums(z, codes, 6)
    expected_sums = np.zeros((6, 3))
    for point, code in zip(z.numpy().astype(np.float64), codes.tolist(), strict=True):
        expected_sums[code] += point
    # About ten float32 additions per code.
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-5, atol=1e-5)
