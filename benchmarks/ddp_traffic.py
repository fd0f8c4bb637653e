"""Bytes that the processes of a training exchange, in a step and in an evaluation, against gathering pixel scores.

    python benchmarks/ddp_traffic.py

Two gloo processes take a training step of the paper's network under DDP, with a hook that counts its buckets, and
evaluate 1725 images of 15 categories (MVTec AD's numbers), with every collective of the metrics counted. For more
processes the payloads are the same, and what one process sends follows from the ring that NCCL uses: 2 (n-1)/n of an
all-reduce. Gathering means that each process receives (n-1)/n of all scores, 224 x 224 of 4 bytes for each image.
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table
from torch import nn

from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.uniad import UniAD

IMAGES, CATEGORIES, SIZE, CHANNELS = 1725, 15, 224, 272
WORLDS = (2, 8, 64)


def step_bytes() -> int:
    network = UniAD(
        channels=CHANNELS, grid=(14, 14), hidden_dim=256, num_heads=8, feedforward_dim=1024, num_encoder_layers=4,
        num_decoder_layers=4, decoder="a", dropout=0.1, neighbor_size=7, masked=[True] * 3, shared_queries=False,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    )  # fmt: skip
    counted = [0]

    def count(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        counted[0] += bucket.buffer().nbytes
        future = dist.all_reduce(bucket.buffer(), group=group, async_op=True).get_future()
        return future.then(lambda done: done.value()[0] / dist.get_world_size())

    parallel = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    parallel.register_comm_hook(dist.group.WORLD, count)
    tokens = torch.rand(2, 196, CHANNELS)
    (parallel(tokens) - tokens).square().mean().backward()
    return counted[0]


def evaluation_bytes(rank: int) -> int:
    generator = torch.Generator().manual_seed(rank)
    metrics = AnomalyMetrics(categories=[f"c{i}" for i in range(CATEGORIES)], num_images=IMAGES)
    places = torch.arange(rank, IMAGES, 2)
    for start in range(0, len(places), 64):
        index = places[start : start + 64]
        labels = (index // CATEGORIES) % 2
        masks = torch.zeros(len(index), SIZE, SIZE, dtype=torch.bool)
        masks[labels == 1, 50:80, 50:80] = True
        maps = torch.rand(len(index), 14, 14, generator=generator)
        metrics.update(
            maps=maps, scores=maps.amax(dim=(1, 2)), masks=masks, has_mask=torch.ones(len(index), dtype=torch.bool),
            labels=labels, categories=index % CATEGORIES, indices=index,
        )  # fmt: skip
    counted = [0]
    reduce = dist.all_reduce

    def count(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
        counted[0] += tensor.nbytes
        return reduce(tensor, *args, **kwargs)

    dist.all_reduce = count
    metrics.compute()
    dist.all_reduce = reduce
    return counted[0]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = torch.tensor([step_bytes(), evaluation_bytes(rank)])
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (folder,), nprocs=2)
        step, evaluation = torch.load(Path(folder) / "found.pt").tolist()
    pixels = IMAGES * SIZE * SIZE * 4
    table = Table("MB one process sends", "payload", *(f"{n} processes" for n in WORLDS))
    for name, payload, share in (
        ("training step: gradients", step, 2.0),
        ("evaluation: histograms and image scores", evaluation, 2.0),
        ("evaluation by gathering pixels (received)", pixels, 1.0),
    ):
        shown = (payload * share * (n - 1) / n for n in WORLDS)
        table.add_row(name, f"{payload / 1e6:.1f}", *(f"{value / 1e6:.1f}" for value in shown))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
