"""`uniad predict`, `watch=true` and `uniad serve` for an hour: every file once, nothing that grows.

    python benchmarks/endurance.py [predict|watch|serve] --minutes 60 --seed 0 --out runs/endurance

Trains a tiny detector on synthetic images (or takes `--checkpoint`, with its boundary, and `--pictures`), starts the
real command in a process of its own and feeds it: bursts of 1 to 50 files, moved in, written at once or slowly in
pieces, linked, replaced by another content (also of the same size and time), overwritten, renamed, in new folders, with
files between them that are no images or cannot be read; `predict` gets their paths on its standard input, and beside it
every five minutes a call with `resume=true` inspects a folder that has grown; `serve` gets forms, JSON and files of
twelve clients, among them hostile ones, such as hang up or stall, and a checkpoint that is replaced every two minutes.

At the end each row, or answer, is compared with what was fed: once, in order, with the score of its content; overlays
and temporary files with the rows. Every five seconds resident memory, descriptors, threads and disk are noted; a line
through the second half may not rise faster than the bounds in `long_runs/measuring.py`. The load is kept to `--share`
of one core. The three kinds may run at the same time into one `--out`: it gets KIND.json, KIND_samples.csv, and of all
kinds together endurance.json and endurance.png. Ends with status 1 and a line for each fault.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from long_runs.journal import Picture, pictures_of
from long_runs.measuring import BOUNDS, faults_of, growth, write_records, write_samples
from long_runs.predicting import Outcome, Setting, predict, watch
from long_runs.serving_run import serve
from timing import machine

from serving import prepared
from uniad_lightning import Detector

RUNS = {"predict": predict, "watch": watch, "serve": serve}
PICTURES = 24
SHORTEST = 0.25  # minutes
SHOWN = 20  # faults


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=RUNS)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.1, help="of one core, on average")
    parser.add_argument("--out", type=Path, default=Path("runs/endurance"))
    parser.add_argument("--checkpoint", type=Path, help="with a boundary; one is trained otherwise")
    parser.add_argument("--pictures", type=Path, help="a folder of PNG files, with --checkpoint")
    given = parser.parse_args()
    if given.minutes < SHORTEST:
        parser.error(f"--minutes {given.minutes}: expected at least {SHORTEST}, in which there are samples to compare")
    if not 0 < given.share <= 1:
        parser.error(f"--share {given.share}: expected a part of one core, above 0 and up to 1")
    if (given.checkpoint is None) != (given.pictures is None):
        parser.error("--checkpoint and --pictures: expected both, or none of them")
    if given.pictures is not None and not any(given.pictures.rglob("*.png")):
        parser.error(f"--pictures {given.pictures}: holds no PNG file")
    return given


def run(given: argparse.Namespace, folder: Path) -> Outcome:
    if given.checkpoint is None:
        checkpoint, paths = prepared(folder)
    else:
        checkpoint, paths = given.checkpoint.resolve(), sorted(given.pictures.rglob("*.png"))
    chosen = paths[:: max(len(paths) // PICTURES, 1)][:PICTURES]
    pictures: list[Picture] = pictures_of(Detector.load(checkpoint, device="cpu"), chosen, folder)
    setting = Setting(checkpoint, pictures, folder / "fed", 60 * given.minutes, given.share, given.seed)
    setting.folder.mkdir()
    return RUNS[given.kind](setting)


def record(given: argparse.Namespace, outcome: Outcome) -> dict[str, object]:
    curves = growth(outcome.samples)
    outcome.faults += faults_of(curves)
    return {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "minutes": given.minutes, "seed": given.seed,
        "counts": outcome.counts, "samples": len(outcome.samples),
        "curves": {BOUNDS[name].title: values for name, values in curves.items()}, "faults": outcome.faults,
    }  # fmt: skip


def main() -> int:
    given = options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started by `&` in a script, children would ignore it
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        outcome = run(given, Path(folder).resolve())
    found = record(given, outcome)
    (given.out / f"{given.kind}.json").write_text(json.dumps(found, indent=2) + "\n")
    write_samples(given.out / f"{given.kind}_samples.csv", outcome.samples)
    write_records(given.out)
    print(json.dumps({key: found[key] for key in ("counts", "curves")}, indent=2))
    print(*outcome.faults[:SHOWN], sep="\n", file=sys.stderr)
    if len(outcome.faults) > SHOWN:
        print(f"and {len(outcome.faults) - SHOWN} more; all are in {given.out / given.kind}.json", file=sys.stderr)
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
