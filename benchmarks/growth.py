"""Training from the feature cache at 500, 5,000 and 50,000 images: time of a step and memory, which should be flat.

A small network on features of 16 channels and 8x8 cells, each size in a process of its own, so that its memory is its
own; images are places in one file, so that none has to exist.
"""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch
from timing import Row

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.cached_split import CachedSplit
from uniad_lightning.data.feature_cache.encoding import signatures
from uniad_lightning.data.feature_cache.loader import CachedLoader
from uniad_lightning.data.feature_cache.store import DiskStore
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.data.sampling import AllImages, TrainBatches
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.uniad import UniAD

SIZES, SHAPE, BATCH = (500, 5_000, 50_000), (16, 8, 8), 16


def anonymous_memory() -> float:
    """Memory of this process that is no file, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


def measure(folder: str, count: int, steps: int, found: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Seconds of a step and MB of anonymous memory with `count` cached images."""
    torch.set_num_threads(1)
    file = Path(folder) / "images"
    file.touch()
    records = [Record(Packed(file, i), (), "product", "good", 0) for i in range(count)]
    store = DiskStore(cache=Path(folder), about={"images": count}, shape=SHAPE)
    names = signatures(records)
    for start in range(0, count, 1000):
        part = names[start : start + 1000]
        store.add(part, torch.randn(len(part), *SHAPE), [b""] * len(part))
    unchanged = Augmentation(flip=0, flip_vertical=0, rotate=0, colour=0, seed=0)
    dataset = InspectionDataset(
        records=records, categories=["product"], image_size=(64, 64), mean=[0] * 3, std=[1] * 3, augmentation=unchanged
    )
    order = AllImages(categories=["product"] * count, seed=0)
    network = UniAD(
        channels=SHAPE[0], grid=SHAPE[1:], hidden_dim=32, num_heads=4, feedforward_dim=64, num_encoder_layers=1,
        num_decoder_layers=1, dropout=0.1, neighbor_size=3, masked=[True] * 3,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters())
    split, seconds, done = CachedSplit(dataset=dataset, store=store), [], 0
    while len(seconds) < steps:
        batches = TrainBatches(
            order=order, count=count, batch_size=BATCH, rank=0, world_size=1, position=lambda done=done: done
        )
        start = time.perf_counter()
        for batch in CachedLoader(split=split, batches=batches, masks=False):
            tokens = batch["feature"].float().flatten(2).transpose(1, 2)
            optimizer.zero_grad()
            (network(tokens) - tokens).square().mean().backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            if len(seconds) == steps:
                break
        done += len(batches)
    found.put((statistics.median(seconds), anonymous_memory()))


def rows(quick: bool) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    turns: dict[int, list[tuple[float, float]]] = {count: [] for count in SIZES}
    for _ in range(1 if quick else 5):
        for count in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                found = context.Queue()
                process = context.Process(target=measure, args=(folder, count, 100 if quick else 300, found))
                process.start()
                turns[count].append(found.get())
                process.join()
    seconds, memory = ({n: statistics.median(turn[i] for turn in turns[n]) for n in SIZES} for i in range(2))
    few, many = SIZES[0], SIZES[1:]
    return [
        *({"row": f"a step at {n:,} cached images: at {few}", "ours": seconds[n], "opponent": seconds[few],
           "ratio": seconds[few] / seconds[n], "target": 0.9, "unit": "s"} for n in many),
        *({"row": f"anonymous memory at {n:,} cached images: at {few}", "ours": memory[n], "opponent": memory[few],
           "ratio": memory[few] / memory[n], "target": 0.9, "unit": "MB"} for n in many),
    ]  # fmt: skip
