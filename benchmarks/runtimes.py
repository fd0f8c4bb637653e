"""The runtimes of an exported file beside each other: time on a CPU, and what each precision costs in AUROC on each.

    python benchmarks/runtimes.py [--repeats 9]
    python benchmarks/runtimes.py --checkpoint RUN/checkpoints/last.ckpt [--data mvtec_ad] [--limit 40]

The first is of the paper's network with EfficientNet-B4 and random weights; the second is of a trained checkpoint, with
its AUROC on its own test split, or on at most `--limit` images of each kind. Times are of an image of 1024 x 1024
pixels in memory to its score; in one process, all in turn, one thread for each. Opponent in every row is the
checkpoint, run by torch.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from all import show
from exported import CPU, evaluate, good_pictures, paper, pictures
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from timing import Row, compare, in_turn, machine

from uniad_lightning.data.records import Splits
from uniad_lightning.data.selection import limit_images
from uniad_lightning.exporting.export import export_detector
from uniad_lightning.exporting.plan import Plan
from uniad_lightning.inspection.engines.base import Engine
from uniad_lightning.inspection.engines.checkpoint import TorchEngine, load_engine
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.engines.openvino_runtime import OpenVinoEngine
from uniad_lightning.training.build import build_data
from uniad_lightning.training.checkpoint import load_checkpoint

RUNTIMES = {"ONNX Runtime": OnnxEngine, "OpenVINO": OpenVinoEngine}


def opened(engine: TorchEngine, folder: Path, splits: Splits) -> dict[str, Engine]:
    """A file of each precision of `engine`, run by each runtime on the CPU."""
    files: dict[str, Engine] = {}
    for precision in engine.module.precisions:
        path = folder / f"{precision}.onnx"
        export_detector(engine, Plan(path, "onnx", precision), categories=[], splits=splits)
        files |= {f"{name} {precision}": make(str(path), "cpu") for name, make in RUNTIMES.items()}
    return files


def rows(engines: dict[str, Engine], repeats: int) -> list[Row]:
    """Seconds of an image, alone and in batches of 4."""
    images = pictures(4)
    measured: list[Row] = []
    for batch in (1, len(images)):
        calls = {name: partial(one, images[:batch]) for name, one in engines.items()}
        scores = {name: call().scores for name, call in calls.items()}
        if not np.allclose(scores["OpenVINO fp32"], scores["ONNX Runtime fp32"], rtol=1e-4):
            raise SystemExit(f"the runtimes differ: {scores}")
        seconds = in_turn(calls, repeats=repeats)
        shares = {name: [second / batch for second in times] for name, times in seconds.items()}
        measured += [
            compare(f"an image of batch {batch}, {name}: checkpoint", shares[name], shares["checkpoint"])
            for name in engines
            if name != "checkpoint"
        ]
    return measured


def of_paper(repeats: int, console: Console) -> None:
    """Print the times of the paper's network."""
    engine = paper()
    with tempfile.TemporaryDirectory() as folder:
        files = opened(engine, Path(folder), good_pictures(Path(folder)))
        show(rows({"checkpoint": engine, **files}, repeats), console)


def of_checkpoint(checkpoint: str, root: str | None, limit: int | None, repeats: int, console: Console) -> None:
    """Print the times, and image and pixel AUROC, of the checkpoint and of each file on each runtime."""
    engine = load_engine(checkpoint, CPU)
    saved = OmegaConf.create(load_checkpoint(checkpoint)["config"])
    if root is not None:
        saved.data.root = root
    data = build_data(saved.data, engine.module)
    data.setup()
    splits = data.splits if limit is None else limit_images(data.splits, limit)
    table = Table("", "image AUROC", "pixel AUROC", title=f"{len(splits.test)} images; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        engines: dict[str, Engine] = {"checkpoint": engine, **opened(engine, Path(folder), data.splits)}
        show(rows(engines, repeats), console)
        for name, one in engines.items():
            mean = evaluate(one, data, splits.test).mean
            table.add_row(name, f"{mean.image_auroc:.4f}", f"{mean.pixel_auroc:.4f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", help="where its data lie, if elsewhere than in the training")
    parser.add_argument("--limit", type=int, help="images of each product and kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=140)
    if options.checkpoint is None:
        of_paper(options.repeats, console)
    else:
        of_checkpoint(options.checkpoint, options.data, options.limit, options.repeats, console)


if __name__ == "__main__":
    main()
