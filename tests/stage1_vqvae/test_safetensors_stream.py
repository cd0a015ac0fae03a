import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stage1_vqvae.safetensors_stream import stream_safetensors

INTEGERS = {torch.int32: 2**31, torch.int64: 2**63}


def random_tensor(dtype, shape):
    limit = INTEGERS[dtype]
    return torch.randint(-limit, limit - 1, shape, dtype=dtype)


def layout_of(tensors):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def write(path, tensors, sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    batches = (
        {name: t[start : start + size] for name, t in tensors.items()}
        for start, size in zip(starts, sizes, strict=True)
    )
    stream_safetensors(path, layout_of(tensors), batches)


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
        write(tmp_path / "file", {"codes.0": torch.zeros(1).int()}, [1])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (torch.zeros(2, 3).int(), torch.zeros(1).long(), r"labels must be torch.int64 \(2,\), got"),
        (torch.zeros(2, 3), torch.zeros(2).long(), r"codes.0 must be torch.int32 .* torch.float32"),
        (torch.zeros(2, 4).int(), torch.zeros(2).long(), r"\(2, 3\), got torch.int32 \(2, 4\)"),
        (torch.zeros(5, 3).int(), torch.zeros(5).long(), "4 rows were announced for .*file, got"),
        (torch.zeros(3, 3).int(), torch.zeros(3).long(), "4 rows were announced for .*file, got 3"),
    ],
    ids=["lengths", "dtype", "shape", "too many", "too few"],
)
def test_writer_refuses_other_rows(tmp_path, codes, labels, message):
    layout = {"codes.0": (torch.int32, (4, 3)), "labels": (torch.int64, (4,))}
    with pytest.raises(ValueError, match=message):
        stream_safetensors(tmp_path / "file", layout, [{"codes.0": codes, "labels": labels}])


def test_writer_reserves_the_whole_file_at_once(tmp_path):
    sizes = []

    def rows():
        sizes.append((tmp_path / "file").stat().st_size)
        yield {"codes.0": torch.zeros(1000).int()}

    stream_safetensors(tmp_path / "file", {"codes.0": (torch.int32, (1000,))}, rows())
    assert 0 < sizes[0] - 4000 < 200
