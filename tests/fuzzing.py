"""Mutations of saved directories that know their structure: bits, lengths, JSON values, headers."""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
from contextlib import contextmanager, suppress
from copy import deepcopy

from sealing import edit_record, hashes, with_seal

CASES = int(os.environ.get("FUZZ_CASES", "100"))
"""How many mutations are tried of each saved directory."""
_SECONDS = 20
_MEBIBYTES = 200

_VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**53 + 1, 2**63, -(2**63), 10**10, 10**40,
    10**400, 0.0, -0.0, 1.0, 4.0, 27.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"),
    "", "ema", "mse", "0" * 64, "a\nb", "\ud800", "x" * 1000, "../../x", [], [[]], [0], [1, 1], {},
    {"kind": "ema"}, [{}] * 300, "1e999", "[.]", "[..]", "[...]",
]  # fmt: skip
# Texts of JSON that Python's own values cannot give.
_TEXTS = {'"1e999"': "1e999"}
_TEXTS |= {f'"[{"." * i}]"': "[" * n + "]" * n for i, n in ((1, 250), (2, 900), (3, 5000))}
_TYPES = ["F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "X9"]
_SIZES = [0, 1, 2, 3, 7, 2**20, 2**31, 2**40, 2**62, 2**63, 2**64, -1, 1.5, None, "1"]


def check_cases(seed, original, work, load):
    """Makes sure that mutated copies of a saved directory are refused, or loaded as what they say.

    A mutation that leaves a hash broken must be refused; one whose hashes hold again may be loaded.
    To be refused is one line of a ValueError, TypeError or OSError, soon and in little memory.

    Args:
        seed: Of the mutations.
        original: The directory.
        work: Where the copies are made.
        load: Called with each.

    Returns:
        How many of the mutations whose hashes hold were refused, and how many were loaded.
    """
    numbers = random.Random(seed)
    before = _peak_memory()
    outcomes = {"refused": 0, "loaded": 0}
    for case in range(CASES):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(original, work)
        hashes_hold, done = _mutate(numbers, work)
        what = f"case {case} of seed {seed}: {done}"
        unchanged = all(p.read_bytes() == (work / p.name).read_bytes() for p in original.iterdir())
        refusal = _refusal(load, work, what)
        assert refusal is not None or hashes_hold or unchanged, f"loaded {what}"
        assert refusal is None or re.fullmatch(".{10,2000}", refusal), f"{what}: {refusal}"
        outcomes["refused" if refusal else "loaded"] += hashes_hold
    grown = _peak_memory() - before
    assert grown < _MEBIBYTES, f"the process grew by {grown} MiB"
    return outcomes


def _refusal(load, path, what):
    """What the error says that a user may see; None where there is none."""
    try:
        with _time_limit():
            load(path)
    except (ValueError, TypeError, OSError) as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    return None


@contextmanager
def _time_limit():
    def stop(_signal, _frame):
        raise RuntimeError(f"it takes more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak_memory():
    """Of the process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)


def _mutate(numbers, directory):
    """Changes one file; whether the hashes hold again, and what was done."""
    path = numbers.choice(sorted(directory.iterdir()))
    kind = numbers.choice(["bits", "cut", "content", "content", "sealed", "sealed", "sealed"])
    if kind == "bits":
        return False, _flip_bits(numbers, path)
    if kind == "cut":
        return False, _cut(numbers, path)
    if path.suffix == ".json":
        return kind == "sealed", _edit_json(numbers, path, seal=kind == "sealed")
    done = _edit_header(numbers, path)
    if kind == "sealed":
        edit_record(directory / "config.json", lambda record: _update_hashes(record, path))
    return kind == "sealed", done


def _flip_bits(numbers, path):
    content = bytearray(path.read_bytes())
    positions = numbers.sample(range(len(content)), numbers.choice([1, 1, 1, 2, 8]))
    for position in positions:
        content[position] ^= 1 << numbers.randrange(8)
    path.write_bytes(content)
    return f"bits of {path.name} at {positions}"


def _cut(numbers, path):
    content = path.read_bytes()
    size = numbers.randrange(len(content))
    tail = numbers.choice([b"", b"", bytes(len(content) - size), content])
    path.write_bytes(content[:size] + tail)
    return f"{path.name} cut at {size}, and {len(tail)} bytes added"


def _edit_json(numbers, path, *, seal):
    record = json.loads(path.read_text(encoding="utf-8"))
    old_seal = record.pop("sha256")
    done = [_replace_value(numbers, record) for _ in range(numbers.choice([1, 1, 1, 2]))]
    text = json.dumps({**record, "sha256": "" if seal else old_seal}, indent=2) + "\n"
    for written, meant in _TEXTS.items():
        text = text.replace(written, meant)
    path.write_bytes(with_seal(text) if seal else text.encode())
    return f"{path.name}: {done}"


def _replace_value(numbers, record):
    """Replaces, adds or removes one value, at any depth."""
    places = list(_places(record))
    container, key, path = numbers.choice(places)
    action = numbers.choice(["replace"] * 8 + ["remove", "add"])
    if action == "remove":
        del container[key]
    elif action == "add" and isinstance(container, dict):
        container["added"] = deepcopy(numbers.choice(_VALUES))
    else:
        container[key] = deepcopy(numbers.choice([*_VALUES, _near(numbers, container[key])]))
        return path, repr(container[key])[:40]
    return path, action


def _near(numbers, value):
    """A value of the same type, not far away."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return numbers.choice([value + 1, value - 1, value * 2, value * 1000, -value, float(value)])
    if isinstance(value, list):
        return numbers.choice([value * 2, value[:-1], value * 300])
    return value


def _places(container, path=""):
    """(container, key, path) of every value in nested dictionaries and lists."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in list(items):
        yield container, key, f"{path}.{key}"
        if isinstance(value, dict | list):
            yield from _places(value, f"{path}.{key}")


def _edit_header(numbers, path):
    """Changes the header of a safetensors file, or the values of its tensors."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), bytearray(content[start:])
    names = [name for name in header if name != "__metadata__"]
    name = numbers.choice(names)
    entry = header[name]
    action = numbers.choice(
        ["dtype", "shape", "offsets", "name", "remove", "add", "metadata", "blanks", "length",
         "twice", "data", "order", "value"]
    )  # fmt: skip
    length = None
    if action == "dtype":
        entry["dtype"] = numbers.choice(_TYPES)
    elif action == "shape":
        shape = entry["shape"]
        position = numbers.randrange(len(shape) + 1)
        shape[position : position + numbers.randrange(2)] = [numbers.choice(_SIZES)]
    elif action == "offsets":
        entry["data_offsets"][numbers.randrange(2)] = numbers.choice([*_SIZES, len(data)])
    elif action == "name":
        header[numbers.choice(["x\ny", "", name * 50, names[0]])] = header.pop(name)
    elif action == "remove":
        del header[name]
    elif action == "add":
        header["extra"] = numbers.choice([entry, {}, 5, None, entry | {"data_offsets": [0, 0]}])
    elif action == "metadata":
        header["__metadata__"] = numbers.choice([{"a": "b"}, {"a": 5}, [], "x" * 10**5])
    elif action == "value":
        entry[numbers.choice(list(entry))] = deepcopy(numbers.choice(_VALUES))
    elif action == "order":
        header = dict(sorted(header.items(), reverse=True))
    elif action == "length":
        length = numbers.choice([0, 1, 7, len(content), 10**8, 2**40, 2**63, 2**64 - 1])
    elif action == "data" and data:
        special = struct.pack("<f", numbers.choice([float("nan"), float("inf"), 1e38, -1.0]))
        position = numbers.randrange(0, len(data), 4)
        data[position : position + 4] = special
    text = json.dumps(header).encode()
    if action == "twice":
        text = text[:-1] + b"," + text[1:]
    text += b" " * (-len(text) % 8 + (numbers.choice([8, 10**5]) if action == "blanks" else 0))
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return f"header of {path.name}: {action} of {name}"


def _update_hashes(record, path):
    if "file_sha256" in record:
        record["file_sha256"][path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
        return
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # no such header
        record.update(hashes(path))
