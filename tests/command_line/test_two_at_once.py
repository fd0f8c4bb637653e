"""Two commands at once that would write to the same place: the first ends as if it were alone, the other says so."""

import shutil

import pytest

from support.ended_commands import COMMANDS, result_of, same
from support.ends import paused, run


def refused(words, folder, said):
    """That a second command ends in one line."""
    ended = run(words, folder)
    assert ended.status == 2, ended.printed
    assert "Traceback" not in ended.printed
    assert said in ended.printed.splitlines()[-1]


@pytest.mark.parametrize("name", ["train", "predict", "watch", "calibrate", "evaluate"])
def test_of_two_in_one_folder_the_second_is_refused(bench, tmp_path, name):
    result, counts = bench.whole(name)
    out = tmp_path / "place/out"
    with paused(bench.words(name, out), out, "network", counts["network"] // 2) as ended:
        for more in {"", COMMANDS[name].more}:
            refused(bench.words(name, out, more), tmp_path / "place/second", "another run writes there")
    assert ended[0].status == 0, ended[0].printed
    same(result_of(name, out), result)


def test_of_two_that_go_on_with_the_same_images_the_second_is_refused(bench, tmp_path):
    result, counts = bench.whole("predict")
    out = tmp_path / "place/out"
    run(bench.words("predict", out), out)
    journal = out / "run/predictions.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))
    words = bench.words("predict", out, "resume=true")
    with paused(words, out, "network", 1) as ended:
        refused(words, tmp_path / "place/second", "another run writes")
    assert ended[0].status == 0, ended[0].printed
    same(result_of("predict", out), result)


def test_a_checkpoint_is_not_calibrated_while_its_training_runs_nor_twice_at_once(bench, tmp_path):
    result, counts = bench.whole("train")
    out = tmp_path / "place/out"
    checkpoint = out / "run/checkpoints/last.ckpt"
    words = ["calibrate", f"ckpt_path={checkpoint}", "device=cpu"]
    with paused(bench.words("train", out), out, "network", counts["network"] // 2) as ended:
        checkpoint.parent.mkdir(exist_ok=True)
        if not checkpoint.is_file():
            shutil.copy(bench.run, checkpoint)
        said = f"ckpt_path={checkpoint}: another run writes in {out}/run; wait for its end"
        refused([*words, f"output_dir={tmp_path}/first"], tmp_path / "place/second", said)
    assert ended[0].status == 0, ended[0].printed
    same(result_of("train", out), result)
    with paused([*words, f"output_dir={tmp_path}/first"], tmp_path / "place/third", "network", 20) as ended:
        refused([*words, f"output_dir={tmp_path}/other"], tmp_path / "place/second", said)
    assert ended[0].status == 0, ended[0].printed


def test_a_cache_that_is_bounded_keeps_what_a_running_training_reads(bench, tmp_path, monkeypatch):
    result, counts = bench.whole("train")
    out = tmp_path / "place/out"
    words = bench.words("train", out)
    (cache,) = (word.partition("=")[2] for word in words if word.startswith("data.cache_dir="))
    monkeypatch.setenv("UNIAD_CACHE", cache)
    with paused(words, out, "network", counts["network"] // 2) as ended:
        bounded = run(["cache", "keep=0"], tmp_path / "place/second")
        assert bounded.status == 0
        assert "more than keep=0 is left: these are in use" in bounded.printed
        assert "deleted" not in bounded.printed
    assert ended[0].status == 0, ended[0].printed
    same(result_of("train", out), result)
    assert "deleted" in run(["cache", "keep=0"], tmp_path / "place/second").printed
