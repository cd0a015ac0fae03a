"""Rows on a device: the same from the whole copy and from the CPU's memory."""

import numpy as np
import pytest
import torch

from pipelines.training import rows
from pipelines.training.rows import DeviceRows, send

CPU = torch.device("cpu")
ARRAY = np.arange(7 * 2 * 3, dtype=np.uint8).reshape(7, 2, 3)


def memory_map(folder):
    path = folder / "rows.npy"
    np.save(path, ARRAY)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    "source",
    [lambda _: ARRAY, lambda _: torch.from_numpy(ARRAY), memory_map],
    ids=["array", "tensor", "map"],
)
def test_rows_are_those_of_the_source(source, resident, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_fits", lambda *_: resident)
    monkeypatch.setattr(rows, "_CHUNK_BYTES", 18)  # three rows, so that the last chunk has one
    found = DeviceRows(source(tmp_path), CPU)[torch.tensor([6, 0, 0, 3])]
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), ARRAY[[6, 0, 0, 3]])


@pytest.mark.parametrize(("free", "fits"), [(42 * 4, True), (42 * 4 - 1, False)])
def test_a_gpu_takes_what_fits_into_a_quarter_of_its_free_memory(free, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10**12))
    assert rows._fits(ARRAY, torch.device("cuda")) is fits


def test_nothing_is_copied_on_the_cpu():
    tensor = torch.ones(3)
    assert send(tensor, CPU) is tensor
    assert not rows._fits(ARRAY, CPU)
