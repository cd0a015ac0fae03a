"""Saved models and code dumps edited by hand, with hashes that hold again."""

import hashlib
import json

import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode


def sealed(record):
    """The file of a record: its last field is the hash of everything else."""
    return with_seal(json.dumps({**record, "sha256": ""}, indent=2) + "\n")


def with_seal(text):
    """Fills in the hash of a text that has an empty one."""
    head, tail = text.rsplit('"sha256": ""', 1)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return f'{head}"sha256": "{seal}"{tail}'.encode()


def edit_record(path, edit):
    """Edits a sealed record, and seals it again."""
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["sha256"]
    edit(record)
    path.write_bytes(sealed(record))


def edit_weights(directory, edit):
    """Edits the tensors of a saved model, and gives the config their hashes."""
    path = directory / "model.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path, metadata={"format": "pt"})
    edit_record(directory / "config.json", lambda record: record.update(hashes(path)))


def hashes(path):
    """The two hashes of a file of weights, from its bytes alone."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        dtype = {"F32": "torch.float32", "I64": "torch.int64"}.get(entry["dtype"], entry["dtype"])
        digest.update(f"{name} {dtype} {tuple(entry['shape'])}\n".encode())
        first, end = entry["data_offsets"]
        digest.update(content[start + first : start + end])
    return {
        "weights_sha256": digest.hexdigest(),
        "header_sha256": hashlib.sha256(content[:start]).hexdigest(),
    }


def edit_tensors(directory, name, edit):
    """Edits the tensors of a split or view of a code dump, and gives the config its hash."""
    path = directory / f"{name}.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_record(directory / "config.json", lambda c: c["file_sha256"].update({name: digest}))


class NoMemory(TorchFunctionMode):
    """Fails where a tensor of more than some KiB is made."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            assert result.nbytes < 50_000, f"{func} allocated {result.nbytes} bytes"
        return result
