"""Loading of the three splits from any source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.data.cifar10 import load_cifar10
from pipelines.data.config import DataConfig, parse_source
from pipelines.data.folder import load_folder
from pipelines.data.form import describe_losses
from pipelines.data.image_set import DataSplits, ImageSet
from pipelines.data.mnist import FASHION_CLASSES, load_fashion_mnist, load_mnist
from pipelines.data.npz import read_npz
from pipelines.data.pixels import fit_images
from pipelines.data.splitting import GivenSplits, split
from pipelines.data.svhn import load_svhn
from pipelines.files.names import one_line, printable

EMBEDDED = Path(__file__).parent / "fashion_mnist_mini" / "fashion_mnist_mini.npz"
DOWNLOADABLE = {
    "fashion-mnist": load_fashion_mnist,
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "svhn": load_svhn,
}


def load_splits(config: DataConfig) -> DataSplits:
    """Loads the training, validation and test images of `config`.

    Raises:
        RuntimeError: The images do not fit into memory.
    """
    try:
        return _load(config)
    except MemoryError as error:
        raise RuntimeError(
            f"the images of {printable(config.source)} must fit into memory, but it is too short "
            f"({one_line(error)}): take fewer with --data.limit, or smaller ones"
        ) from error


def _load(config: DataConfig) -> DataSplits:
    kind, path = parse_source(config.source)
    if kind == "folder":
        assert path is not None
        return load_folder(path, config)
    given = _read_arrays(kind, path, config)
    parts = split(
        given,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        limit=config.limit,
    )
    train, validation, test = (
        fit_images(
            part if config.labels else replace(part, labels=None),
            config.form,
            config.channels,
        )
        for part in parts
    )
    height, width = given.train.image_shape[1:]
    count = len(train) + len(validation) + len(test)
    losses = describe_losses([(height, width)] * count, 0, config.form)
    class_names = given.class_names if config.labels else ()
    return DataSplits(train, validation, test, class_names, notes=tuple(losses))


def _read_arrays(kind: str, path: Path | None, config: DataConfig) -> GivenSplits[ImageSet]:
    """Reads a source that consists of whole arrays."""
    if kind == "fashion-mnist-mini":
        return read_npz(EMBEDDED, FASHION_CLASSES)
    if path is not None:
        return read_npz(path, max_memory_mib=config.max_memory_mib)
    return DOWNLOADABLE[kind](config.root, may_download=config.download)
