"""Output files that nobody named."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from pipelines.files.numbering import next_free, save_new


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ((), "0001.png"),
        (("0001.png", "0007.png"), "0008.png"),
        (("9999.png",), "10000.png"),
        (("best.png", "0002.npz"), "0001.png"),
    ],
)
def test_next_free_number_is_above_all_that_are_there(tmp_path, taken, name):
    for path in taken:
        (tmp_path / path).touch()
    assert next_free(tmp_path) == tmp_path / name


def test_named_file_is_saved_where_it_is_wanted(tmp_path):
    saved = save_new(tmp_path / "a.png", tmp_path / "folder", lambda path: path.write_text("a"))
    assert saved == tmp_path / "a.png"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_all_that_save_at_once_have_a_number_each(tmp_path):
    everyone = Barrier(8)

    def save(content):
        def write(path):
            path.write_text(content)
            everyone.wait()  # all have looked before the first takes its number

        return save_new(None, tmp_path / "new", write)

    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(save, "abcdefgh"))
    assert sorted(path.name for path in saved) == [f"000{i}.png" for i in range(1, 9)]
    assert "".join(path.read_text() for path in saved) == "abcdefgh"
    assert sorted((tmp_path / "new").iterdir()) == sorted(saved)


def test_file_system_without_hard_links_is_enough(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    saved = save_new(None, tmp_path, lambda path: path.write_text("a"))
    assert (saved.name, saved.read_text()) == ("0001.png", "a")


def test_failed_saving_takes_no_number(tmp_path):
    def fail(_):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        save_new(None, tmp_path / "new", fail)
    assert list((tmp_path / "new").iterdir()) == []
