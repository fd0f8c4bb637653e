"""Several processes share one list: each image once, the files those of one process, also after one was killed."""

import json
import os
import random
import signal
import subprocess
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from support.memory import alone
from support.predicting import check_agreement, journal, table
from support.predicting import predict as predict_alone
from support.predicting_together import meeting, predict
from support.settings import SMALL, UNIAD
from support.stand_in import Inspection, StandIn, part
from uniad_lightning.errors import InputError
from uniad_lightning.prediction import merging as prediction_parts
from uniad_lightning.prediction.files import PARTS, PredictionWriter
from uniad_lightning.prediction.merging import merge
from uniad_lightning.prediction.overlays import OverlayFiles
from uniad_lightning.prediction.processes import ALONE, OtherProcessFailed, join
from uniad_lightning.prediction.rows import empty_row
from uniad_lightning.prediction.sources.items import Item, Source
from uniad_lightning.prediction.sources.opening import open_source

pytestmark = pytest.mark.slow

TORCHRUN = UNIAD.with_name("torchrun")


def untimed(folder):
    """The rows of both files but for what the clock says."""
    rows = [{name: value for name, value in row.items() if name != "milliseconds"} for row in journal(folder)]
    cells = [{name: value for name, value in row.items() if name != "milliseconds"} for row in table(folder)]
    return rows, cells


def images_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png") if path.is_file()}


# The real thing: processes that torchrun or srun has started.


@pytest.fixture(scope="module")
def checkpoint(tree, tmp_path_factory):
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("runs") / "small"
    words = [*SMALL, f"data.root={tree}", "data.held_out=0.3", f"output_dir={folder}", "trainer.max_epochs=1"]
    assert run_command("train", words) == 0
    checkpoint = folder / "checkpoints/last.ckpt"
    assert run_command("calibrate", [f"ckpt_path={checkpoint}", f"output_dir={folder}/report", "rate=0.5"]) == 0
    return checkpoint


def torchrun(count, *words):
    return subprocess.run(
        [TORCHRUN, "--standalone", f"--nproc-per-node={count}", "--no-python", UNIAD, "predict", *words],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def srun(count, *words):
    """What srun would start on one machine."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NODELIST": "localhost"}
    return [
        subprocess.Popen(
            [UNIAD, "predict", *words],
            env={**os.environ, **job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip


def test_two_processes_write_what_one_does(checkpoint, tree, tmp_path, uniad):
    (tmp_path / "document.png").write_bytes(b"%PDF")
    listed = [*sorted(tree.glob("*/test/*/*.png")), tmp_path / "gone.png", tmp_path / "document.png"]
    listed += sorted(tree.glob("bottle/train/good/*.png"))
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in listed))
    words = [f"ckpt_path={checkpoint}", f"input={tmp_path / 'list.txt'}", "overlays=all", "batch_size=4"]
    status, out, _ = uniad("predict", *words, f"output_dir={tmp_path / 'one'}")
    done = torchrun(2, *words, f"output_dir={tmp_path / 'two'}")
    assert (status, done.returncode) == (1, 1), done.stderr
    assert done.stdout.partition(" images/s")[0].rpartition(";")[0] == out.partition(" images/s")[0].rpartition(";")[0]
    assert out.startswith("21 images: ")
    assert untimed(tmp_path / "two") == untimed(tmp_path / "one")
    assert check_agreement(tmp_path / "two") == [str(path) for path in listed]
    assert len(images_of(tmp_path / "two")) == 2 * 19
    assert images_of(tmp_path / "two") == images_of(tmp_path / "one")
    assert sorted(os.listdir(tmp_path / "two")) == sorted(os.listdir(tmp_path / "one"))
    for name in ("gone", "document"):
        assert done.stderr.count(f"uniad: {tmp_path / name}.png failed: ") == 1


def test_one_of_two_is_killed_and_three_go_on(checkpoint, tmp_path, uniad):
    for i in range(600):
        part(tmp_path / f"in/{i % 7}/{i:03d}.png", colour=(i % 250, 90, 90), size=(64, 64))
    words = [f"ckpt_path={checkpoint}", f"input={tmp_path / 'in'}", "batch_size=2", "overlays=none"]
    processes = srun(2, *words, f"output_dir={tmp_path / 'out'}")
    parts = [tmp_path / "out" / PARTS / f"{rank}.jsonl" for rank in range(2)]
    until = time.monotonic() + 120
    while time.monotonic() < until and not all(path.exists() and path.read_bytes().count(b"\n") > 8 for path in parts):
        time.sleep(0.005)
    assert [process.poll() for process in processes] == [None, None], [p.stderr.read() for p in processes if p.poll()]
    processes[1].send_signal(signal.SIGKILL)
    (out, err), _ = (process.communicate(timeout=120) for process in processes)
    assert processes[0].returncode == 2
    assert "uniad: process 0 of 2: another one has ended early and prints the reason" in err.splitlines()[-1]
    assert out.startswith("300 images: ")
    assert str(parts[0]) in out
    assert not journal(tmp_path / "out")
    done = torchrun(3, *words, f"output_dir={tmp_path / 'out'}", "resume=true")
    assert done.returncode == 0, done.stderr
    assert uniad("predict", *words, f"output_dir={tmp_path / 'one'}")[0] == 0
    (actual, _), (rows, _) = untimed(tmp_path / "out"), untimed(tmp_path / "one")
    assert check_agreement(tmp_path / "out") == [row["path"] for row in rows]
    assert not (tmp_path / "out" / PARTS).exists()
    for row, expected in zip(actual, rows, strict=True):  # what was killed in a batch is inspected in another one
        assert row["score"] == pytest.approx(expected["score"], rel=1e-5)
        assert row["decision"] == expected["decision"]


def test_a_mistake_is_told_by_one_process(tmp_path):
    processes = srun(2, f"ckpt_path={tmp_path / 'none.ckpt'}", "input=-")
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2, 0], outputs
    (message,) = outputs[0][1].splitlines()
    assert message.startswith("uniad: input=-: images that arrive one by one cannot be shared by 2 processes; use one,")
    assert outputs[1] == ("", "")


# The same without starting any: each process a thread.


@pytest.fixture
def line(tmp_path):
    for i in range(31):
        defect = (0, 0, i % 3, 1) if i % 3 else None
        path = part(tmp_path / f"in/{i % 4}/{i:02d}.png", colour=(i, 90, 90), defect=defect)
    path.write_bytes(b"%PDF")
    return tmp_path / "in"


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (2, 4), (3, 1), (5, 3), (4, 40)])
def test_any_number_of_processes_inspects_the_batches_of_one(line, tmp_path, count, batch_size):
    class Looking(StandIn):
        def __init__(self):
            super().__init__()
            self.batch_sums = []

        def predict(self, images, category=None):
            self.batch_sums.extend([[int(image.sum()) for image in images]] if images else [])
            return super().predict(images, category)

    one, several = Looking(), [Looking() for _ in range(count)]
    expected = predict_alone(line, tmp_path / "one", detector=one, batch_size=batch_size, overlays="none")
    found = predict(line, tmp_path / "out", count, detectors=several, batch_size=batch_size)
    assert untimed(tmp_path / "out") == untimed(tmp_path / "one")
    assert sorted(batch for detector in several for batch in detector.batch_sums) == sorted(one.batch_sums)
    first = {name: value for name, value in vars(found[0]).items() if name != "seconds"}
    assert first == {name: value for name, value in vars(expected).items() if name != "seconds"}
    assert [counts.failed for counts in found] == [1] + [0] * (count - 1)
    share = ALONE if count == 1 else meeting(count)[0][-1]
    assert share.share(31, batch_size) == sum(share.owns(place, batch_size) for place in range(31))


class Stopping(StandIn):
    """Ends its process at the batch number `at`."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def predict(self, images, category=None):
        if len(self.batches) == self.at:
            raise KeyboardInterrupt
        return super().predict(images, category)


@pytest.mark.parametrize("seed", range(6))
def test_every_image_once_and_in_order_whoever_ends_when(line, tmp_path, seed):
    draw = random.Random(seed)
    counts = Counter()
    for attempt in range(6):
        count = draw.randrange(1, 5)
        detectors = [Stopping(draw.randrange(1, 4)) for _ in range(count)] if attempt < 5 else None
        detectors = detectors or [StandIn() for _ in range(count)]
        found = predict(
            line, tmp_path / "out", count, detectors=detectors, resume=True, batch_size=draw.randrange(1, 4)
        )  # fmt: skip
        for path in (tmp_path / "out").glob(f"{PARTS}/*"):  # a kill within a row
            counts["torn"] += 1
            path.write_bytes(path.read_bytes() + b'{"path": "0/0')
    assert counts["torn"]
    assert not isinstance(found[0], BaseException)
    predict_alone(line, tmp_path / "one", overlays="none")
    assert untimed(tmp_path / "out") == untimed(tmp_path / "one")


def test_what_one_process_began_several_end(line, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_alone(line, tmp_path / "out", detector=Stopping(3), overlays="none")
    counts = predict(line, tmp_path / "out", 3, resume=True)[0]
    assert (counts.skipped, counts.inspected, counts.failed) == (9, 21, 1)
    predict_alone(line, tmp_path / "one", overlays="none")
    assert untimed(tmp_path / "out") == untimed(tmp_path / "one")
    assert predict_alone(line, tmp_path / "out", overlays="none", resume=True).skipped == 31


def test_the_end_of_one_is_noticed_by_the_others(line, tmp_path):
    found = predict(line, tmp_path / "out", 3, detectors=[StandIn(), Stopping(1), StandIn()])
    assert isinstance(found[1], KeyboardInterrupt)
    assert all("another one has ended early" in str(found[rank]) for rank in (0, 2))
    assert not journal(tmp_path / "out")


def test_an_end_while_the_parts_become_one(line, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_parts, "_CHUNK", 4)
    added = []

    def add(self, rows):
        added.append(len(rows))
        if len(added) == 3:
            raise KeyboardInterrupt
        whole_add(self, rows)

    whole_add = PredictionWriter.add
    with monkeypatch.context() as patched:
        patched.setattr(PredictionWriter, "add", add)
        assert isinstance(predict(line, tmp_path / "out", 2)[0], KeyboardInterrupt)
    assert len(journal(tmp_path / "out")) == 8
    assert predict(line, tmp_path / "out", 1, resume=True)[0].skipped == 31
    predict_alone(line, tmp_path / "one", overlays="none")
    assert untimed(tmp_path / "out") == untimed(tmp_path / "one")


def test_an_image_named_twice_has_two_rows(line, tmp_path):
    listed = line / "list.txt"
    listed.write_text("0/00.png\n1/01.png\n0/00.png\n0/00.png\n")
    predict(listed, tmp_path / "out", 2, batch_size=1)
    assert check_agreement(tmp_path / "out") == ["0/00.png", "1/01.png", "0/00.png", "0/00.png"]


def test_a_folder_that_changes_while_it_is_listed_is_an_error_and_no_image_is_there_twice(line, tmp_path):
    items = list(open_source(str(line)).items)
    late = part(tmp_path / "in/0/02a.png")
    more = list(open_source(str(line)).items)
    assert len(more) == len(items) + 1
    sources = [Source(iter(items), lambda: None), Source(iter(more), lambda: None)]
    error, others = predict(line, tmp_path / "out", 2, sources=sources)
    assert isinstance(error, InputError)
    assert "it changed while the processes listed it, so images may be missing" in str(error)
    assert others.failed == 0
    names = check_agreement(tmp_path / "out")
    assert len(names) == len(set(names)) < len(more)
    counts = predict(line, tmp_path / "out", 2, resume=True)[0]
    assert counts.skipped == len(names)
    assert sorted(check_agreement(tmp_path / "out")) == [item.name for item in more]
    assert late.is_file()


def test_parts_count_as_predictions(line, tmp_path):
    predict(line, tmp_path / "out", 2, detectors=[Stopping(1), Stopping(1)])
    with pytest.raises(InputError, match="already holds predictions; continue them with resume=true"):
        predict_alone(line, tmp_path / "out")
    predict_alone(line, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / PARTS).exists()
    assert len(check_agreement(tmp_path / "out")) == 31


def test_one_process_ends_what_several_began_but_not_by_watching(checkpoint, line, tmp_path, uniad):
    words = [f"ckpt_path={checkpoint}", f"input={line}", f"output_dir={tmp_path / 'out'}", "overlays=none"]
    assert uniad("predict", *words)[0] == 1
    rows = untimed(tmp_path / "out")
    (tmp_path / "out" / PARTS).mkdir()
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    parts = [json.dumps({**json.loads(text), "place": place}) for place, text in enumerate(lines)]
    (tmp_path / "out" / PARTS / "1.jsonl").write_text("\n".join(reversed(parts[3:])) + "\n")
    (tmp_path / "out/predictions.jsonl").write_text("")
    status, _, err = uniad("predict", *words, "resume=true", "watch=true", "stop_after_idle=1")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds parts of several processes; let a call without watch merge them" in err
    status, out, _ = uniad("predict", *words, "resume=true")
    assert status == 1
    assert out.startswith("3 images: ")
    assert "; 28 more done before (1 of them failed); " in out
    assert untimed(tmp_path / "out") == rows


def memory_of_a_merge(folder, rows):
    with PredictionWriter(folder, overlays="none", settings={}) as whole:
        (folder / PARTS).mkdir()
        for rank in range(2):
            with (folder / PARTS / f"{rank}.jsonl").open("w") as file:
                for place in range(rank, rows, 2):
                    item = Item(f"folder/part-{place:06d}.png", read=None, size=1, mtime_ns=place)
                    file.write(json.dumps({**empty_row(item, 1.0, ""), "place": place}) + "\n")
        tracemalloc.start()
        merge(folder, whole, once=False)
        return tracemalloc.get_traced_memory()[1]


def test_memory_stays_flat_when_many_rows_become_one_file(tmp_path):
    rows = 10_000
    peak = alone(memory_of_a_merge, tmp_path, rows)
    assert [row["mtime_ns"] for row in journal(tmp_path)] == list(range(rows))
    assert peak < 4 << 20  # 1000 rows at once; all would take 10


def test_a_folder_that_comes_where_an_image_is_being_drawn(tmp_path):
    class Interrupted(Inspection):
        def overlay(self):
            (tmp_path / "overlays/a.png.png").mkdir(exist_ok=True)  # as another process does for a.png.png/b.png
            return super().overlay()

    image = np.zeros((4, 4, 3), dtype=np.uint8)
    overlay, mask = OverlayFiles(tmp_path).draw(Item("a.png", read=None), Interrupted(image, calibrated=True))
    assert overlay.startswith("overlays/a.png~")
    assert sorted(images_of(tmp_path)) == sorted([Path(overlay), Path(mask)])


# Which process this is.


@pytest.fixture
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_RANK"))]:
        monkeypatch.delenv(name)
    return monkeypatch.setenv


def test_one_process_meets_nobody(environment):
    assert join() is ALONE
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():  # the script of a batch job
        environment(name, value)
    assert join() is ALONE
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        environment(name, value)
    assert join() is ALONE


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "")])
def test_numbers_that_make_no_sense(environment, rank, count):
    environment("RANK", rank)
    environment("WORLD_SIZE", count)
    with pytest.raises(InputError, match=f"RANK={rank}, WORLD_SIZE={count}, LOCAL_RANK=0 in the environment: expected"):
        join()


def test_a_process_that_cannot_meet_the_others(environment):
    environment("RANK", "0")
    environment("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="process 0 of 2: cannot reach the others at env://: start all by"):
        join()


def test_each_process_has_a_gpu_of_its_own_as_far_as_there_are_enough(monkeypatch):
    processes, _ = meeting(5)
    assert [process.device("cpu") for process in processes] == ["cpu"] * 5
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [process.device("auto") for process in processes] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
    assert processes[1].device("cuda:3") == "cuda:3"
    assert ALONE.device("auto") == "auto"


def test_an_error_of_any_process_ends_all_of_them():
    processes, _ = meeting(3)

    def work(process):
        try:
            with process.agreed():
                if process.rank:
                    raise InputError(f"of process {process.rank}")
        except Exception as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, processes))
    assert [type(error) for error in found] == [OtherProcessFailed, InputError, OtherProcessFailed]
    assert str(found[1]) == "of process 1"
