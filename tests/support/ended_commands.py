"""The commands that tests end at any point: tiny ones, what goes on after an end, and what their result is."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from support.ends import run
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.files.sealed import is_damaged


class Command(NamedTuple):
    """A command, what is added to its words when it goes on, and what is the same after any end.

    Attributes:
        words: with RUN for a trained checkpoint, OUT for the folder of the command, CACHE for one beside it that is on
            no small disk, since a feature cache leaves a gigabyte free, TREE for the data.
        more: when it goes on.
        result: which of `RESULTS` reads what it has made.
    """

    words: str
    more: str
    result: str


TRAINING = (
    f"{' '.join(SMALL)} data.root=TREE data.held_out=0.2 logger=none yardstick=false callbacks.heatmaps.per_category=1"
)
SHORT = f"{TRAINING} trainer.max_epochs=1 data.cache=memory"
WATCH = "input=TREE/cable watch=true stop_after_idle=0.3"
SEARCH = "sweep=search hydra.sweeper.trials=2 hydra.sweeper.grace=1"  # for the jitter: TRAINING fixes the rest
COMMANDS = {
    "train": Command(f"train {TRAINING} data.cache_dir=CACHE calibrate=true output_dir=OUT/run resume=auto", "", "run"),
    "predict": Command(
        "predict ckpt_path=RUN input=TREE/bottle overlays=all device=cpu output_dir=OUT/run", "resume=true", "rows"
    ),
    "watch": Command(
        f"predict ckpt_path=RUN {WATCH} overlays=all device=cpu output_dir=OUT/run", "resume=true", "rows"
    ),
    "calibrate": Command("calibrate ckpt_path=OUT/own.ckpt device=cpu output_dir=OUT/run", "", "boundary"),
    "evaluate": Command("evaluate ckpt_path=RUN output_dir=OUT/run", "", "results"),
    "cache": Command(f"cache {TRAINING} data.cache_dir=CACHE", "", "features"),
    "sweep": Command(f"train -m {SHORT} seed=0,1 output_dir=OUT/run", "", "jobs"),
    "search": Command(f"train -m {SHORT} {SEARCH} output_dir=OUT/run", "", "trials"),
    "export": Command("export ckpt_path=RUN format=torch output=OUT/file.pt2", "", "file"),
}


class Bench:
    """A place with a trained checkpoint, where commands are run whole once, and ended often."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tree = mvtec_tree(folder / "tree", train=6, size=(64, 64))
        self.wholes: dict = {}
        self.run = folder / "run.ckpt"
        first = self.folder / "first"
        assert run(self.words("train", first), first).status == 0, "the first training failed"
        shutil.copy(first / "run/checkpoints/last.ckpt", self.run)

    def words(self, name, out, more=""):
        """The words of a command in the folder `out`."""
        out.mkdir(parents=True, exist_ok=True)
        own = out / "own.ckpt"
        if name == "calibrate" and not own.exists():
            shutil.copy(self.run, own)
        replaced = {
            "OUT": str(out),
            "CACHE": f"{out.parent}-cache/{out.name}",
            "RUN": str(self.run),
            "TREE": str(self.tree),
        }
        text = re.sub("OUT|CACHE|RUN|TREE", lambda found: replaced[found[0]], COMMANDS[name].words)
        return [*text.split(), *more.split()]

    def whole(self, name):
        """The result of a command that was not ended, and how many events it had."""
        if name not in self.wholes:
            out = self.folder / f"whole-{name}"
            ended = run(self.words(name, out), out, counted=True, trace=name != "export")
            assert ended.status == 0, ended.printed
            self.wholes[name] = result_of(name, out), ended.counts
        return self.wholes[name]


def weights(path):
    checkpoint = torch.load(path, weights_only=True)
    return {name: value.numpy() for name, value in checkpoint["state_dict"].items()}


def shown(folder):
    """The files of a folder but for what lists and locks them."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(name for name in names if not name.startswith(".uniad/") and "/.uniad/" not in name)


def of_run(out):
    report = json.loads((out / "run/calibration/calibration.json").read_text())
    return {
        "files": shown(out / "run"), "results": (out / "run/results.csv").read_text(),
        "boundary": {name: value for name, value in report.items() if name != "checkpoint"},
        **weights(out / "run/checkpoints/last.ckpt"),
    }  # fmt: skip


def of_rows(out):
    with (out / "run/predictions.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        row.pop("milliseconds")
    return {"files": shown(out / "run"), "rows": sorted(rows, key=lambda row: row["path"])}


def of_boundary(out):
    report = json.loads((out / "run/calibration.json").read_text())
    report.pop("checkpoint")
    saved = torch.load(out / "own.ckpt", weights_only=True)["calibration"]
    return {"files": shown(out / "run"), "report": report, "saved": saved}


def of_features(out):
    (index,) = Path(f"{out.parent}-cache/{out.name}").glob("*/index.sqlite")
    with sqlite3.connect(index) as connection:
        return {"features": sorted(connection.execute("select signature, checksum, mask from entry"))}


def of_jobs(out):
    jobs = sorted(path.parent for path in (out / "run").glob("*/metrics.json"))
    return {f"{job.name} {key}": value for job in jobs for key, value in (
        ("results", (job / "results.csv").read_text()), *weights(job / "checkpoints/last.ckpt").items(),
    )}  # fmt: skip


def of_trials(out):
    """How many trials are finished; their values follow from how many have failed before."""
    with closing(sqlite3.connect(out / "run/search.db")) as study:
        return {"finished": study.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()}


RESULTS = {
    "run": of_run, "rows": of_rows, "boundary": of_boundary, "features": of_features, "jobs": of_jobs,
    "trials": of_trials,
    "results": lambda out: {"files": shown(out / "run"), "results": (out / "run/results.csv").read_text()},
    "file": lambda out: {"files": shown(out), "damaged": is_damaged(BytesIO((out / "file.pt2").read_bytes()))},
}  # fmt: skip


def result_of(name, out):
    """The result of the command `name` in the folder `out`."""
    return RESULTS[COMMANDS[name].result](out)


def same(one, other):
    """Asserts that two results are equal, arrays to the last bit."""
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    for name, value in one.items():
        equal = np.array_equal(value, other[name]) if isinstance(value, np.ndarray) else value == other[name]
        assert equal, f"{name} differs:\n{value}\n{other[name]}"
