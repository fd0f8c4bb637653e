"""A yardstick for the features themselves: the distance of each patch to its nearest one in a bank of good patches.

    python benchmarks/memory_bank.py backbone=efficientnet_lite0 backbone.weights=FILE data.root=DIR data.limit=150

One bank for all products, a random tenth of all patches of the train images; no training. Prints AUROC per product and
their mean. `standardize=true` compares standardised features.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.build import build_data, build_module
from uniad_lightning.cli import conf_dir
from uniad_lightning.metrics import AnomalyMetrics
from uniad_lightning.models.standardize import Standardize
from uniad_lightning.results.tables import show_evaluation
from uniad_lightning.scoring import upsample

SHARE = 0.1


def nearest(tokens: Tensor, bank: Tensor) -> Tensor:
    """Distance of each token (B, N, C) to its nearest in the bank (M, C): (B, N)."""
    squares = bank.square().sum(1)
    found = [(squares - 2 * image @ bank.T).amin(1) + image.square().sum(1) for image in tokens]
    return torch.stack(found).clamp(min=0).sqrt()


@torch.inference_mode()
def main(words: list[str]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["experiment=mvtec", "data.cache=off", *words])
    module = build_module(cfg).eval()
    data = build_data(cfg.data, module)
    data.setup()

    def batches(records: tuple) -> Iterator[dict]:
        dataset = data._dataset(records)
        for start in tqdm(range(0, len(records), 16), unit="batch"):
            yield dataset.collate([dataset[i] for i in range(start, min(start + 16, len(records)))])

    def tokens(batch: dict) -> Tensor:
        return module.features(batch).flatten(2).transpose(1, 2)

    generator = torch.Generator().manual_seed(cfg.seed)
    kept = []
    for batch in batches(data.splits.train):
        patches = tokens(batch).flatten(0, 1)
        kept.append(patches[torch.randperm(len(patches), generator=generator)[: round(SHARE * len(patches))]])
    scale = Standardize(channels=sum(module.backbone.channels)) if cfg.standardize else torch.nn.Identity()
    if cfg.standardize:
        scale.fit([torch.cat(kept)[None]])
    bank = scale(torch.cat(kept)[None])[0]
    splits = data.splits
    metrics = AnomalyMetrics(categories=splits.categories, num_images=len(splits.test), foreign=set())
    for batch in batches(splits.test):
        maps = nearest(scale(tokens(batch)), bank).unflatten(1, module.backbone.grid)
        metrics.update(
            maps=maps, scores=module.score(upsample(maps, data.map_size)), masks=batch["mask"],
            has_mask=batch["has_mask"], labels=batch["label"], categories=batch["category"], indices=batch["index"],
        )  # fmt: skip
    show_evaluation(metrics.compute())
    print(f"bank: {len(bank)} patches of {bank.shape[1]} channels ({np.round(bank.numel() * 4 / 1e6, 1)} MB)")


if __name__ == "__main__":
    main(sys.argv[1:])
