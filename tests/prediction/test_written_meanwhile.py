"""Files of a prediction that another process writes, names or removes at this very moment."""

import os
from types import SimpleNamespace

from uniad_lightning.prediction import overlays, rows
from uniad_lightning.prediction.rows import empty_row, journal_line
from uniad_lightning.prediction.sources.items import broken_item


def test_a_row_that_is_being_written_is_left_out_also_where_it_is_whole_a_moment_later(tmp_path, monkeypatch):
    path = tmp_path / "predictions.jsonl"
    whole = [journal_line(empty_row(broken_item(f"{i}.png", "absent"), 1.0, "absent")) for i in range(3)]
    path.write_bytes(whole[0] + whole[1][:9])
    parsed = rows._parsed

    def written_then(line):
        if not line.endswith(b"\n"):
            path.write_bytes(b"".join(whole))
        return parsed(line)

    monkeypatch.setattr(rows, "_parsed", written_then)
    assert [row["path"] for _, row in rows.read_rows(path)] == ["0.png"]


def test_an_overlay_that_gets_its_name_while_they_are_counted_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/a.png").write_bytes(b"x" * 100)
    drawn = tmp_path / "overlays/.unfinished.tmp"
    drawn.write_bytes(b"x" * 10)

    def scan(folder):
        entries = list(os.scandir(folder))
        drawn.unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(overlays, "os", SimpleNamespace(walk=os.walk, scandir=scan))
    assert overlays._bytes_in(tmp_path) == 100
