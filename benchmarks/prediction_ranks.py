"""`uniad predict` by one process and by several, in turn: images/s, processor time of an image, bytes written.

    python benchmarks/prediction_ranks.py runs/demo/checkpoints/last.ckpt [--pictures FOLDER] [--processes 2]

Pictures are those of a folder, or the demo's synthetic ones. Each process has one torch thread. Images/s are those of
the summary line, without the start. The processor time of an image, which is that of a run over all images less that
of a run over one, hardly depends on what else the machine does.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import machine

from uniad_lightning.data.synthetic.dataset import CATEGORIES, render
from uniad_lightning.prediction.sources.folder_walk import walk

BIN = Path(sys.executable).parent


class Run(NamedTuple):
    """How long a call took."""

    rate: float  # images/s of wall clock time
    processor: float  # seconds, with the start


def listed(pictures: Path | None, count: int, folder: Path) -> Path:
    """A list of `count` pictures, of the demo's where none are given, spread over all there are."""
    if pictures is None:
        pictures = folder / "pictures"
        pictures.mkdir()
        for number in range(count):
            product, split = list(CATEGORIES)[number % len(CATEGORIES)], "good" if number % 10 else "scratch"
            Image.fromarray(render(product, split, number).image).save(pictures / f"{number:06d}.png")
    found = [found.path for found in walk(pictures.absolute())]
    path = folder / "list.txt"
    path.write_text("".join(f"{picture}\n" for picture in found[:: max(1, len(found) // count)][:count]))
    return path


def predict(processes: int, checkpoint: str, pictures: Path, output: Path) -> Run:
    launcher = [BIN / "torchrun", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    words = [f"ckpt_path={checkpoint}", f"input={pictures}", f"output_dir={output}", "overwrite=true", "device=cpu"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*(launcher if processes > 1 else []), BIN / "uniad", "predict", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"([\d.]+) images/s", done.stdout)
    if done.returncode or found is None:
        raise SystemExit(done.stderr)
    return Run(float(found[1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    counts = (1, options.processes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, output = listed(options.pictures, options.images, folder), folder / "out"
        one = folder / "one.txt"
        one.write_text(pictures.read_text().splitlines()[0])
        images = len(pictures.read_text().splitlines())
        starts = {count: predict(count, options.checkpoint, one, output) for count in counts}
        turns = [
            {count: predict(count, options.checkpoint, pictures, output) for count in counts}
            for _ in range(options.turns)
        ]
        written = {name: size(output / name) for name in ("predictions.jsonl", "predictions.csv", "overlays", "masks")}
        drawn = len(list(output.glob("overlays/**/*.png")))
    table = Table("processes", "images/s", "processor ms an image", "hours per million", title=machine())
    for count in counts:
        rate = statistics.median(turn[count].rate for turn in turns)
        own = statistics.median(turn[count].processor - starts[count].processor for turn in turns) / images
        table.add_row(str(count), f"{rate:.1f}", f"{1000 * own:.1f}", f"{1e6 / rate / 3600:.1f}")
    ratios = sorted(turn[options.processes].rate / turn[1].rate for turn in turns)
    Console(width=100).print(table)
    middle, low, high = statistics.median(ratios), ratios[0], ratios[-1]
    print(f"images/s of {options.processes} processes over one: {middle:.2f}, {low:.2f} to {high:.2f} in the turns")
    rows = written["predictions.jsonl"] + written["predictions.csv"]
    print(f"a row: {rows / images:.0f} bytes; a drawn picture, of {drawn}: ", end="")
    print(f"{(written['overlays'] + written['masks']) / max(drawn, 1):.0f} bytes of overlay and mask")


if __name__ == "__main__":
    main()
