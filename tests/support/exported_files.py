"""Small calibrated checkpoints to export, and what the comparison of two engines looks at."""

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support.settings import SMALL
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.exporting.verify import generated_images
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.inspection.engines.checkpoint import load_engine
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.training.build import build_module
from uniad_lightning.training.checkpoint import pack_ignored

UNIAD = [word for word in SMALL if word.startswith("model.")]
OTHERS = [word for word in SMALL if not word.startswith(("model.", "backbone.weights"))]
CPU = torch.device("cpu")
# Each of the networks and kinds of score, loss, cutting and size that there are, in as few exports as they fit in.
VARIANTS = {
    "whole": [*UNIAD, "score.window=5"],
    "tiles": [
        "model=mlp", "model.grid=[8,8]", "model.hidden_dim=32", "model.num_encoder_layers=1",
        "model.num_decoder_layers=1", "score=mean", "loss=normalized_mse", "standardize=true",
        "data.framing.tiles=[2,3]", "data.framing.region=[0.1,0.05,0.95,0.8]", "ignored",
    ],
    "sides": [
        "model=cnn", "model.grid=[6,10]", "model.hidden_dim=16", "score=mean", "score.kind=std", "loss=cosine",
        "data.image_size=[48,80]",
    ],
}  # fmt: skip


def write_checkpoint(path, tree, words):
    """What `uniad train` and `uniad calibrate` would leave, with a network that has learned nothing."""
    given = [word for word in words if word != "ignored"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*OTHERS, f"data.root={tree}", "name=x", f"output_dir={path.parent}", *given])
    module = build_module(cfg, announce=False)
    if cfg.standardize:
        module.standardize.fit([torch.randn(2, 64, 96) * torch.rand(96) + torch.rand(96)])
    checkpoint = {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "state_dict": module.state_dict(),
        "loops": {},
        "categories": ["bottle", "cable"],
    }
    if "ignored" in words:
        ignored = np.zeros((20, 30), dtype=bool)
        ignored[3:9, 4:14] = True
        checkpoint["ignore"] = pack_ignored(ignored)
    torch.save(checkpoint, path)
    output = load_engine(str(path), CPU).inspect([image for batch in generated_images() for image in batch])
    middle = output.score.sort().values[4:6].mean().item()  # no image's own score, which rounding would decide
    boundary = Boundary(middle, output.map.max().item() / 2, 1.0, 20, 0.05, 0.01, 0.2)
    checkpoint["calibration"] = Calibration("rate=0.01", boundary, {"bottle": boundary}).plain()
    owners = torch.tensor([1, 0, 1])
    checkpoint["familiarity"] = Familiarity(
        references=output.descriptor[3:6], boundary=0.7, names=("bottle", "cable"), owners=owners
    ).plain()
    torch.save(checkpoint, path)
    return path
