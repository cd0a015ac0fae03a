"""When a run begins, goes on or is refused, and which one is the latest."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import edit_json, tree

from pipelines.data.data_record import DataRecord, SplitSizes
from pipelines.files.ownership import LOCK_FILE
from pipelines.runs.codes import check_augmentation
from pipelines.runs.config import RunConfig
from pipelines.runs.directory import RunDirectory
from pipelines.runs.prior_augmentation import PriorAugmentationConfig
from pipelines.runs.recipes import RECIPES
from stage2_prior.config import PixelCNNConfig

CONFIG = RECIPES["smoke"]
DATA = DataRecord(
    image_shape=(1, 4, 4),
    num_images=SplitSizes(train=8, validation=2, test=3),
    num_classes=2,
    class_names=("a", "b"),
    train_images_per_class=(5, 3),
    fingerprint="0123",
)


def begin(run, config, data, *, resume):
    run.check(config, data, resume=resume)
    run.begin(config, data)


def begin_codes(run, config):
    check_augmentation(run, config.prior_augmentation)
    run.begin(config)


def begin_prior(run, config, *, resume):
    run.check_prior(config, resume=resume)
    run.begin(config)


@pytest.fixture
def run(tmp_path):
    """A directory that does not exist yet."""
    return RunDirectory(tmp_path / "runs" / "first")


@pytest.fixture
def begun(run):
    begin(run, CONFIG, DATA, resume=False)
    return run


@pytest.fixture
def trained(begun):
    """A run whose stage two is in training."""
    (begun.vqvae).mkdir()
    (begun.checkpoints / "prior" / "step-00000001").mkdir(parents=True)
    return begun


@pytest.mark.parametrize("resume", [False, True])
def test_new_run_remembers_settings_and_data(run, resume):
    begin(run, CONFIG, DATA, resume=resume)
    again = RunDirectory(str(run.path))
    assert (again.config(), again.data()) == (CONFIG, DATA)
    assert tree(run.path) == ["config.json"]


def test_empty_directory_takes_a_run(run):
    run.path.mkdir(parents=True)
    begin(run, CONFIG, DATA, resume=False)
    assert run.config() == CONFIG


def test_existing_run_is_refused_and_kept(trained):
    before = trained.config_file.read_bytes()
    with pytest.raises(FileExistsError, match=r"new directory, but .*first holds a run: add --res"):
        begin(trained, replace(CONFIG, seed=1), DATA, resume=False)
    assert trained.config_file.read_bytes() == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "samples.png"])
def test_directory_of_something_else_is_refused(run, resume, name):
    run.path.mkdir(parents=True)
    (run.path / name).touch()
    with pytest.raises(FileExistsError, match=r"first holds something else: name another with --o"):
        begin(run, CONFIG, DATA, resume=resume)
    assert tree(run.path) == [name]


@pytest.mark.parametrize("resume", [False, True])
def test_file_in_the_place_of_a_run_is_refused(run, resume):
    run.path.parent.mkdir(parents=True)
    run.path.touch()
    with pytest.raises(FileExistsError, match=r"needs a new or empty directory, but .*first ho"):
        begin(run, CONFIG, DATA, resume=resume)


def test_resume_of_the_same_run_changes_nothing(trained):
    before = trained.config_file.read_bytes()
    begin(trained, CONFIG, DATA, resume=True)
    assert trained.config_file.read_bytes() == before


WITHOUT_EFFECT = {
    "device": replace(CONFIG, device="cpu"),
    "place of the data": replace(CONFIG, data=replace(CONFIG.data, source="npz:/moved.npz")),
    "data folder": replace(CONFIG, data=replace(CONFIG.data, root=Path("/elsewhere"))),
    "download": replace(CONFIG, data=replace(CONFIG.data, download=False)),
    "pixels": replace(CONFIG, data=replace(CONFIG.data, max_image_megapixels=1)),
    "memory": replace(CONFIG, data=replace(CONFIG.data, max_memory_mib=1)),
    "checkpoints": replace(
        CONFIG, vqvae_training=replace(CONFIG.vqvae_training, checkpoint_every=5)
    ),
    "log": replace(CONFIG, prior_training=replace(CONFIG.prior_training, log_every=5)),
}


@pytest.mark.parametrize("config", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT)
def test_what_changes_no_result_may_change_on_resume_and_is_recorded(trained, config):
    begin(trained, config, DATA, resume=True)
    assert (trained.config(), trained.data()) == (config, DATA)


def test_place_of_other_data_is_named_when_they_are_refused(trained):
    moved = replace(CONFIG, data=replace(CONFIG.data, source="npz:/other.npz"))
    trained.check(moved, resume=True)  # nobody can know before the data are read
    message = (
        r"data fingerprint was 0123, is now 4567; --data.source was fashion-mnist-mini, is now "
        r"npz:/other.npz: repeat"
    )
    with pytest.raises(ValueError, match=message):
        trained.check(moved, replace(DATA, fingerprint="4567"), resume=True)


def test_resume_with_other_settings_is_refused_by_their_names(trained):
    other = replace(CONFIG, seed=4, vqvae=replace(CONFIG.vqvae, width=5))
    message = (
        r"to resume .*first the settings must be those it was started with, but --seed was 0, is "
        r"now 4; --vqvae.width was 32, is now 5: repeat the original options or begin another run"
    )
    with pytest.raises(ValueError, match=message):
        begin(trained, other, DATA, resume=True)


def test_resume_with_another_kind_of_prior_is_refused(trained):
    with pytest.raises(ValueError, match=r"--prior.kind was transformer, is now pixelcnn"):
        begin(trained, replace(CONFIG, prior=PixelCNNConfig()), DATA, resume=True)


def test_resume_on_other_data_is_refused(trained):
    with pytest.raises(ValueError, match="but data fingerprint was 0123, is now 4567: repeat"):
        begin(trained, CONFIG, replace(DATA, fingerprint="4567"), resume=True)


def test_check_without_data_looks_at_the_settings_alone(trained):
    trained.check(CONFIG, resume=True)
    with pytest.raises(ValueError, match="--seed was 0, is now 4"):
        trained.check(replace(CONFIG, seed=4), resume=True)


def test_check_makes_nothing(run):
    run.check(CONFIG, DATA, resume=False)
    assert not run.path.parent.exists()


def test_begin_removes_what_a_kill_left_half_written(begun):
    (begun.path / ".codes.partial-17").mkdir()
    (begun.path / ".codes.partial-17" / "train.safetensors").touch()
    (begun.path / ".samples.partial-17.png").touch()
    (begun.path / ".mine").touch()
    begin(begun, CONFIG, DATA, resume=True)
    assert tree(begun.path) == [".mine", "config.json"]


def test_new_prior_removes_what_a_kill_left_half_written(begun):
    (begun.path / ".prior.partial-17").mkdir()
    (begun.path / "samples" / ".0001.partial-17").mkdir(parents=True)
    begin_prior(begun, CONFIG, resume=False)
    assert tree(begun.path) == ["config.json", "samples"]


def test_option_can_be_pasted_into_a_shell(tmp_path):
    directory = RunDirectory(tmp_path / "it's my run")
    assert shlex.split(directory.option) == ["--run", str(directory.path)]


@pytest.mark.parametrize("resume", [False, True])
def test_run_in_which_nothing_was_trained_is_begun_anew(begun, resume):
    """As after a refusal, a kill or NaN before the first checkpoint."""
    begun.metrics.touch()
    (begun.checkpoints / "vqvae" / ".unfinished-step-00000001").mkdir(parents=True)
    (begun.path / LOCK_FILE).touch()
    corrected, others = replace(CONFIG, seed=1), replace(DATA, fingerprint="4567")
    begin(begun, corrected, others, resume=resume)
    assert (begun.config(), begun.data()) == (corrected, others)


@pytest.mark.parametrize(
    "result",
    ["vqvae", "codes", "prior", "samples.png", "report.html", "checkpoints/vqvae/step-00000001"],
)
def test_run_with_any_result_is_not_begun_anew(begun, result):
    (begun.path / result).mkdir(parents=True)
    before = tree(begun.path)
    with pytest.raises(FileExistsError, match="holds a run"):
        begin(begun, replace(CONFIG, seed=1), DATA, resume=False)
    assert tree(begun.path) == before


def test_config_of_something_else_is_not_written_over(run):
    run.path.mkdir(parents=True)
    run.config_file.write_text('{"architectures": ["GPT2"]}')
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        begin(run, CONFIG, DATA, resume=False)
    assert run.config_file.read_text() == '{"architectures": ["GPT2"]}'


def test_settings_of_a_stage_that_has_not_begun_may_change_on_resume(begun):
    begun.vqvae.mkdir()
    slower = replace(CONFIG, prior_training=replace(CONFIG.prior_training, learning_rate=1e-4))
    begin(begun, slower, DATA, resume=True)
    assert begun.config() == slower
    other = replace(slower, vqvae_training=replace(CONFIG.vqvae_training, learning_rate=1e-4))
    with pytest.raises(ValueError, match=r"but --vqvae-training.learning-rate was .*: repeat"):
        begin(begun, other, DATA, resume=True)


def test_more_epochs_of_a_finished_run_are_a_new_run_from_its_weights(trained):
    trained.prior.mkdir()
    longer = replace(CONFIG, vqvae_training=replace(CONFIG.vqvae_training, epochs=9))
    message = (
        r"--vqvae-training.epochs was 4\.0, is now 9: .* with --start-from .*first and another -"
    )
    with pytest.raises(ValueError, match=message):
        trained.check(longer, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_run_killed_while_its_config_was_written_begins_again(run, resume):
    run.path.mkdir(parents=True)
    (run.path / ".config.partial-17.json").touch()
    begin(run, CONFIG, DATA, resume=resume)
    assert tree(run.path) == ["config.json"]


AUGMENTED = replace(CONFIG, prior_augmentation=PriorAugmentationConfig(flip=True))


def test_settings_of_a_dump_are_recorded_and_what_a_kill_left_is_removed(begun):
    (begun.path / ".codes.partial-17").mkdir()
    begin_codes(begun, AUGMENTED)
    assert (begun.config(), begun.data()) == (AUGMENTED, DATA)
    assert tree(begun.path) == ["config.json"]


@pytest.mark.parametrize("name", ["prior", "checkpoints/prior/step-00000001"])
def test_dump_with_other_settings_than_a_prior_that_is_there_is_refused(begun, name):
    (begun.path / name).mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"prior was trained with other --prior-augmentation"):
        begin_codes(begun, AUGMENTED)
    assert begun.config() == CONFIG
    begin_codes(begun, CONFIG)  # with the prior's own


def test_new_prior_is_recorded_with_its_settings(begun):
    changed = replace(CONFIG, seed=4, prior=PixelCNNConfig(width=3))
    begin_prior(begun, changed, resume=False)
    assert (begun.config(), begun.data()) == (changed, DATA)


@pytest.mark.parametrize("name", ["prior", "checkpoints/prior/step-00000001"])
def test_new_prior_beside_an_earlier_one_is_refused(begun, name):
    (begun.path / name).mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"a new prior is .* but .*prior exists: add --res"):
        begin_prior(begun, replace(CONFIG, seed=4), resume=False)
    assert begun.config() == CONFIG


def test_resumed_prior_with_other_settings_is_refused(trained):
    changed = replace(CONFIG, prior=replace(CONFIG.prior, dropout=0.5))
    with pytest.raises(ValueError, match=r"--prior.dropout was 0\.1, is now 0\.5"):
        begin_prior(trained, changed, resume=True)


def test_resumed_prior_with_the_same_settings_is_accepted(trained):
    begin_prior(trained, CONFIG, resume=True)
    assert trained.config() == CONFIG


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
    with pytest.raises(ValueError, match=r"config\.json.*version 3 is required, got 99.*restore"):
        begun.config()


def test_resume_of_a_damaged_run_is_refused(trained):
    trained.config_file.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        trained.check(RunConfig(), resume=True)


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

    def test_run_in_a_folder_that_is_a_link_is_the_latest(self, tmp_path):
        (tmp_path / "big disk" / "first").mkdir(parents=True)
        (tmp_path / "runs").symlink_to("big disk")
        RunDirectory(tmp_path / "runs" / "first").mark_latest()
        assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "big disk" / "first"

    def test_run_that_is_a_link_is_the_latest(self, tmp_path):
        (tmp_path / "big disk").mkdir()
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "first").symlink_to(tmp_path / "big disk")
        RunDirectory(tmp_path / "runs" / "first").mark_latest()
        assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "big disk"
        assert tree(tmp_path / "big disk") == []

    @pytest.mark.parametrize("name", ["first", "../runs/first", "."])
    def test_run_is_the_latest_from_any_working_directory(self, name, tmp_path, monkeypatch):
        (tmp_path / "runs" / "first").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "runs" / ("first" if name == "." else ""))
        RunDirectory(name).mark_latest()
        assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "runs" / "first"

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
        begin(run, CONFIG, DATA, resume=False)
        run.mark_latest()
        assert RunDirectory(tmp_path / "runs" / "latest").path == run.path
    assert (tmp_path / "runs" / "latest").is_file()
