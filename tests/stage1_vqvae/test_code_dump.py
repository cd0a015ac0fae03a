import errno
import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from sealing import edit_record, edit_tensors
from tiny_vqvae import make_model, random_images

from stage1_vqvae.code_dump import read_code_dump, read_other_views, write_code_dump

SIZES = {"train": 7, "validation": 3, "test": 2}
IMAGES = {name: random_images(size, 1, 5, 8, seed=size) for name, size in SIZES.items()}
LABELS = {name: torch.arange(size) % 3 for name, size in SIZES.items()}


@pytest.fixture
def model():
    return make_model((1, 5, 8))


def batches(name, *, labelled=True, size=3):
    for images, labels in zip(IMAGES[name].split(size), LABELS[name].split(size), strict=True):
        yield images, labels if labelled else None


def splits(*, labelled=True, **others):
    return {name: (SIZES[name], batches(name, labelled=labelled)) for name in SIZES} | others


@pytest.fixture
def dump(tmp_path, model):
    """The directory of a whole dump with labels."""
    write_code_dump(tmp_path / "codes", model, splits(), num_classes=3)
    return tmp_path / "codes"


def edit_config(directory, edit):
    edit_record(directory / "config.json", edit)


@pytest.mark.parametrize("name", SIZES)
def test_dump_holds_the_codes_of_every_image_in_order(dump, model, name):
    split = read_code_dump(dump).splits[name]
    assert len(split) == SIZES[name]
    assert split.codes[0].dtype == torch.int32
    assert torch.equal(split.codes[0].long(), model.encode(IMAGES[name])[0])


@pytest.mark.parametrize("name", SIZES)
def test_dump_keeps_labels_with_their_images(dump, name):
    assert torch.equal(read_code_dump(dump).splits[name].labels, LABELS[name])


def test_dump_remembers_what_made_it(dump, model):
    read = read_code_dump(dump)
    assert read.vqvae_hash == model.weights_hash()
    assert (read.codebook_sizes, read.grid_shapes, read.num_classes) == ((7,), ((3, 4),), 3)


def test_dump_without_labels_reads_back_without(tmp_path, model):
    write_code_dump(tmp_path / "codes", model, splits(labelled=False), num_classes=None)
    read = read_code_dump(tmp_path / "codes")
    assert read.num_classes is None
    assert [split.labels for split in read.splits.values()] == [None] * 3


@pytest.mark.parametrize("name", SIZES)
def test_dump_is_read_by_the_plain_library(dump, model, name):
    tensors = load_file(dump / f"{name}.safetensors")
    assert tensors.keys() == {"codes.0", "labels"}
    assert torch.equal(tensors["codes.0"].long(), model.encode(IMAGES[name])[0])


def test_dump_has_a_readable_config(dump, model):
    record = json.loads((dump / "config.json").read_text())
    assert record.pop("sha256")
    assert record == {
        "format_version": 2,
        "kind": "code_dump",
        "vqvae_sha256": model.weights_hash(),
        "codebook_sizes": [7],
        "num_classes": 3,
        "num_images": SIZES,
        "other_views": [],
        "file_sha256": {
            name: hashlib.sha256((dump / f"{name}.safetensors").read_bytes()).hexdigest()
            for name in SIZES
        },
    }


def mirrored():
    for images, labels in batches("train"):
        yield images.flip(3), labels


def upside_down():
    for images, labels in batches("train"):
        yield images.flip(2), labels


@pytest.fixture
def dump_with_views(tmp_path, model):
    """The directory of a dump that has two other views of its training images."""
    views = {"mirrored": (7, mirrored()), "upside-down": (7, upside_down())}
    write_code_dump(tmp_path / "viewed", model, splits(), num_classes=3, other_views=views)
    return tmp_path / "viewed"


def test_views_are_the_codes_of_the_training_images_seen_so(dump_with_views, model):
    dump = read_code_dump(dump_with_views)
    assert dump.other_views == ("mirrored", "upside-down")
    for axis, view in zip((3, 2), read_other_views(dump_with_views, dump), strict=True):
        assert view.codes[0].long().equal(model.encode(IMAGES["train"].flip(axis))[0])
        assert view.labels.equal(LABELS["train"])


def test_views_change_nothing_of_the_splits(dump_with_views, dump):
    for name in SIZES:
        file = f"{name}.safetensors"
        assert (dump_with_views / file).read_bytes() == (dump / file).read_bytes()


def test_missing_view_is_refused(dump_with_views):
    (dump_with_views / "train-mirrored.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"a code dump needs .*train-mirrored.safetensors,"):
        list(read_other_views(dump_with_views, read_code_dump(dump_with_views)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t["codes.0"].fill_(7), r"codes in .*mirrored.* must be in \[0, 7\), got 7 to 7"),
        (
            lambda t: t.update({"codes.0": t["codes.0"][1:].clone()}),
            r"codes\.0 must be I32 \(7, any, any\), got I32 \(6, 3, 4\)",
        ),
        (
            lambda t: t.update({"codes.0": t["codes.0"][:, 1:].clone()}),
            "view mirrored in .* must have the shapes and labels of the training images' codes",
        ),
        (
            lambda t: t.update(labels=t["labels"].flip(0).contiguous()),
            "view mirrored in .* must have the shapes and labels of the training images' codes",
        ),
    ],
)
def test_view_with_other_contents_is_refused(dump_with_views, edit, message):
    edit_tensors(dump_with_views, "train-mirrored", edit)
    with pytest.raises(ValueError, match=message):
        list(read_other_views(dump_with_views, read_code_dump(dump_with_views)))


def test_changed_view_is_refused(dump_with_views):
    path = dump_with_views / "train-mirrored.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"train-mirrored\.safetensors was changed after it was"):
        list(read_other_views(dump_with_views, read_code_dump(dump_with_views)))


@pytest.mark.parametrize("name", ["", "../codes", "a/b", "a b", "n" * 65])
def test_view_whose_name_is_no_part_of_a_file_name_is_refused(tmp_path, dump, model, name):
    with pytest.raises(ValueError, match="name of a view must be of 1 to 64 letters"):
        write_code_dump(tmp_path / "new", model, splits(), 3, other_views={name: (7, [])})

    def edit(config):
        config["other_views"] = [name]
        config["file_sha256"][f"train-{name}"] = "0" * 64

    edit_config(dump, edit)
    with pytest.raises(ValueError, match="name of a view must be of 1 to 64 letters"):
        read_code_dump(dump)


def test_dump_of_an_empty_split_reads_back_empty(tmp_path, model):
    write_code_dump(tmp_path / "codes", model, splits(test=(0, [])), num_classes=3)
    test = read_code_dump(tmp_path / "codes").splits["test"]
    assert len(test) == 0
    assert test.codes[0].shape == (0, 3, 4)


def test_dump_takes_one_batch_at_a_time(tmp_path, model, monkeypatch):
    events = []

    def logged():
        for number, batch in enumerate(batches("train")):
            events.append(f"read {number}")
            yield batch

    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda images: (events.append("encode"), encode(images))[1]
    )
    write_code_dump(tmp_path / "codes", model, splits(train=(7, logged())), num_classes=3)
    assert events[:6] == ["read 0", "encode", "read 1", "encode", "read 2", "encode"]


def test_dump_does_not_change_the_model(tmp_path, model):
    before = model.weights_hash()
    write_code_dump(tmp_path / "codes", model.train(), splits(), num_classes=3)
    assert model.weights_hash() == before


def test_dump_overwrites_nothing(dump, model):
    before = (dump / "train.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="a new directory is required to save to"):
        write_code_dump(dump, model, splits(), num_classes=3)
    assert (dump / "train.safetensors").read_bytes() == before


def test_dump_that_fails_halfway_leaves_nothing(tmp_path, model):
    def failing():
        yield next(batches("validation"))
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        write_code_dump(tmp_path / "codes", model, splits(validation=(9, failing())), num_classes=3)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_said_of_the_dump_with_what_to_do(tmp_path, model, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = rf"^{tmp_path}/codes could not be written \(No space left on device\): make room"
    with pytest.raises(OSError, match=message):
        write_code_dump(tmp_path / "codes", model, splits(), num_classes=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"test": (3, batches("test"))}, "3 rows were announced for .*test.safetensors, got 2"),
        ({"test": (1, batches("test"))}, "1 rows were announced for .*test.safetensors, got more"),
        ({"test": (2, batches("test", labelled=False))}, "labels are required where num_classes"),
        ({"valid": (3, [])}, "the splits train, validation, test are required, got"),
        (
            {"test": (2, [(random_images(2, 1, 9, 9), LABELS["test"])])},
            r"rows of codes.0 must be torch.int32 \(2, 3, 4\), got torch.int32 \(2, 5, 5\)",
        ),
    ],
    ids=["more announced", "fewer announced", "no labels", "other splits", "other size"],
)
def test_dump_of_other_data_than_announced_is_refused(tmp_path, model, others, message):
    with pytest.raises(ValueError, match=message):
        write_code_dump(tmp_path / "codes", model, splits(**others), num_classes=3)
    assert list(tmp_path.iterdir()) == []


def test_dump_with_a_split_missing_is_refused(tmp_path, model):
    two = {name: (SIZES[name], batches(name)) for name in ("train", "test")}
    with pytest.raises(ValueError, match=r"are required, got \['test', 'train'\]"):
        write_code_dump(tmp_path / "codes", model, two, num_classes=3)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (".", r"a code dump is required in .* does not exist: run"),
        ("config.json", r"a code dump is required in .*config.json does not exist: run"),
        ("test.safetensors", r"a code dump needs .*test.safetensors, which is missing"),
    ],
)
def test_missing_files_are_refused(dump, missing, message):
    path = dump / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read_code_dump(dump)


@pytest.mark.parametrize("text", ["", '{"kind": ', "[]", "{}", "7", "[" * 60_000])
def test_a_damaged_config_is_refused(dump, text):
    (dump / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json must be the config of a saved code_dump"):
        read_code_dump(dump)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(kind="vqvae"), "the kind code_dump is required, got 'vqvae'"),
        (lambda c: c.pop("vqvae_sha256"), "vqvae_sha256"),
        (lambda c: c.pop("num_images"), "num_images"),
        (lambda c: c["num_images"].pop("test"), "num_images must be of .*'test'"),
        (lambda c: c["num_images"].update(test=-1), "num_images.test must be at least 0"),
        (lambda c: c["num_images"].update(test=True), "num_images"),
        (
            lambda c: c["num_images"].update(test=3),
            r"test\.safetensors .* codes\.0 must be I32 \(3, any, any\)",
        ),
        (lambda c: c.update(format_version=1), "version 2 is required, got 1"),
        (
            lambda c: c.update(codebook_sizes=[7, 7]),
            r"train\.safetensors .* codes\.1 must be .* got no tensor",
        ),
        (lambda c: c.update(codebook_sizes=5), "codebook_sizes"),
        (lambda c: c.update(codebook_sizes=[]), "the number of codebook_sizes must be at least 1"),
        (lambda c: c.update(codebook_sizes=[2**25]), "codebook_sizes must be at most 16,777,216"),
        (lambda c: c.update(codebook_sizes=[1e308]), "codebook_sizes"),
        (lambda c: c.update(codebook_sizes=[2]), r"codes in .* must be in \[0, 2\)"),
        (lambda c: c.update(num_classes=1e308), "num_classes"),
        (lambda c: c.update(num_classes=10**40), "num_classes must be at most 16,777,216"),
        (lambda c: c.update(num_classes=None), r"train\.safetensors .* labels must be no tensor"),
        (lambda c: c.update(other_views=None), "other_views"),
        (lambda c: c.update(other_views=[7]), "other_views"),
        (lambda c: c.update(other_views=["a"]), "file_sha256 must be of .*'train-a'"),
        (lambda c: c["file_sha256"].pop("test"), "file_sha256 must be of .*'test'"),
        (lambda c: c["file_sha256"].update(test="0" * 64), r"test\.safetensors was changed after"),
    ],
)
def test_another_config_is_refused(dump, edit, message):
    edit_config(dump, edit)
    with pytest.raises(ValueError, match=message) as error:
        read_code_dump(dump)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*(f"{name}.safetensors" for name in SIZES), "config.json"])
def test_change_of_any_byte_is_refused(dump, name):
    path = dump / name
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        with pytest.raises(ValueError, match=name):
            read_code_dump(dump)


@pytest.mark.parametrize("size", [0, 20, -1])
def test_a_truncated_split_is_refused(dump, size):
    path = dump / "validation.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"validation.safetensors was changed .* dump them again"):
        read_code_dump(dump)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t["codes.0"].fill_(7), r"codes in .* must be in \[0, 7\), got 7 to 7"),
        (lambda t: t["codes.0"].fill_(-1), r"codes in .* must be in \[0, 7\), got -1 to -1"),
        (lambda t: t["labels"].fill_(3), r"labels in .* must be in \[0, 3\), got 3 to 3"),
        (lambda t: t.pop("labels"), r"labels must be I64 \(3\), got no tensor"),
        (lambda t: t.update(extra=torch.zeros(3)), r"extra must be no tensor, got F32 \(3\)"),
        (lambda t: t.update({"codes.0": t["codes.0"].long()}), r"got I64 \(3, 3, 4\)"),
        (
            lambda t: t.update({"codes.0": t["codes.0"][0].clone()}),
            r"I32 \(3, any, any\), got I32 \(3, 4\)",
        ),
        (
            lambda t: t.update({"codes.0": t["codes.0"][1:].clone()}),
            r"I32 \(3, any, any\), got I32 \(2, 3, 4\)",
        ),
        (
            lambda t: t.update(labels=t["labels"][1:].clone()),
            r"labels must be I64 \(3\), got I64 \(2\)",
        ),
        (lambda t: t.update({"codes.0": t["codes.0"][:, 1:].clone()}), "differ in grid shape"),
        (
            lambda t: t.update({"codes.0": t["codes.0"][:, :0].clone()}),
            r"codes of an image \(codes\.0 in .*\) must be at least 1, got 0",
        ),
    ],
)
def test_a_split_with_other_contents_is_refused(dump, edit, message):
    edit_tensors(dump, "validation", edit)
    with pytest.raises(ValueError, match=message):
        read_code_dump(dump)


def test_a_split_of_another_dump_is_refused(dump):
    shutil.copy(dump / "test.safetensors", dump / "validation.safetensors")
    with pytest.raises(ValueError, match=r"validation.safetensors .* belongs to another dump"):
        read_code_dump(dump)
