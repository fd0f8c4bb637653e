"""The identical shortcut in features: how well runs reconstruct what is good, what is defective, and noise.

    python benchmarks/shortcut.py RUN...

Of each run folder the relative error of the reconstruction, ||f - f'||^2 / ||f||^2, mean over the products: of the
tokens of good test images; of tokens that a mask covers by a quarter or more, defects that is; and of noise with the
mean and deviation of each channel, which is like no product. 0 is a perfect copy. A network that copies (Sec. 1) has
small numbers everywhere; one that knows good products has a small first one alone.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.training.build import build_saved, build_saved_data

COVERED = 0.25
BATCH = 16


@torch.inference_mode()
def errors(run: Path) -> tuple[float, float, float]:
    """Relative errors of good tokens, defective tokens and noise."""
    module, checkpoint = build_saved(str(run / "checkpoints" / "last.ckpt"))
    module.eval()
    data = build_saved_data(checkpoint, module)
    data.setup()
    dataset = data._dataset(data.splits.test)
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])  # by kind and category: error, energy
    seen = []
    for start in tqdm(range(0, len(dataset), BATCH), desc=run.name, unit="batch"):
        batch = dataset.collate([dataset[i] for i in range(start, min(start + BATCH, len(dataset)))])
        tokens = module.tokens(batch)
        error, energy = (tokens - module.network(tokens)).square().sum(2), tokens.square().sum(2)  # (B, N)
        covered = F.adaptive_avg_pool2d(batch["mask"].float()[:, None], module.backbone.grid).flatten(1) >= COVERED
        for image, category in enumerate(batch["category"].tolist()):
            if batch["label"][image] == 0:
                kind, kept = "good", torch.ones_like(covered[image])
                seen.append(tokens[image])
            else:
                kind, kept = "defective", covered[image]
            for place, numbers in enumerate((error, energy)):
                sums[kind, category][place] += numbers[image][kept].sum().item()
    good = torch.stack(seen)
    deviation, mean = torch.std_mean(good, dim=(0, 1))
    noise = mean + deviation * torch.randn(BATCH, *good.shape[1:], generator=torch.Generator().manual_seed(0))
    return _mean(sums, "good"), _mean(sums, "defective"), _relative(noise, module.network(noise))


def _relative(target: Tensor, found: Tensor) -> float:
    return ((target - found).square().sum() / target.square().sum()).item()


def _mean(sums: dict[tuple[str, int], list[float]], kind: str) -> float:
    """The mean over categories."""
    return statistics.fmean(error / energy for (of, _), (error, energy) in sums.items() if of == kind and energy)


def main(runs: list[str]) -> None:
    print("| run | good | defective | defective / good | noise |\n|---|---|---|---|---|")
    for run in map(Path, runs):
        good, defective, noise = errors(run)
        print(f"| {run.name} | {good:.3f} | {defective:.3f} | {defective / good:.2f} | {noise:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
