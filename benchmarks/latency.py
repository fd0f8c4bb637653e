"""From one file of 1024x1024 pixels to its score, by part: the paper's network and backbone, batch 1 and batch 16."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from timing import Row, in_turn

from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.data.synthetic.dataset import render
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.scoring import ImageScore, upsample

SIZE, GRID = (224, 224), (14, 14)


@torch.inference_mode()
def rows(quick: bool) -> list[Row]:
    torch.manual_seed(0)
    backbone = Backbone(name="tf_efficientnet_b4.aa_in1k", levels=[0, 1, 2, 3], grid=GRID, weights="random")
    network = UniAD(
        channels=sum(backbone.channels), grid=GRID, hidden_dim=256, num_heads=8, feedforward_dim=1024,
        num_encoder_layers=4, num_decoder_layers=4, dropout=0.1, neighbor_size=7, masked=[True] * 3,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    ).eval()  # fmt: skip
    loss, score = MSELoss(), ImageScore(kind="max", window=16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.jpg"
        Image.fromarray(render("gear", "good", 0, size=256).image).resize((1024, 1024)).save(path, quality=95)
        source = read_image(path)
        image = torch.from_numpy(resize(source, SIZE)).permute(2, 0, 1)[None].float().div(255)
        measured: list[Row] = []
        for batch in (1, 16):
            images = image.repeat(batch, 1, 1, 1)
            tokens = backbone(images).flatten(2).transpose(1, 2).contiguous()
            rebuilt = network(tokens)

            def to_score(tokens: torch.Tensor = tokens, rebuilt: torch.Tensor = rebuilt) -> torch.Tensor:
                return score(upsample(loss.anomaly_map(tokens, rebuilt).unflatten(1, GRID), SIZE))

            parts: dict[str, Callable[[], object]] = {
                "decode": lambda n=batch: [read_image(path) for _ in range(n)],
                "resize": lambda n=batch: [resize(source, SIZE) for _ in range(n)],
                "backbone": lambda images=images: backbone(images),
                "network": lambda tokens=tokens: network(tokens),
                "map and score": to_score,
            }
            seconds = in_turn(parts, repeats=2 if quick else 9)
            middle = {name: sorted(times)[len(times) // 2] / batch for name, times in seconds.items()}
            whole = sum(middle.values())
            for name, own in middle.items():
                row = f"file to score, an image of batch {batch}: all parts over {name}"
                measured.append(
                    {"row": row, "ours": own, "opponent": whole, "ratio": whole / own, "target": None, "unit": "s"}
                )
    return measured
