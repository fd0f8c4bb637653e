"""A yardstick for the features themselves: the distance of each patch to its nearest one in a bank of good patches.

    python benchmarks/memory_bank.py backbone=efficientnet_lite2 backbone.weights=FILE data.root=DIR data.limit=100 \
        backbone.only_deepest=true standardize=true +coreset=0.1

One bank for all products, of all patches of the train images or of a coreset of them; no training. Features are
averaged over 3x3 cells. Prints AUROC per product and their mean. `standardize=true` compares standardised features.
"""

import sys
from collections.abc import Iterator

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics
from uniad_lightning.models.coreset import coreset
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.memory_bank import MemoryBank
from uniad_lightning.results.tables import show_evaluation
from uniad_lightning.scoring import upsample
from uniad_lightning.training.build import build_data, build_module


@torch.inference_mode()
def main(words: list[str]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["experiment=mvtec", "data.cache=off", *words])
    module = build_module(cfg).eval()
    data = build_data(cfg.data, module)
    data.setup()
    channels = sum(module.backbone.channels)
    bank = MemoryBank(channels=channels, window=3, neighbors=9, half=False, megabytes=16)

    def batches(records: tuple) -> Iterator[dict]:
        dataset = data._dataset(records)
        for start in tqdm(range(0, len(records), 16), unit="batch"):
            yield dataset.collate([dataset[i] for i in range(start, min(start + 16, len(records)))])

    scale = Standardize(channels=channels) if cfg.standardize else torch.nn.Identity()

    def patches(features: Tensor) -> Tensor:
        tokens = scale(features.flatten(2).transpose(1, 2))
        return bank.average(tokens.transpose(1, 2).unflatten(2, module.backbone.grid)).flatten(2).transpose(1, 2)

    train = torch.cat([module.features(batch) for batch in batches(data.splits.train)])
    if cfg.standardize:
        scale.fit([train.flatten(2).transpose(1, 2)])
    kept = patches(train).flatten(0, 1)
    share = cfg.get("coreset")
    if share is not None:
        kept = kept[coreset(kept, share, seed=cfg.seed, progress=True, dim=None)]
    bank.append(kept, torch.zeros(len(kept), dtype=torch.int64))
    splits = data.splits
    metrics = AnomalyMetrics(categories=splits.categories, num_images=len(splits.test), foreign=set())
    for batch in batches(splits.test):
        maps = bank(patches(module.features(batch))).unflatten(1, module.backbone.grid)
        metrics.update(
            maps=maps, scores=module.score(upsample(maps, data.map_size)), masks=batch["mask"],
            has_mask=batch["has_mask"], labels=batch["label"], categories=batch["category"], indices=batch["index"],
        )  # fmt: skip
    show_evaluation(metrics.compute())
    print(f"bank: {len(kept)} patches of {channels} channels ({kept.nbytes / 1e6:.1f} MB)")


if __name__ == "__main__":
    main(sys.argv[1:])
