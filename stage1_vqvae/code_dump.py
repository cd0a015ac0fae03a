"""Code grids of a whole data set on disk: one safetensors file per split and a `config.json`.

A dump is a directory:

    codes/config.json             a sealed record (see `records`), version 2: `CodeDumpRecord`
    codes/train.safetensors       codes.0 int32 (N, h, w), codes.1 ..., labels int64 (N,)
    codes/validation.safetensors
    codes/test.safetensors
    codes/train-NAME.safetensors  the same of another view of the training images

The record holds the hash of each of the other files, so that a change of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor

from stage1_vqvae.artifact import read_config
from stage1_vqvae.atomic_directory import atomic_directory, write_file
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.code_dump_record import SPLITS, CodeDumpRecord, require_view_name, view_file
from stage1_vqvae.config_checks import MAX_POSITIONS, require_between
from stage1_vqvae.quantizers.usage import code_counts, entropy_bits
from stage1_vqvae.records import encode_record
from stage1_vqvae.safetensors_reader import Layout, read_tensors, require_layout

FORMAT_VERSION = 2
KIND = "code_dump"
CONFIG_FILE = "config.json"
_CURE = "remove the codes and dump them again"

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor | None]]
"""uint8 images (B, C, H, W) with int64 labels (B,) or None."""


@dataclass(frozen=True)
class SplitCodes:
    """The codes of one split, in the order of its images."""

    codes: tuple[Tensor, ...]
    """int32 (N, h, w) per grid: half the memory of int64; convert a batch before using it."""
    labels: Tensor | None
    """int64 (N,), or None where the data has no labels."""

    def __len__(self) -> int:
        """Returns the number of images, N."""
        return len(self.codes[0])

    def rows(self, rows: slice | Tensor) -> SplitCodes:
        """Selects some images."""
        labels = None if self.labels is None else self.labels[rows]
        return SplitCodes(tuple(grid[rows] for grid in self.codes), labels)


@dataclass(frozen=True)
class CodeDump:
    """All code grids of a data set, and the model that made them."""

    splits: dict[str, SplitCodes]
    """By name: train, validation, test."""
    codebook_sizes: tuple[int, ...]
    """Per grid."""
    num_classes: int | None
    """Number of classes the labels come from; None without labels."""
    vqvae_hash: str
    """`weights_hash()` of the model that made the codes."""
    other_views: tuple[str, ...] = ()
    """Names of the other views of the training images, for `read_other_views`."""

    @property
    def grid_shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape (h, w) of each grid."""
        return tuple((c.shape[1], c.shape[2]) for c in self.splits["train"].codes)

    def order_0_entropy(self, split: str) -> float:
        """Computes the entropy of a split's code frequencies, in bits per code over all grids."""
        pairs = list(zip(self.splits[split].codes, self.codebook_sizes, strict=True))
        bits = sum(entropy_bits(code_counts(g, size)) * g[0].numel() for g, size in pairs)
        return bits / sum(grid[0].numel() for grid, _ in pairs)


def write_code_dump(
    directory: str | Path,
    model: ImageTokenizer,
    splits: Mapping[str, tuple[int, Batches]],
    num_classes: int | None,
    other_views: Mapping[str, tuple[int, Batches]] | None = None,
) -> None:
    """Encodes every image and writes the codes to a new `directory`, atomically.

    One batch of images and the codes of one split are in memory at a time.

    Args:
        directory: Must not exist yet.
        model: Encodes the images, in evaluation mode.
        splits: For train, validation and test: the number of images, and their batches.
        num_classes: How many classes the labels come from; None without labels.
        other_views: Other views of the training images by name, each like a split.

    Raises:
        FileExistsError: `directory` exists; nothing is ever overwritten.
        OSError: The disk is full or refuses.
        ValueError: A split is missing, it or a view has more or fewer images than announced, or
            the name of a view cannot be part of a file's.
    """
    if set(splits) != set(SPLITS):
        raise ValueError(f"the splits {', '.join(SPLITS)} are required, got {sorted(splits)}")
    other_views = other_views or {}
    for name in other_views:
        require_view_name(name)
    files = {**splits, **{view_file(name): view for name, view in other_views.items()}}
    model.eval()
    with atomic_directory(Path(directory)) as partial:
        hashes = {}
        for name, (size, batches) in files.items():
            path = partial / f"{name}.safetensors"
            hashes[name] = _write_hashed(
                path, save(_encode_split(path, model, size, batches, num_classes))
            )
        record = CodeDumpRecord(
            vqvae_sha256=model.weights_hash(),
            codebook_sizes=model.codebook_sizes,
            num_classes=num_classes,
            num_images={name: size for name, (size, _) in splits.items()},
            other_views=tuple(other_views),
            file_sha256=hashes,
        )
        config = encode_record(KIND, FORMAT_VERSION, asdict(record), sealed=True)
        write_file(partial / CONFIG_FILE, config)


def read_code_dump(directory: str | Path) -> CodeDump:
    """Reads and checks what `write_code_dump` wrote.

    Raises:
        FileNotFoundError: The directory or one of its files is missing.
        ValueError: A file is damaged, of another version, or holds impossible codes or labels.
    """
    directory = Path(directory)
    record = _read_record(directory)
    splits = {
        name: _read_split(directory, name, record, record.num_images[name]) for name in SPLITS
    }
    shapes = {tuple(grid.shape[1:] for grid in split.codes) for split in splits.values()}
    if len(shapes) > 1:
        raise ValueError(f"the splits in {directory} differ in grid shape: {_CURE}")
    return CodeDump(
        splits, record.codebook_sizes, record.num_classes, record.vqvae_sha256, record.other_views
    )


def read_other_views(directory: str | Path, dump: CodeDump) -> Iterator[SplitCodes]:
    """Yields the codes of the other views of the training images, as `dump.other_views`.

    Args:
        directory: Where `read_code_dump` read `dump`.
        dump: The codes of the splits.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or does not belong to the dump.
    """
    directory, train = Path(directory), dump.splits["train"]
    record = _read_record(directory)
    for name in record.other_views:
        view = _read_split(directory, view_file(name), record, len(train))
        shapes, labels = ([grid.shape for grid in view.codes], view.labels)
        same_labels = labels is None or train.labels is None or labels.equal(train.labels)
        if shapes != [grid.shape for grid in train.codes] or not same_labels:
            raise ValueError(
                f"the view {name} in {directory} must have the shapes and labels of the training "
                f"images' codes, but they differ: {_CURE}"
            )
        yield view


def _encode_split(
    path: Path, model: ImageTokenizer, size: int, batches: Batches, num_classes: int | None
) -> dict[str, Tensor]:
    """Encodes all batches to the tensors of the file at `path`."""
    tensors = {
        f"codes.{i}": torch.empty(size, *shape, dtype=torch.int32)
        for i, shape in enumerate(model.grid_shapes)
    }
    if num_classes is not None:
        tensors["labels"] = torch.empty(size, dtype=torch.int64)
    count = 0
    for images, labels in batches:
        start, count = count, count + len(images)
        if count > size:
            raise ValueError(f"{size} rows were announced for {path}, got more")
        rows = {f"codes.{i}": grid.int() for i, grid in enumerate(model.encode(images))}
        if num_classes is not None:
            if labels is None:
                raise ValueError("labels are required where num_classes is given, got None")
            rows["labels"] = labels
        for name, tensor in tensors.items():
            part = tensor[start:count]
            if (rows[name].dtype, rows[name].shape) != (part.dtype, part.shape):
                raise ValueError(
                    f"rows of {name} must be {part.dtype} {tuple(part.shape)}, got "
                    f"{rows[name].dtype} {tuple(rows[name].shape)}"
                )
            part.copy_(rows[name])
    if count != size:
        raise ValueError(f"{size} rows were announced for {path}, got {count}")
    return tensors


def _write_hashed(path: Path, content: bytes) -> str:
    """Writes a file; returns its hash."""
    write_file(path, content)
    return hashlib.sha256(content).hexdigest()


def _read_record(directory: Path) -> CodeDumpRecord:
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"a code dump is required in {directory}, but {path} does not exist: "
            "run `python -m pipelines.dump_codes` first"
        )
    return read_config(path, KIND, FORMAT_VERSION, CodeDumpRecord, cure=_CURE)


def _read_split(directory: Path, name: str, record: CodeDumpRecord, num_images: int) -> SplitCodes:
    path = directory / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"a code dump needs {path}, which is missing: {_CURE}")
    if _file_hash(path) != record.file_sha256[name]:
        raise ValueError(
            f"{path} was changed after it was written, or belongs to another dump (its hash "
            f"differs from that in {CONFIG_FILE}): {_CURE}"
        )
    grids = [f"codes.{i}" for i in range(len(record.codebook_sizes))]
    layout: Layout = dict.fromkeys(grids, ("I32", (num_images, None, None)))
    if record.num_classes is not None:
        layout = {**layout, "labels": ("I64", (num_images,))}
    shapes = require_layout(path, layout, cure=_CURE)
    for grid in grids:
        what = f"the codes of an image ({grid} in {path})"
        require_between(what, math.prod(shapes[grid][1:]), 1, MAX_POSITIONS)
    tensors = read_tensors(path)
    codes = tuple(tensors[grid] for grid in grids)
    for values, codebook_size in zip(codes, record.codebook_sizes, strict=True):
        _require_range(path, "codes", values, codebook_size)
    labels = tensors.get("labels")
    if labels is not None and record.num_classes is not None:
        _require_range(path, "labels", labels, record.num_classes)
    return SplitCodes(codes, labels)


def _require_range(path: Path, what: str, values: Tensor, limit: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
        raise ValueError(
            f"{what} in {path} must be in [0, {limit}), got {int(values.min())} to "
            f"{int(values.max())}: {_CURE}"
        )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
