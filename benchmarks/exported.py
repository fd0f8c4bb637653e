"""Exported files beside the checkpoint: time on a CPU, and with `--auroc` what smaller numbers cost in AUROC.

    python benchmarks/all.py --only exported
    python benchmarks/exported.py --auroc RUN/checkpoints/last.ckpt mvtec_ad [--limit 40]

The first is of the paper's network with EfficientNet-B4 and random weights; the second of a trained checkpoint on its
own test split, or on at most `--limit` images of each kind. Opponent in every row is the checkpoint, run by torch.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from timing import Row, compare, in_turn, machine

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.tiling import WHOLE
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.selection import limit_images
from uniad_lightning.data.synthetic.dataset import render
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.exporting.export import export_detector
from uniad_lightning.exporting.plan import PRECISIONS, Plan
from uniad_lightning.inspection.engines.base import Engine
from uniad_lightning.inspection.engines.checkpoint import TorchEngine, load_engine
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.engines.program import ProgramEngine
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Evaluation
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.scoring import ImageScore
from uniad_lightning.training.build import build_data
from uniad_lightning.training.checkpoint import load_checkpoint

GRID, SIDE = (14, 14), 1024
CPU = torch.device("cpu")


def rows(quick: bool) -> list[Row]:
    """Seconds of an image of 1024 x 1024 pixels in memory, alone and in batches of 16: checkpoint and files in turn."""
    engine = paper()
    images = [np.asarray(picture) for picture in pictures(4 if quick else 16)]
    measured: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        files = exported(engine, Path(folder), good_pictures(Path(folder)))
        for batch in (1, len(images)):
            engines: dict[str, Engine] = {"checkpoint": engine, **files}
            calls = {name: partial(one, images[:batch]) for name, one in engines.items()}
            for call in calls.values():
                call()
            seconds = in_turn(calls, repeats=2 if quick else 9)
            per_image = {name: [second / batch for second in times] for name, times in seconds.items()}
            measured += [
                compare(f"an image of batch {batch}, {name}: checkpoint", per_image[name], per_image["checkpoint"])
                for name in files
            ]
    return measured


def exported(engine: TorchEngine, folder: Path, splits: Splits) -> dict[str, Engine]:
    """Every file that `uniad export` writes of `engine`, ready to run on the CPU; says how large each is."""
    files: dict[str, Engine] = {}
    for precision in PRECISIONS:
        path = folder / f"{precision}.onnx"
        done = export_detector(engine, Plan(path, "onnx", precision), categories=[], splits=splits)
        print(f"ONNX {precision}: {done.megabytes:.1f} MB, map differs by up to {done.agreement.map:.1e} of its range")
        files[f"ONNX {precision}"] = OnnxEngine(str(path), "cpu")
    path = folder / "fp32.pt2"
    done = export_detector(engine, Plan(path, "torch", "fp32"), categories=[], splits=splits)
    print(f"torch.export: {done.megabytes:.1f} MB, map differs by up to {done.agreement.map:.1e} of its range")
    files["torch.export"] = ProgramEngine(str(path))
    return files


def paper() -> TorchEngine:
    """The paper's network on EfficientNet-B4 with random weights, which take the same time as trained ones."""
    torch.manual_seed(0)
    backbone = Backbone(name="tf_efficientnet_b4.aa_in1k", levels=[0, 1, 2, 3], grid=GRID, weights="random")
    network = UniAD(
        channels=sum(backbone.channels), grid=GRID, hidden_dim=256, num_heads=8, feedforward_dim=1024,
        num_encoder_layers=4, num_decoder_layers=4, dropout=0.1, neighbor_size=7, masked=[True] * 3,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    )  # fmt: skip
    module = FeatureReconstruction(
        backbone=backbone, network=network, loss=MSELoss(), score=ImageScore(kind="max", window=16),
        optimizer=torch.optim.AdamW, schedule=torch.optim.lr_scheduler.StepLR, seed=0, standardize=False,
    )  # fmt: skip
    return TorchEngine(
        module=module, framing=WHOLE, image_size=(224, 224), mean=backbone.mean, std=backbone.std, device=CPU,
        calibration=None, familiarity=None,
    )  # fmt: skip


def pictures(count: int) -> list[np.ndarray]:
    """Synthetic parts, (1024, 1024, 3) uint8."""
    from PIL import Image

    parts = [Image.fromarray(render("gear", "good", number, size=256).image) for number in range(count)]
    return [np.asarray(part.resize((SIDE, SIDE))) for part in parts]


def good_pictures(folder: Path) -> Splits:
    """A few of them as files, for the ranges of int8."""
    from PIL import Image

    paths = [folder / f"{number}.png" for number in range(4)]
    for path, picture in zip(paths, pictures(4), strict=True):
        Image.fromarray(picture).save(path)
    records = tuple(Record(path, (), "gear", "good", 0) for path in paths)
    return Splits(categories=("gear",), train=records, test=records[:1])


def evaluate(engine: Engine, data: UnifiedDataModule, records: Sequence[Record]) -> Evaluation:
    """What the metrics say of `engine` on the test images `records`."""
    metrics = AnomalyMetrics(categories=data.splits.categories, num_images=len(records))
    for place, record in enumerate(records):
        seen = engine([read_image(record.image)])
        mask = data.framing.read(record, data.image_size)[1]
        metrics.update(
            maps=torch.from_numpy(seen.maps),
            scores=torch.from_numpy(seen.scores),
            masks=torch.from_numpy(mask)[None],
            has_mask=torch.tensor([bool(record.masks) or record.label == 0]),
            labels=torch.tensor([record.label]),
            categories=torch.tensor([data.splits.categories.index(record.category)]),
            indices=torch.tensor([place]),
        )
    return metrics.compute()


def auroc(checkpoint: str, root: str, limit: int | None, console: Console) -> None:
    """Print image and pixel AUROC of the checkpoint and of each file, and what the file loses."""
    engine = load_engine(checkpoint, CPU)
    saved = OmegaConf.create(load_checkpoint(checkpoint)["config"])
    saved.data.root = root
    data = build_data(saved.data, engine.module)
    data.setup()
    splits = data.splits if limit is None else limit_images(data.splits, limit)
    table = Table("", "image AUROC", "lost", "pixel AUROC", "lost", title=f"{len(splits.test)} images; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        engines = {"checkpoint": engine, **exported(engine, Path(folder), data.splits)}
        found = {name: evaluate(one, data, splits.test).mean for name, one in engines.items()}
    for name, row in found.items():
        numbers = [row.image_auroc, row.pixel_auroc]
        lost = [
            theirs - own
            for own, theirs in zip(
                numbers, (found["checkpoint"].image_auroc, found["checkpoint"].pixel_auroc), strict=True
            )
        ]
        table.add_row(name, *(f"{value:.4f}" for pair in zip(numbers, lost, strict=True) for value in pair))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--auroc", nargs=2, metavar=("CHECKPOINT", "DATA"), required=True)
    parser.add_argument("--limit", type=int, help="images of each product and kind")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    auroc(*options.auroc, options.limit, Console(width=120))


if __name__ == "__main__":
    main()
