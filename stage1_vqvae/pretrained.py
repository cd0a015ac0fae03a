"""Loading a saved image tokenizer of any class."""

from __future__ import annotations

from pathlib import Path

from stage1_vqvae.artifact import CONFIG_FILE, FORMAT_VERSION, read_config
from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.model import VQVAE
from stage1_vqvae.records import parse_object

_TOKENIZERS: dict[str, type[ImageTokenizer]] = {cls.artifact_kind: cls for cls in (VQVAE,)}
_MAX_CONFIG_BYTES = 1 << 16


def load_tokenizer(directory: str | Path) -> ImageTokenizer:
    """Loads what `ImageTokenizer.save_pretrained` wrote, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The files are damaged, of an unknown kind, or do not belong together.
    """
    return _class_of(Path(directory)).from_pretrained(directory)


def recorded_hash(directory: str | Path) -> str:
    """Returns the `weights_hash` of a saved tokenizer from its `config.json`.

    Raises:
        FileNotFoundError: There is no config.
        ValueError: It is damaged or of an unknown kind.
    """
    cls, path = _class_of(Path(directory)), Path(directory) / CONFIG_FILE
    cure = "restore it or train the model again"
    record = read_config(path, cls.artifact_kind, FORMAT_VERSION, cls.record_type, cure=cure)
    return record.weights_sha256


def _class_of(directory: Path) -> type[ImageTokenizer]:
    """Returns the class of a saved tokenizer; `VQVAE`, which refuses it, if it has none."""
    try:
        with (directory / CONFIG_FILE).open("rb") as file:
            kind = parse_object(file.read(_MAX_CONFIG_BYTES)).get("kind")
    except (OSError, ValueError):
        return VQVAE
    return _TOKENIZERS.get(str(kind), VQVAE)
