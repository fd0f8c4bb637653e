"""Train the packaged `tiny` backbone on CIFAR-10 and write its weights with their record.

    python scripts/train_tiny_backbone.py ROOT_OF_CIFAR10 OUT.safetensors

The network is timm's ResNet with basic blocks and narrow stages. CIFAR-10's 32 pixels are enlarged to 64, so that
its levels at strides 4, 8 and 16 have details to distinguish. On two CPU cores it takes about half an hour.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from uniad_lightning.data.layouts.cifar10 import read_cifar10

ARCHITECTURE = "resnet18"
ARGUMENTS = {"channels": [32, 64, 128, 128], "stem_width": 16, "stem_type": "deep"}
MEAN = STD = (0.5, 0.5, 0.5)
SIZE = 64


def to_input(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, 32, 32) uint8 -> (B, 3, 64, 64) normalised as the backbone expects."""
    x = F.interpolate(images.float() / 255, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return ((x - MEAN[0]) / STD[0]).to(memory_format=torch.channels_last)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random 4-pixel shift, mirror, contrast and brightness, each drawn per image; (B, 3, 32, 32) uint8 -> the same."""
    count = len(images)
    padded = F.pad(images.float(), (4, 4, 4, 4), mode="reflect")
    top, left = torch.randint(0, 9, (2, count), generator=generator)
    rows = top[:, None] + torch.arange(32)
    columns = left[:, None] + torch.arange(32)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    x = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = 25 * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    return ((x - 128) * contrast + 128 + brightness).clamp(0, 255)


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images classified correctly, in float32."""
    model.eval()
    correct = sum(
        (model(to_input(images[i : i + 500])).argmax(1) == labels[i : i + 500]).sum().item()
        for i in range(0, len(images), 500)
    )
    return correct / len(images)


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, options: argparse.Namespace) -> None:
    """Train `model` by SGD with Nesterov momentum and a one-cycle schedule; matrix products in bfloat16."""
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=options.weight_decay
    )
    per_epoch = len(images) // options.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=options.epochs * per_epoch, pct_start=0.2
    )
    bar = tqdm(total=options.epochs * per_epoch, unit="step", mininterval=5)
    for epoch in range(options.epochs):
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for step in range(per_epoch):
            chosen = order[step * options.batch_size : (step + 1) * options.batch_size]
            x = to_input(augment(images[chosen], generator))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(epoch=epoch, loss=f"{loss.item():.3f}", refresh=False)
    bar.close()


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=5000, help="train images of each class (fewer to try it out)")
    return parser.parse_args()


def read_train_images(root: Path, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `per_class` train images of each class, (B, 3, 32, 32) uint8, and their labels (B,)."""
    images, labels = read_cifar10(root, "train")
    keep = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)])
    return torch.from_numpy(images[keep]).permute(0, 3, 1, 2), torch.from_numpy(labels[keep])


def main() -> None:
    """Train, test and write the backbone."""
    options = read_options()
    torch.manual_seed(options.seed)
    test_images, test_labels = (torch.from_numpy(array) for array in read_cifar10(options.root, "test"))
    images, labels = read_train_images(options.root, options.per_class)
    model = timm.create_model(ARCHITECTURE, num_classes=10, **ARGUMENTS).to(memory_format=torch.channels_last)

    start = time.time()
    train(model, images, labels, options)
    seconds = time.time() - start
    weights = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    test_accuracy = accuracy(model, test_images.permute(0, 3, 1, 2), test_labels)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, options.out)
    record = {
        "architecture": ARCHITECTURE,
        "arguments": ARGUMENTS,
        "data": f"CIFAR-10, {len(images)} train images enlarged to {SIZE} pixels",
        "input_mean": MEAN,
        "input_std": STD,
        "settings": {k: v for k, v in vars(options).items() if k not in ("root", "out")},
        "augmentation": "shift by up to 4 pixels, mirror, contrast 0.8-1.2, brightness +-25 of 255",
        "stored_as": "float16",
        "test_accuracy": test_accuracy,
        "train_seconds": round(seconds),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    options.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"test accuracy {test_accuracy:.4f} after {seconds:.0f} s; {options.out}")


if __name__ == "__main__":
    main()
