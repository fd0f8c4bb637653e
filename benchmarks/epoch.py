"""An epoch from the second one on, EfficientNet-B4 at 224: from the feature cache against what was done before.

Every step of such an epoch is the same work, so one of 500 images is 500/16 times a step: decoding, backbone and
training step without the cache; reading and training step with it. The second opponent is the reference's way: the
step of `training_step.py`'s opponent on timm's own model in its default layout.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from backbone import LEVELS, NAME, aligned, with_statistics
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from timing import Row, compare, in_turn, prove_equal
from torch import Tensor
from training_step import CHANNELS, CONF, Opponent, training_step

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.cached_split import CachedSplit
from uniad_lightning.data.feature_cache.store import DiskStore
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.records import Record
from uniad_lightning.data.synthetic.dataset import render
from uniad_lightning.models.backbone.feature_pyramid import Backbone

BATCH, IMAGES = 16, 500


def rows(quick: bool) -> list[Row]:
    torch.manual_seed(0)
    model = OmegaConf.load(CONF / "model" / "uniad.yaml")
    theirs = with_statistics(timm.create_model(NAME, features_only=True, out_indices=LEVELS)).eval()
    backbone = Backbone(name=NAME, levels=LEVELS, grid=model.grid, weights="random")
    backbone.model.load_state_dict(theirs.state_dict(), strict=False)
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for i in range(BATCH):
            path = Path(folder) / f"{i}.jpg"
            Image.fromarray(render("gear", "good", i, size=256).image).resize((700, 700)).save(path, quality=95)
            records.append(Record(path, (), "gear", "good", 0))
        unchanged = Augmentation(flip=0, flip_vertical=0, rotate=0, colour=0, seed=0)
        dataset = InspectionDataset(
            records=records, categories=["gear"], image_size=(224, 224), mean=backbone.mean, std=backbone.std,
            augmentation=unchanged,
        )  # fmt: skip
        chosen = list(range(BATCH))

        def decoded() -> Tensor:
            return dataset.collate([dataset[i] for i in chosen])["image"]

        def by_ours(image: Tensor) -> Tensor:
            with torch.inference_mode():
                return backbone(image)

        def by_theirs(image: Tensor) -> Tensor:
            with torch.inference_mode():
                return aligned(theirs(image))

        prove_equal(by_ours(decoded()), by_theirs(decoded()), "epoch")
        store = DiskStore(cache=Path(folder), about={}, shape=(CHANNELS, *model.grid))
        split = CachedSplit(dataset=dataset, store=store)
        split.fill(chosen, extract=by_ours, batch_size=BATCH, num_workers=0, show=False)
        split.refresh()
        prove_equal(split.features(chosen).float(), by_ours(decoded()), "epoch, in float16", tolerance=1e-3)

        clip = OmegaConf.load(CONF / "trainer" / "default.yaml").gradient_clip_val
        settings = instantiate(OmegaConf.load(CONF / "optimizer" / "adamw.yaml"))
        ours, other = instantiate(model, channels=CHANNELS), Opponent(model)
        optimizers = {network: settings(network.parameters()) for network in (ours, other)}

        def learn(network: torch.nn.Module, feature: Tensor) -> None:
            tokens = feature.float().flatten(2).transpose(1, 2).contiguous()
            training_step(network, tokens, optimizers[network], clip)()

        steps: dict[str, Callable[[], object]] = {
            "cached": lambda: learn(ours, split.features(chosen)),
            "anew": lambda: learn(ours, by_ours(decoded()).clone()),
            "reference": lambda: learn(other, by_theirs(decoded()).clone()),
        }
        in_turn(steps, repeats=1)
        seconds = in_turn(steps, repeats=2 if quick else 5)
    epochs = {name: [second * IMAGES / BATCH for second in times] for name, times in seconds.items()}
    what = f"an epoch of {IMAGES} images from the cache, EfficientNet-B4 at 224"
    return [
        compare(f"{what}: without cache", epochs["cached"], epochs["anew"], 1.4),
        compare(f"{what}: torch's own layers, timm's default layout", epochs["cached"], epochs["reference"], 7),
    ]
