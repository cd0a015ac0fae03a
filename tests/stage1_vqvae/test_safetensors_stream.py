import os
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stage1_vqvae.safetensors_stream import SafetensorsWriter

INTEGERS = {torch.int32: 2**31, torch.int64: 2**63}


def random_tensor(dtype, shape):
    limit = INTEGERS[dtype]
    return torch.randint(-limit, limit - 1, shape, dtype=dtype)


def write(path, tensors, sizes):
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with SafetensorsWriter(path, layout) as writer:
        start = 0
        for size in sizes:
            writer.append({name: t[start : start + size] for name, t in tensors.items()})
            start += size


@st.composite
def tensors_and_batches(draw):
    """Tensors with a common first axis, and how to cut it; grids may have no rows at all."""
    sizes = draw(st.lists(st.integers(0, 4), max_size=4))
    names = draw(
        st.lists(st.sampled_from(["codes.0", "codes.1", "labels"]), min_size=1, unique=True)
    )
    trailing = st.lists(st.integers(0, 3), max_size=2)
    return {
        name: random_tensor(draw(st.sampled_from(list(INTEGERS))), (sum(sizes), *draw(trailing)))
        for name in names
    }, sizes


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tensors_and_batches())
def test_writer_writes_what_the_library_reads(tmp_path_factory, case):
    tensors, sizes = case
    path = tmp_path_factory.mktemp("stream") / "rows.safetensors"
    write(path, tensors, sizes)
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("rows", [0, 3])
def test_writer_lays_tensors_where_the_library_does(tmp_path, rows):
    # Three int32 take 12 bytes: int64 behind them would not start at a multiple of 8.
    tensors = {"codes.0": random_tensor(torch.int32, (rows, 1, 1))}
    tensors["labels"] = random_tensor(torch.int64, (rows,))
    write(tmp_path / "stream", tensors, [rows])
    save_file(tensors, tmp_path / "library")

    def data(path):
        content = path.read_bytes()
        (header,) = struct.unpack("<Q", content[:8])
        return content[8 + header :]

    assert data(tmp_path / "stream") == data(tmp_path / "library")


def test_writer_aligns_every_tensor(tmp_path):
    tensors = {"codes.0": random_tensor(torch.int32, (3, 1)), "labels": torch.arange(3)}
    write(tmp_path / "file", tensors, [3])
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.get_tensor("labels").data_ptr() % 8 == 0


def test_writer_takes_rows_of_any_memory_layout(tmp_path):
    rows = random_tensor(torch.int32, (2, 3, 4)).transpose(1, 2)
    write(tmp_path / "file", {"codes.0": rows}, [1, 1])
    assert torch.equal(load_file(tmp_path / "file")["codes.0"], rows)


def test_writer_overwrites_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        SafetensorsWriter(tmp_path / "file", {"codes.0": (torch.int32, (1,))})
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"codes.0": torch.zeros(2, 3).int()}, r"rows of \['codes.0', 'labels'\] of one length"),
        (
            {"codes.0": torch.zeros(2, 3).int(), "labels": torch.zeros(1).long()},
            r"of one length are required, got .* of lengths \[1, 2\]",
        ),
        (
            {"codes.0": torch.zeros(2, 3), "labels": torch.zeros(2).long()},
            r"rows of codes.0 must be torch.int32 \(3,\), got torch.float32 \(3,\)",
        ),
        (
            {"codes.0": torch.zeros(2, 4).int(), "labels": torch.zeros(2).long()},
            r"rows of codes.0 must be torch.int32 \(3,\), got torch.int32 \(4,\)",
        ),
        (
            {"codes.0": torch.zeros(5, 3).int(), "labels": torch.zeros(5).long()},
            "codes.0 has 4 rows, got at least 5",
        ),
    ],
)
def test_writer_refuses_other_rows(tmp_path, rows, message):
    layout = {"codes.0": (torch.int32, (4, 3)), "labels": (torch.int64, (4,))}
    with (
        pytest.raises(ValueError, match=message),
        SafetensorsWriter(tmp_path / "file", layout) as writer,
    ):
        writer.append(rows)


def test_writer_refuses_too_few_rows(tmp_path):
    with (
        pytest.raises(ValueError, match=r"4 rows were announced for .*file, got 3"),
        SafetensorsWriter(tmp_path / "file", {"codes.0": (torch.int32, (4,))}) as writer,
    ):
        writer.append({"codes.0": torch.zeros(3).int()})


def test_writer_lets_an_exception_through(tmp_path):
    with (
        pytest.raises(KeyError, match="mine"),
        SafetensorsWriter(tmp_path / "file", {"codes.0": (torch.int32, (4,))}),
    ):
        raise KeyError("mine")


def test_writer_reserves_the_whole_file_at_once(tmp_path):
    with SafetensorsWriter(tmp_path / "file", {"codes.0": (torch.int32, (1000,))}) as writer:
        header = os.path.getsize(tmp_path / "file") - 4000  # noqa: PTH202
        assert 0 < header < 200
        writer.append({"codes.0": torch.zeros(1000).int()})
