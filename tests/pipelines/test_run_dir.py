"""When a run begins, goes on or is refused, and which one is the latest."""

import os
import shlex
from dataclasses import replace

import pytest
from tiny_runs import edit_json, tree

from pipelines.augmentation import AugmentationConfig
from pipelines.config import RunConfig
from pipelines.data.data_record import DataRecord, SplitSizes
from pipelines.recipes import smoke
from pipelines.run_dir import RunDirectory
from stage2_prior.config import PixelCNNConfig

CONFIG = smoke()
DATA = DataRecord(
    image_shape=(1, 4, 4),
    num_images=SplitSizes(train=8, validation=2, test=3),
    num_classes=2,
    class_names=("a", "b"),
    train_images_per_class=(5, 3),
    fingerprint="0123",
)


@pytest.fixture
def run(tmp_path):
    """A directory that does not exist yet."""
    return RunDirectory(tmp_path / "runs" / "first")


@pytest.fixture
def begun(run):
    run.begin(CONFIG, DATA, resume=False)
    return run


@pytest.mark.parametrize("resume", [False, True])
def test_new_run_remembers_settings_and_data(run, resume):
    run.begin(CONFIG, DATA, resume=resume)
    again = RunDirectory(str(run.path))
    assert (again.config(), again.data()) == (CONFIG, DATA)
    assert tree(run.path) == ["config.json"]


def test_empty_directory_takes_a_run(run):
    run.path.mkdir(parents=True)
    run.begin(CONFIG, DATA, resume=False)
    assert run.config() == CONFIG


def test_existing_run_is_refused_and_kept(begun):
    before = begun.config_file.read_bytes()
    with pytest.raises(FileExistsError, match=r"new directory, but .*first holds a run: add --res"):
        begun.begin(replace(CONFIG, seed=1), DATA, resume=False)
    assert begun.config_file.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
def test_directory_of_something_else_is_refused(run, resume):
    run.path.mkdir(parents=True)
    (run.path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"first holds something else: name another with --o"):
        run.begin(CONFIG, DATA, resume=resume)
    assert tree(run.path) == ["thesis.tex"]


@pytest.mark.parametrize("resume", [False, True])
def test_file_in_the_place_of_a_run_is_refused(run, resume):
    run.path.parent.mkdir(parents=True)
    run.path.touch()
    with pytest.raises(FileExistsError, match=r"needs a new or empty directory, but .*first ho"):
        run.begin(CONFIG, DATA, resume=resume)


def test_resume_of_the_same_run_changes_nothing(begun):
    before = begun.config_file.read_bytes()
    begun.begin(CONFIG, DATA, resume=True)
    assert begun.config_file.read_bytes() == before


def test_resume_may_be_on_another_device(begun):
    begun.begin(replace(CONFIG, device="cpu"), DATA, resume=True)
    assert begun.config().device == "auto"


def test_resume_with_other_settings_is_refused_by_their_names(begun):
    other = replace(CONFIG, seed=4, vqvae=replace(CONFIG.vqvae, width=5))
    message = (
        r"to resume .*first the settings must be those it was started with, but --seed was 0, is "
        r"now 4; --vqvae.width was 32, is now 5: repeat the original options or begin another run"
    )
    with pytest.raises(ValueError, match=message):
        begun.begin(other, DATA, resume=True)


def test_resume_with_another_kind_of_prior_is_refused(begun):
    with pytest.raises(ValueError, match=r"--prior.kind was transformer, is now pixelcnn"):
        begun.begin(replace(CONFIG, prior=PixelCNNConfig()), DATA, resume=True)


def test_resume_on_other_data_is_refused(begun):
    with pytest.raises(ValueError, match="but data fingerprint was 0123, is now 4567: repeat"):
        begun.begin(CONFIG, replace(DATA, fingerprint="4567"), resume=True)


def test_check_without_data_looks_at_the_settings_alone(begun):
    begun.check(CONFIG, resume=True)
    with pytest.raises(ValueError, match="--seed was 0, is now 4"):
        begun.check(replace(CONFIG, seed=4), resume=True)


def test_check_makes_nothing(run):
    run.check(CONFIG, DATA, resume=False)
    assert not run.path.parent.exists()


def test_resume_removes_what_a_kill_left_half_written(begun):
    (begun.path / ".codes.partial-17").mkdir()
    (begun.path / ".codes.partial-17" / "train.safetensors").touch()
    (begun.path / ".samples.partial-17.png").touch()
    (begun.path / ".mine").touch()
    begun.begin(CONFIG, DATA, resume=True)
    assert tree(begun.path) == [".mine", "config.json"]


def test_new_prior_removes_what_a_kill_left_half_written(begun):
    (begun.path / ".prior.partial-17").mkdir()
    (begun.path / "samples" / ".0001.partial-17").mkdir(parents=True)
    begun.begin_prior(CONFIG, resume=False)
    assert tree(begun.path) == ["config.json", "samples"]


def test_option_can_be_pasted_into_a_shell(tmp_path):
    directory = RunDirectory(tmp_path / "it's my run")
    assert shlex.split(directory.option) == ["--run", str(directory.path)]


@pytest.mark.parametrize("resume", [False, True])
def test_run_killed_while_its_config_was_written_begins_again(run, resume):
    run.path.mkdir(parents=True)
    (run.path / ".config.partial-17.json").touch()
    run.begin(CONFIG, DATA, resume=resume)
    assert tree(run.path) == ["config.json"]


AUGMENTED = replace(CONFIG, augmentation=AugmentationConfig(flip=True))


def test_settings_of_a_dump_are_recorded_and_what_a_kill_left_is_removed(begun):
    (begun.path / ".codes.partial-17").mkdir()
    begun.begin_codes(AUGMENTED)
    assert (begun.config(), begun.data()) == (AUGMENTED, DATA)
    assert tree(begun.path) == ["config.json"]


@pytest.mark.parametrize("name", ["prior", "checkpoints/prior"])
def test_dump_with_other_settings_than_a_prior_that_is_there_is_refused(begun, name):
    (begun.path / name).mkdir(parents=True)
    with pytest.raises(FileExistsError, match=rf"{name} was trained with other --augmentation"):
        begun.begin_codes(AUGMENTED)
    assert begun.config() == CONFIG
    begun.begin_codes(CONFIG)  # with the prior's own


def test_new_prior_is_recorded_with_its_settings(begun):
    changed = replace(CONFIG, seed=4, prior=PixelCNNConfig(width=3))
    begun.begin_prior(changed, resume=False)
    assert (begun.config(), begun.data()) == (changed, DATA)


@pytest.mark.parametrize("name", ["prior", "checkpoints/prior"])
def test_new_prior_beside_an_earlier_one_is_refused(begun, name):
    (begun.path / name).mkdir(parents=True)
    with pytest.raises(FileExistsError, match=rf"a new prior is .* but .*{name} exists: add --res"):
        begun.begin_prior(replace(CONFIG, seed=4), resume=False)
    assert begun.config() == CONFIG


def test_resumed_prior_with_other_settings_is_refused(begun):
    changed = replace(CONFIG, prior=replace(CONFIG.prior, dropout=0.5))
    with pytest.raises(ValueError, match=r"--prior.dropout was 0\.1, is now 0\.5"):
        begun.begin_prior(changed, resume=True)


def test_resumed_prior_with_the_same_settings_is_accepted(begun):
    (begun.path / "checkpoints" / "prior").mkdir(parents=True)
    begun.begin_prior(CONFIG, resume=True)
    assert begun.config() == CONFIG


@pytest.mark.parametrize("read", [RunDirectory.config, RunDirectory.data])
def test_missing_config_is_refused_with_the_cure(run, read):
    with pytest.raises(
        FileNotFoundError, match=r"first/config.json does not exist: name a run wit"
    ):
        read(run)


@pytest.mark.parametrize("text", ["{", "", "[]", "{}", "\0", "[" * 100_000])
def test_damaged_config_is_refused_by_name(begun, text):
    begun.config_file.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read .*: restore it, or train"):
        begun.config()


@pytest.mark.parametrize(
    ("place", "change", "field"),
    [
        ("run", {"seed": "one"}, r"run\.seed"),
        ("run", {"seed": -1}, "run: seed"),
        ("run", {"speed": 1}, r"run\.speed"),
        ("data", {"class_names": 29}, r"data\.class_names"),
        ("data", {"image_shape": [1, 4]}, r"data\.image_shape"),
        ("data", {"image_shape": [1, 4, 0]}, r"data: images .* at least 1.*\(1, 4, 0\)"),
        ("data", {"num_images": {"train": 8, "test": 3}}, r"data\.num_images\.validation"),
        ("data", {"num_classes": 3}, "data: num_classes .* got 3 and 2"),
    ],
)
def test_value_that_does_not_fit_is_refused_by_name(begun, place, change, field):
    edit_json(begun.config_file, lambda record: record[place].update(change))
    with pytest.raises(ValueError, match=rf"config\.json cannot be read \({field}.*restore it"):
        begun.data()


def test_config_of_another_version_is_refused(begun):
    # Of its layout nothing may be assumed.
    begun.config_file.write_text('{"format_version": 99, "kind": "run", "settings": {}}')
    with pytest.raises(ValueError, match=r"config\.json.*version 2 is required, got 99.*restore"):
        begun.config()


def test_resume_of_a_damaged_run_is_refused(begun):
    begun.config_file.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        begun.check(RunConfig(), resume=True)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights elsewhere")
class TestLatest:
    def test_latest_names_the_newest_run(self, tmp_path):
        for name in ("first", "second"):
            (tmp_path / "runs" / name).mkdir(parents=True)
            RunDirectory(tmp_path / "runs" / name).mark_latest()
            assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "runs" / name
        assert tree(tmp_path / "runs") == ["first", "latest", "second"]

    def test_latest_is_relative_so_that_the_folder_can_move(self, begun, tmp_path):
        begun.mark_latest()
        (tmp_path / "runs").rename(tmp_path / "elsewhere")
        assert RunDirectory(tmp_path / "elsewhere" / "latest").config() == CONFIG

    def test_latest_of_a_run_named_by_latest_is_that_run(self, begun):
        begun.mark_latest()
        RunDirectory(begun.path.with_name("latest")).mark_latest()
        assert (begun.path.with_name("latest")).resolve() == begun.path

    def test_no_latest_in_a_folder_of_another_name(self, tmp_path):
        (tmp_path / "models" / "first").mkdir(parents=True)
        RunDirectory(tmp_path / "models" / "first").mark_latest()
        assert tree(tmp_path / "models") == ["first"]

    def test_directory_called_latest_is_left_alone(self, begun):
        mine = begun.path.with_name("latest")
        mine.mkdir()
        begun.mark_latest()
        assert mine.is_dir()
        assert not mine.is_symlink()

    def test_latest_that_names_a_removed_run_is_replaced(self, begun):
        link = begun.path.with_name("latest")
        link.symlink_to("gone")
        begun.mark_latest()
        assert link.resolve() == begun.path

    def test_latest_is_replaced_in_one_step(self, begun, monkeypatch):
        """A kill before the last call leaves the old link, not none."""
        link = begun.path.with_name("latest")
        link.symlink_to("gone")

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            begun.mark_latest()
        assert os.readlink(link) == "gone"  # noqa: PTH115 - Path.readlink gives a Path


def no_links(*_, **__):
    raise OSError(1314, "A required privilege is not held by the client")  # as Windows says it


def test_latest_is_a_file_where_links_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.symlink_to", no_links)
    for name in ("first", "zweiter ü \udce9"):
        run = RunDirectory(tmp_path / "runs" / name)
        run.begin(CONFIG, DATA, resume=False)
        run.mark_latest()
        assert RunDirectory(tmp_path / "runs" / "latest").path == run.path
    assert (tmp_path / "runs" / "latest").is_file()
