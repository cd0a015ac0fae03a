"""Every record of a run, damaged at random: it is read or refused in one line, and nothing else.

A checkpoint must never be taken with a change that its seal does not cover. Each case is a function
of its number; FUZZ_CASES=7000 in the environment tries more of them than the default.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tiny_evaluations import conditions

from pipelines.evaluation.record import Evaluation, Metric, Reference
from pipelines.files.records import write_record
from pipelines.generation.record import PipelineRecord, read_pipeline_record
from pipelines.runs.directory import RunDirectory
from pipelines.runs.recipes import RECIPES
from pipelines.sweeps.directory import SweepConfig, SweepDirectory, SweepRun
from pipelines.sweeps.row import SweepRow
from pipelines.training.checkpoint import CheckpointStore
from pipelines.training.metrics_log import MetricsRow, read_metrics
from pipelines.tuning.record import MeasuredSettings, SamplingTuning
from stage1_vqvae.records import encode_record
from stage2_prior.sampling.settings import SamplingSettings

CASES = int(os.environ.get("FUZZ_CASES", "400"))
STRANGE = [
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, -1e308, 5e-324),
    *(math.nan, math.inf, "", "0", "nan", "inf", "x" * 5000, "a\nb", "\ud800", "\0", [], {}),
    *([[]], [None], [0, 1, 2], {"": 0}, {"kind": "ema"}, {"a\nb": {}}),
    *(f"NESTED {depth}" for depth in (50, 300, 980, 100_000)),
]


@dataclass
class Target:
    """A record on the disk, and how it is read."""

    path: Path
    read: Callable[[], object]
    content: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.content = self.path.read_bytes()


@pytest.fixture(scope="module")
def run(rgb_run, tmp_path_factory):
    """A run with every record that there is."""
    run = tmp_path_factory.mktemp("fuzz") / "run"
    shutil.copytree(rgb_run, run)
    metric = Metric(
        group="reconstruction", name="psnr", label="PSNR", value=math.inf, unit="dB",
        better="higher", explanation="How near.", num_images=6, std=0.5, repetitions=2,
        references=(Reference(label="floor", value=1.5),),
    )  # fmt: skip
    Evaluation(
        run="rgb", conditions=conditions(), metrics=(metric,), notes=("a note",),
        seconds={"prior": 1.5}, environment={"torch": "2.9"},
    ).write(run / "evaluation.json")  # fmt: skip
    SamplingTuning(
        vqvae="1" * 64, prior="2" * 64, metric="KD-classifier", feature_network="a",
        num_images=5, images_per_set=5, seed=0, floor=0.5,
        measured=(MeasuredSettings(SamplingSettings(top_k=3), (1.5, 2.5), 0.75),),
    ).write(run / "sampling_tuning.json")  # fmt: skip
    sweep = SweepConfig(
        quantizers=("ema",), codebook_sizes=(64, 256), with_prior=True, run=RECIPES["smoke"]
    )
    SweepDirectory(run).begin(sweep, "fp32")
    swept(run).write_row(
        SweepRow(
            kind="ema",
            codebook_size=64,
            codebook_sizes=(64,),
            values={"psnr": math.inf, "ssim": 0.5},
        )
    )
    classes = PipelineRecord(class_names=("cat", "dog"), train_images_per_class=(3, 4))
    write_record(run / "pipeline.json", "pipeline", 1, classes, sealed=True)
    return run


def swept(run):
    return SweepRun(kind="ema", size=64, config=RECIPES["smoke"], directory=RunDirectory(run))


@pytest.fixture(scope="module")
def targets(run):
    """Records that are either read or refused."""
    evaluation, tuning = run / "evaluation.json", run / "sampling_tuning.json"
    return [
        Target(run / "config.json", RunDirectory(run).config),
        Target(evaluation, lambda: Evaluation.read(evaluation)),
        Target(tuning, lambda: SamplingTuning.read(tuning)),
        Target(run / "sweep.json", SweepDirectory(run).precision),
        Target(run / "sweep_row.json", swept(run).read_row),
        Target(run / "pipeline.json", lambda: read_pipeline_record(run)),
    ]


def places(value, path=()):
    """The path of every value in a JSON document, the whole being at ()."""
    yield path
    if isinstance(value, dict | list):
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(member, (*path, name))


def strange(dice):
    """Of the strange values one of its own, which may be changed further."""
    return deepcopy(dice.choice(STRANGE))


def change_structure(content, dice):
    """Changes one to three values of a JSON document: another value, another name, one less."""
    document = json.loads(content)
    for _ in range(dice.randint(1, 3)):
        path = dice.choice([p for p in places(document) if p])
        parent = document
        for name in path[:-1]:
            parent = parent[name]
        action = dice.choice(["replace", "replace", "remove", "add", "copy", "nudge", "nudge"])
        value = parent[path[-1]]
        if action == "remove":
            del parent[path[-1]]
        elif action == "add" and isinstance(parent, dict):
            parent[dice.choice(["extra", "kind", "step", "a\nb", ""])] = strange(dice)
        elif action == "copy":
            source = document
            for name in dice.choice(list(places(document))):
                source = source[name]
            parent[path[-1]] = deepcopy(source)
        elif action == "nudge" and type(value) in (int, float) and abs(value) < 1e300:
            parent[path[-1]] = value + dice.choice([-1, 1])
        else:
            parent[path[-1]] = strange(dice)
    text = json.dumps(document, indent=2) + "\n"
    for depth in (50, 300, 980, 100_000):
        text = text.replace(f'"NESTED {depth}"', "[" * depth + "]" * depth)
    return text.encode()


def change_bytes(content, dice):
    """Flips bits, changes a digit, cuts the end off, or puts some bytes in."""
    altered = bytearray(content)
    action = dice.choice(["flip", "digit", "cut", "insert"])
    if action == "flip":
        for _ in range(dice.choice([1, 1, 2, 8])):
            altered[dice.randrange(len(altered))] ^= 1 << dice.randrange(8)
    elif action == "digit":
        altered[dice.choice([i for i, byte in enumerate(altered) if byte in b"0123456789"])] ^= 1
    elif action == "cut":
        del altered[dice.randrange(len(altered)) :]
    else:
        place = dice.randrange(len(altered))
        strange = [b"\0", b"\xff", b"\n", b"[" * 100_000, b"NaN", bytes(altered[:50])]
        altered[place:place] = dice.choice(strange)
    return bytes(altered)


def changed(content, dice):
    return dice.choice([change_structure, change_bytes])(content, dice)


def sealed_again(content):
    """The record with the seal that belongs to its content; as it is where it has no fields."""
    try:
        record = json.loads(content)
        kind, version = record.pop("kind"), record.pop("format_version")
        record.pop("sha256", None)
        return encode_record(kind, version, record, sealed=True)
    except (ValueError, KeyError, AttributeError, RecursionError):
        return content


@contextmanager
def replaced(path, altered):
    content = path.read_bytes()
    path.write_bytes(altered)
    try:
        yield
    finally:
        path.write_bytes(content)


def refusal_of(target):
    """The sentence that a record is refused with; None for one that is read."""
    try:
        target.read()
    except (ValueError, OSError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("first", range(0, CASES // 2, 10))
def test_damaged_record_is_read_or_refused_in_one_line(first, targets):
    for case in range(first, first + 10):
        target, dice = targets[case % len(targets)], random.Random(case)
        altered = changed(target.content, dice)
        if b'"sha256"' in target.content and dice.random() < 0.7:
            altered = sealed_again(altered)
        with replaced(target.path, altered):
            refusal = refusal_of(target)
        assert refusal is None or str(target.path) in refusal, case
        assert refusal is None or "\n" not in refusal, case


@pytest.mark.parametrize("first", range(0, CASES // 4, 10))
def test_damaged_metrics_are_read_as_far_as_they_are_sound(first, run):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    for case in range(first, first + 10):
        dice = random.Random(case)
        number = dice.randrange(len(lines))
        line = changed(lines[number], dice).replace(b"\n", b"")
        with replaced(path, b"\n".join([*lines[:number], line, *lines[number + 1 :]])):
            rows = read_metrics(path)
        # The line may count as a newer one of another.
        assert len(lines) - 2 <= len(rows) <= len(lines), case
        assert all(type(row) is MetricsRow for row in rows), case


@pytest.mark.parametrize("first", range(0, CASES // 4, 10))
def test_damaged_checkpoint_is_never_taken_for_the_one_that_was_saved(first, run):
    store = CheckpointStore(run / "checkpoints" / "prior")
    before, newest = store.steps()
    saved = sorted(store.path(newest).iterdir())
    for case in range(first, first + 10):
        dice = random.Random(case)
        path = dice.choice([*saved, *[store.path(newest) / "state.json"] * 3])
        content = path.read_bytes()
        is_state = path.name == "state.json"
        altered = changed(content, dice) if is_state else change_bytes(content, dice)
        sealed = is_state and dice.random() < 0.5
        if sealed:
            altered = sealed_again(altered)
        if altered == content:
            continue
        with replaced(path, altered):
            step = store.load_newest().step
        assert step in ((before, newest) if sealed else (before,)), case
