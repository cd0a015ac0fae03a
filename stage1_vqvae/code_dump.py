"""Code grids of a whole data set on disk: one safetensors file per split and a `config.json`.

A dump is a directory:

    codes/config.json             format version, codebook sizes, hash of the VQ-VAE, other views
    codes/train.safetensors       codes.0 int32 (N, h, w), codes.1 ..., labels int64 (N,)
    codes/validation.safetensors
    codes/test.safetensors
    codes/train-NAME.safetensors  the same of another view of the training images, if there are any
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stage1_vqvae.model import VQVAE
from stage1_vqvae.safetensors_reader import utf8_path
from stage1_vqvae.safetensors_stream import SafetensorsWriter

FORMAT_VERSION = 1
KIND = "code_dump"
CONFIG_FILE = "config.json"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitCodes:
    """The codes of one split, in the order of its images."""

    codes: tuple[Tensor, ...]
    """int32 (N, h, w) per grid: half the memory of int64; convert a batch before using it."""
    labels: Tensor | None
    """int64 (N,), or None where the data has no labels."""

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.codes[0])


@dataclass(frozen=True)
class CodeDump:
    """All code grids of a data set and what made them."""

    splits: dict[str, SplitCodes]
    """By name: train, validation, test."""
    codebook_sizes: tuple[int, ...]
    """Per grid."""
    num_classes: int | None
    """Number of classes the labels come from; None without labels."""
    vqvae_hash: str
    """`VQVAE.weights_hash()` of the model that made the codes."""
    other_views: tuple[str, ...] = ()
    """Names of other views of the training images that were dumped too, for `read_other_views`."""

    @property
    def grid_shapes(self) -> tuple[tuple[int, int], ...]:
        """(h, w) per grid."""
        return tuple((c.shape[1], c.shape[2]) for c in self.splits["train"].codes)


def write_code_dump(
    directory: str | Path,
    model: VQVAE,
    splits: Mapping[str, tuple[int, Iterable[tuple[Tensor, Tensor | None]]]],
    num_classes: int | None,
    other_views: Mapping[str, tuple[int, Iterable[tuple[Tensor, Tensor | None]]]] | None = None,
) -> None:
    """Encodes every image and writes the codes to a new `directory`, whole or not at all.

    Only one batch and its codes are in memory at a time.

    Args:
        directory: Must not exist yet.
        model: Encodes the images, in evaluation mode.
        splits: For train, validation and test: the number of images N, and batches of uint8
            images (B, C, H, W) with int64 labels (B,) or None.
        num_classes: How many classes the labels come from; None without labels.
        other_views: Other views of the training images by name, each like a split.

    Raises:
        FileExistsError: `directory` exists; nothing is ever overwritten.
        ValueError: A split is missing, or it or a view has more or fewer images than announced.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(
            f"a new directory is required for the code dump, but {directory} exists: "
            "choose another path or remove it first"
        )
    if set(splits) != set(SPLITS):
        raise ValueError(f"the splits {', '.join(SPLITS)} are required, got {sorted(splits)}")
    other_views = other_views or {}
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
        model.eval()
        files = {**splits, **{_view_file(name): view for name, view in other_views.items()}}
        for name, (size, batches) in files.items():
            _write_split(partial / f"{name}.safetensors", model, size, batches, num_classes)
        config = {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "vqvae_sha256": model.weights_hash(),
            "codebook_sizes": list(model.codebook_sizes),
            "num_classes": num_classes,
            "num_images": {name: size for name, (size, _) in splits.items()},
            "other_views": list(other_views),
        }
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_code_dump(directory: str | Path) -> CodeDump:
    """Reads what `write_code_dump` wrote and checks that it is whole.

    Raises:
        FileNotFoundError: The directory or one of its files is missing.
        ValueError: A file is damaged, of another version, or holds impossible codes or labels.
    """
    directory = Path(directory)
    config = _read_config(directory)
    sizes, num_images = tuple(config["codebook_sizes"]), config["num_images"]
    splits = {
        name: _read_split(
            directory / f"{name}.safetensors", num_images[name], sizes, config["num_classes"]
        )
        for name in SPLITS
    }
    shapes = {tuple(grid.shape[1:] for grid in split.codes) for split in splits.values()}
    if len(shapes) > 1:
        raise ValueError(f"the splits in {directory} differ in grid shape: dump the codes again")
    return CodeDump(
        splits,
        sizes,
        config["num_classes"],
        config["vqvae_sha256"],
        tuple(config["other_views"]),
    )


def read_other_views(directory: str | Path, dump: CodeDump) -> Iterator[SplitCodes]:
    """The codes of the other views of the training images, in the order of `dump.other_views`.

    Args:
        directory: Where `read_code_dump` read `dump`.
        dump: What it read.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or does not belong to the dump.
    """
    directory, train = Path(directory), dump.splits["train"]
    for name in dump.other_views:
        path = directory / f"{_view_file(name)}.safetensors"
        view = _read_split(path, len(train), dump.codebook_sizes, dump.num_classes)
        shapes, labels = ([grid.shape for grid in view.codes], view.labels)
        same_labels = labels is None or train.labels is None or labels.equal(train.labels)
        if shapes != [grid.shape for grid in train.codes] or not same_labels:
            raise ValueError(
                f"{path} must have the shapes and labels of the training images' codes, but they "
                "differ: dump the codes again"
            )
        yield view


def _view_file(name: str) -> str:
    return f"train-{name}"


def _write_split(
    path: Path,
    model: VQVAE,
    size: int,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    num_classes: int | None,
) -> None:
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        f"codes.{i}": (torch.int32, (size, *shape)) for i, shape in enumerate(model.grid_shapes)
    }
    if num_classes is not None:
        layout["labels"] = (torch.int64, (size,))
    with SafetensorsWriter(path, layout) as writer:
        for images, labels in batches:
            rows = {f"codes.{i}": c.int().cpu() for i, c in enumerate(model.encode(images))}
            if num_classes is not None:
                if labels is None:
                    raise ValueError("labels are required where num_classes is given, got None")
                rows["labels"] = labels
            writer.append(rows)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"a code dump is required in {directory}, but {path} does not exist: "
            "run `python -m pipelines.dump_codes` first"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format_version"]
        known = {"vqvae_sha256", "codebook_sizes", "num_classes", "num_images"} <= config.keys()
        config.setdefault("other_views", [])  # older versions knew none
        known &= all(isinstance(name, str) for name in config["other_views"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): dump the codes again") from error
    if config.get("kind") != KIND or not known:
        raise ValueError(f"{path} must be the config of a code dump: dump the codes again")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{directory} has format version {version}, but this version of the software reads "
            f"{FORMAT_VERSION}: dump the codes again"
        )
    return dict(config)


def _read_split(
    path: Path, num_images: int, sizes: tuple[int, ...], num_classes: int | None
) -> SplitCodes:
    if not path.exists():
        raise FileNotFoundError(f"a code dump needs {path}, which is missing: dump the codes again")
    try:
        with utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
            codes = tuple(file.get_tensor(f"codes.{i}") for i in range(len(sizes)))
            labels = None if num_classes is None else file.get_tensor("labels")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): dump the codes again") from error
    for grid, codebook_size in zip(codes, sizes, strict=True):
        _require_layout(path, "codes", grid, (num_images, None, None), torch.int32)
        _require_range(path, "codes", grid, codebook_size)
    if labels is not None and num_classes is not None:
        _require_layout(path, "labels", labels, (num_images,), torch.int64)
        _require_range(path, "labels", labels, num_classes)
    return SplitCodes(codes, labels)


def _require_layout(
    path: Path, what: str, values: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype
) -> None:
    fits = values.ndim == len(shape) and all(
        expected in (None, size) for expected, size in zip(shape, values.shape, strict=True)
    )
    if not fits or values.dtype != dtype:
        raise ValueError(
            f"{what} in {path} must be {dtype} {shape} (None is any size), got {values.dtype} "
            f"{tuple(values.shape)}: dump the codes again"
        )


def _require_range(path: Path, what: str, values: Tensor, limit: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
        raise ValueError(
            f"{what} in {path} must be in [0, {limit}), got {int(values.min())} to "
            f"{int(values.max())}: dump the codes again"
        )
