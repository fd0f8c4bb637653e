"""Whether a path stays inside a folder, by its text and on the disk."""

import pytest

from uniad_lightning.files.within import is_within, stays_within


@pytest.mark.parametrize("path", ["a.png", "a/b.png", "./a", "..a/b", "a../b", "...", "~/a", "", "a b/ü.png"])
def test_paths_that_stay(path):
    assert stays_within(path)


@pytest.mark.parametrize("path", ["..", "../a", "a/../b", "a/..", "/a", "/", "a/b/../../../c"])
def test_paths_that_may_leave(path):
    assert not stays_within(path)


def test_on_the_disk_links_are_followed(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    for path in ("in", "in/a", "in/../in/a", "alias/a", str(tmp_path / "in/gone/a")):
        assert is_within(tmp_path / "in", path), path
    for path in ("out/a", "in/link/a", "in/../a", "inside", "/"):
        assert not is_within(tmp_path / "in", path), path
    assert is_within(tmp_path / "alias", "in/a")
