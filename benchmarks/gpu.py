"""What is written for a GPU, run on one: each check prints its figures or why it failed. Minutes on one card.

    python benchmarks/gpu.py FOLDER [--device cpu --small] [--only steps,predict]

`FOLDER` takes the data, the runs and `gpu.json`, all figures with machine and date. `--small` sees that everything
runs, on a CPU too: its figures are no results. Commands are those of a user, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timing import machine
from torch import nn
from torch.nn.functional import mse_loss

from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.settings import conf_dir

CHANNELS = 272  # of EfficientNet-B4's four levels
IMAGES, BATCH, EPOCHS = 1837, 64, 1000  # of the real products, and the paper's batch and epochs
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Setting(NamedTuple):
    """Where and how much to measure."""

    folder: Path
    device: torch.device
    small: bool

    @property
    def on_gpu(self) -> bool:
        """Whether there is a card to wait for and to ask for its memory."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait for what the card was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, action: Callable[[], object], *, turns: int, warm_up: int = 3) -> float:
        """Seconds of one call of `action`, the mean over `turns` after some that do not count."""
        for _ in range(warm_up):
            action()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(turns):
            action()
        self.synchronize()
        return (time.perf_counter() - began) / turns

    def command(self, *words: str) -> float:
        """Run `uniad` with `words`; returns its seconds, and raises with its last line where it fails."""
        began = time.perf_counter()
        call = [sys.executable, "-m", "uniad_lightning.command_line.cli", *words]
        done = subprocess.run(call, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
        return time.perf_counter() - began

    def train(self, name: str, *words: str) -> dict[str, float]:
        """Train the demo's model as the run `name`; its seconds and AUROC in percent."""
        kind = "gpu" if self.on_gpu else "cpu"
        less = ["data.prepare.train_images=4", "data.prepare.test_good=2", "data.prepare.test_per_defect=1",
                "trainer.max_epochs=1", "data.root=small"] if self.small else ["trainer.max_epochs=8"]  # fmt: skip
        words = (f"trainer={kind}", *less, *words, f"output_dir={name}", "overwrite=true", "logger=none")
        seconds = self.command("train", "experiment=demo", *words)
        mean = json.loads((self.folder / name / "metrics.json").read_text())["mean"]
        return {"seconds": seconds, **{key: 100 * mean[key] for key in ("image_auroc", "pixel_auroc")}}


def features(setting: Setting) -> dict[str, Any]:
    """EfficientNet-B4's features of 224-pixel images: images a second, and what TF32 would change."""
    backbone = Backbone(name="tf_efficientnet_b4", levels=[0, 1, 2, 3], grid=[14, 14], weights="random")
    backbone.to(setting.device)
    image = torch.randn(2 if setting.small else BATCH, 3, 224, 224, device=setting.device)
    with torch.inference_mode():
        exact = backbone(image)
        seconds = setting.seconds(lambda: backbone(image), turns=1 if setting.small else 20, warm_up=1)
        torch.backends.cudnn.allow_tf32 = True
        difference = (backbone._features(backbone._folded(backbone.model), image) - exact).abs().max() / exact.std()
    return {"images_per_second": len(image) / seconds, "tf32_difference_in_deviations": float(difference)}


def steps(setting: Setting) -> dict[str, Any]:
    """A training step of UniAD on features that are chosen by index on the card, in each precision, also compiled."""
    count, batch, turns = (16, 2, 1) if setting.small else (IMAGES, BATCH, 30)
    resident = torch.randn(count, 196, CHANNELS, dtype=torch.float16, device=setting.device)
    found: dict[str, Any] = {}
    for name, dtype in PRECISIONS.items():
        if dtype == torch.float16 and not setting.on_gpu:
            continue
        for compiled in (False, True):
            if compiled and setting.small:
                continue
            if setting.on_gpu:
                torch.cuda.reset_peak_memory_stats(setting.device)
            step = _step(setting, resident, batch, dtype, compiled)
            seconds = setting.seconds(step, turns=turns)
            key = f"{name}{', compiled' if compiled else ''}"
            found[key] = {
                "seconds_a_step": seconds,
                "minutes_of_1000_epochs": seconds * (IMAGES // BATCH) * EPOCHS / 60,
            }
            if setting.on_gpu:
                found[key]["peak_gigabytes"] = torch.cuda.max_memory_allocated(setting.device) / 1e9
    return found


def _step(
    setting: Setting, resident: torch.Tensor, batch: int, dtype: torch.dtype | None, compiled: bool
) -> Callable[[], object]:
    network: nn.Module = instantiate(OmegaConf.load(conf_dir() / "model" / "uniad.yaml"), channels=CHANNELS)
    network.to(setting.device)
    called = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    scaler = torch.amp.GradScaler(setting.device.type, enabled=dtype == torch.float16)

    def step() -> None:
        chosen = torch.randint(len(resident), (batch,), device=setting.device)
        tokens = resident[chosen].float()
        half = nullcontext() if dtype is None else torch.autocast(setting.device.type, dtype)
        with half:
            made = called(tokens)
        optimizer.zero_grad()
        scaler.scale(mse_loss(made.float(), tokens)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()

    return step


def trainings(setting: Setting) -> dict[str, Any]:
    """The demo, short, in each precision: seconds of the command, and AUROC beside float32's."""
    names = [name for name in PRECISIONS if setting.on_gpu or name != "16-mixed"]
    return {name: setting.train(f"train-{name}", f"trainer.precision={name}") for name in names}


def repeated(setting: Setting) -> dict[str, Any]:
    """The same training twice, and in a process group of one (NCCL on a GPU): largest difference of a weight."""
    kind = "gpu" if setting.on_gpu else "cpu"
    for name, words in {"once": [], "again": [], "group": ["trainer=ddp", f"trainer.accelerator={kind}"]}.items():
        setting.train(f"repeated-{name}", *words, "trainer.devices=1")
    weights = {
        name: torch.load(setting.folder / f"repeated-{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("once", "again", "group")
    }

    def difference(name: str) -> float:
        pairs = ((value, weights[name][key]) for key, value in weights["once"].items() if value.is_floating_point())
        return max(float((one - other).abs().max()) for one, other in pairs if one.numel())

    return {"again": difference("again"), "process_group": difference("group")}


def predict(setting: Setting) -> dict[str, Any]:
    """From files to rows, without and with overlays, and the export in fp16 beside its checkpoint."""
    setting.train("predict", "data.held_out=0.2", "calibrate=true")
    checkpoint = "predict/checkpoints/last.ckpt"
    folder = "small" if setting.small else "data/synthetic"
    pattern = f"{folder}/*/test/*/*.png"
    images = len(list(setting.folder.glob(pattern)))
    found: dict[str, Any] = {"images": images}
    for overlays, precision in (("none", "fp32"), ("all", "fp32"), ("none", "bf16"), ("none", "fp16")):
        choice = [f"overlays={overlays}", f"precision={precision}"]
        words = [f"ckpt_path={checkpoint}", f"input={pattern}", *choice, "batch_size=32", f"device={setting.device}"]
        out = [f"output_dir=predicted-{overlays}-{precision}", "overwrite=true"]
        found[f"images_per_second with start, {', '.join(choice)}"] = images / setting.command("predict", *words, *out)
    found["evaluate_seconds"] = setting.command(
        "evaluate", f"ckpt_path={checkpoint}", "output_dir=evaluated", "overwrite=true"
    )
    found["export_fp16_seconds"] = setting.command(
        "export", f"ckpt_path={checkpoint}", "precision=fp16", "output_dir=exported", "overwrite=true"
    )
    return found


CHECKS = (features, steps, trainings, repeated, predict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="see that everything runs")
    parser.add_argument("--only", help=f"some of {','.join(check.__name__ for check in CHECKS)}")
    options = parser.parse_args()
    setting = Setting(options.folder.absolute(), torch.device(options.device), options.small)
    setting.folder.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name(setting.device) if setting.on_gpu else "no GPU"
    found: dict[str, Any] = {"machine": f"{card}; {machine()}", "date": datetime.now(timezone.utc).isoformat()}
    failed = False
    for check in CHECKS:
        if options.only and check.__name__ not in options.only.split(","):
            continue
        began = time.perf_counter()
        try:
            figures = check(setting)
        except Exception as error:  # the others still have their say, and each minute on a card counts
            figures, failed = {"failed": f"{type(error).__name__}: {error}"}, True
        found[check.__name__] = {**figures, "check_seconds": time.perf_counter() - began}
        print(check.__name__, json.dumps(found[check.__name__], indent=2), flush=True)
        (setting.folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
