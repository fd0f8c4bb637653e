"""Train the reference implementation's network beside a finished run of ours: same features, order and steps.

    git clone https://github.com/zhiyuanyou/UniAD REFERENCE
    python benchmarks/beside_reference.py REFERENCE RUN_FOLDER

Backbone, data, optimizer, schedule, order and evaluation are those of the run; only the reconstruction network is the
reference's (it needs `einops`). Prints both results and leaves `reference.json` in the run folder.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.randomness import key, permutation, seed_step
from uniad_lightning.results.run_folder import read_metrics, write_text
from uniad_lightning.scoring import upsample


def reference_network(repository: Path, model, channels: int) -> nn.Module:
    """The reference's network with the settings of `model`, its calls to `.cuda()` made to stay where they are."""
    sys.path.insert(0, str(repository))
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *args, **kwargs: self
    from models.reconstructions.uniad import UniAD  # the reference's own package

    size = model.neighbor_size
    return UniAD(
        inplanes=[channels],
        instrides=[1],
        feature_size=list(model.grid),
        feature_jitter=OmegaConf.create({"scale": model.jitter.scale, "prob": model.jitter.prob}),
        neighbor_mask=OmegaConf.create(
            {"neighbor_size": [size, size] if isinstance(size, int) else list(size), "mask": list(model.masked)}
        ),
        hidden_dim=model.hidden_dim,
        pos_embed_type="learned",
        save_recon=False,
        initializer={"method": "xavier_uniform"},
        nhead=model.num_heads,
        num_encoder_layers=model.num_encoder_layers,
        num_decoder_layers=model.num_decoder_layers,
        dim_feedforward=model.feedforward_dim,
        dropout=model.dropout,
    )


@torch.inference_mode()
def features(backbone: Backbone, data: InspectionDataset, label: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Features (n, C, h, w) of a whole split, and its masks, labels and categories."""
    parts, rest = [], []
    for start in tqdm(range(0, len(data), 32), desc=f"features of {label}"):
        batch = data.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        parts.append(backbone(batch.pop("image")))
        rest.append(batch)
    return torch.cat(parts).clone(), {name: torch.cat([part[name] for part in rest]).clone() for name in rest[0]}


def train(network: nn.Module, train_features: Tensor, cfg) -> float:
    """The run's steps on the reference's network; returns seconds per step."""
    batch_size, per_epoch = cfg.data.batch_size, len(train_features) // cfg.data.batch_size
    total = cfg.trainer.max_epochs * per_epoch
    optimizer = instantiate(cfg.optimizer)(network.parameters())
    schedule = instantiate(cfg.schedule)(optimizer, total_steps=total)
    loss = MSELoss()
    network.train()
    start = time.perf_counter()
    with tqdm(total=total, desc="reference", mininterval=10) as bar:
        for epoch in range(cfg.trainer.max_epochs):
            order = permutation(len(train_features), seed=cfg.seed, epoch=epoch)
            for step in range(per_epoch):
                seed_step(seed=cfg.seed, epoch=epoch, step=step, rank=0)
                chosen = train_features[order[step * batch_size : (step + 1) * batch_size]]
                output = network({"feature_align": chosen})
                value = loss(output["feature_align"], output["feature_rec"])
                optimizer.zero_grad()
                value.backward()
                nn.utils.clip_grad_norm_(network.parameters(), cfg.trainer.gradient_clip_val)
                optimizer.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{value.item():.4f}", refresh=False)
    return (time.perf_counter() - start) / total


@torch.inference_mode()
def evaluate(network: nn.Module, test: Tensor, rest: dict[str, Tensor], categories, score):
    """The reference network's numbers by our metrics."""
    network.eval()
    metrics = AnomalyMetrics(categories=categories, num_images=len(test))
    for start in range(0, len(test), 32):
        part = {name: value[start : start + 32] for name, value in rest.items()}
        maps = network({"feature_align": test[start : start + 32]})["pred"][:, 0]  # (B, h, w)
        metrics.update(
            maps=maps,
            scores=score(upsample(maps, part["mask"].shape[-2:])),
            masks=part["mask"],
            has_mask=part["has_mask"],
            labels=part["label"],
            categories=part["category"],
            indices=part["index"],
        )
    return metrics.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    cfg = OmegaConf.load(options.run / "config.yaml")
    backbone = instantiate(cfg.backbone)
    data = instantiate(cfg.data, mean=backbone.mean, std=backbone.std)
    data.prepare_data()
    data.setup()
    splits = data.splits
    size = {"categories": splits.categories, "image_size": data.image_size, "mean": data.mean, "std": data.std}
    train_features, _ = features(backbone, InspectionDataset(records=splits.train, **size), "train")
    test_features, rest = features(backbone, InspectionDataset(records=splits.test, **size), "test")
    torch.manual_seed(key("weights", cfg.seed))
    network = reference_network(options.reference, cfg.model, train_features.shape[1])
    seconds = train(network, train_features, cfg)
    result = evaluate(network, test_features, rest, splits.categories, instantiate(cfg.score))
    theirs = {"seconds_per_step": seconds, "mean": result.mean._asdict(), "pooled": result.pooled._asdict()}
    theirs["categories"] = {name: row._asdict() for name, row in result.categories.items()}
    write_text(options.run / "reference.json", json.dumps(theirs, indent=2) + "\n")
    ours = read_metrics(options.run)
    for name in ("image_auroc", "pixel_auroc"):
        mine = f"{ours['mean'][name]:.4f}" if ours else "(not finished)"
        print(f"mean {name}: ours {mine}, reference {theirs['mean'][name]:.4f}")


if __name__ == "__main__":
    main()
