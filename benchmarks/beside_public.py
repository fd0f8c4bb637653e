"""Public implementations of the systems that UniAD is compared with, beside ours: same weights, same input.

    git clone https://github.com/VitjanZ/DRAEM CLONE
    python benchmarks/beside_public.py draem CLONE

Copies random weights from their network into ours, which is built from the configuration of `model=NAME`, gives both
the same random input, and prints how far each output of ours is from theirs: the largest absolute difference over the
largest absolute value of theirs. Ends with status 1 where that is above 1e-4. `benchmarks/public/` has a file for each
system, which says what is compared, and which departures of ours (docs/methods.md) are undone in their code first.
Nothing is trained or downloaded. `vt_adl` needs einops and `anomalib` kornia, which are no
dependencies of this package.

Repositories without a free licence are left out. None at all have rohban-lab/Knowledge_Distillation_AD (MKD),
nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch, Runinho/pytorch-cutpaste, denguir/student-teacher-anomaly-detection
and taikiinoue45/STAD (Uninformed Students), uzl/inpainting-transformer and jhy12/inpainting-transformer (InTra), and
johnbuzz98/JPEG-Ano-ViT (AnoViT); that of talreiss/PANDA is for research only.
"""

import argparse
import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

SYSTEMS = {
    "draem": "VitjanZ/DRAEM (MIT)",
    "fcdd": "liznerski/fcdd (MIT)",
    "padim": "xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master (Apache-2.0)",
    "vt_adl": "pankajmishra000/VT-ADL (MIT)",
    "cutpaste": "LilitYolyan/CutPaste (MIT)",
    "anomalib": "open-edge-platform/anomalib (Apache-2.0)",
}
ALLOWED = 1e-4


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value of theirs."""
    if ours.shape != theirs.shape:
        raise SystemExit(f"shapes differ: ours {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def commit_of(clone: Path) -> str:
    """The commit that a clone has checked out, empty for a folder that is no clone."""
    call = ["git", "-C", str(clone), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()


def report(compared: Iterable[tuple[str, Tensor, Tensor]]) -> bool:
    """Print how far each output of ours is from theirs; whether all are near enough, which NaN is not."""
    found = {}
    for name, ours, theirs in compared:
        found[name] = difference(ours, theirs)
        print(f"{name:<40} {found[name]:.1e}{'' if found[name] <= ALLOWED else '  DIFFERS'}", flush=True)
    print(f"{'largest':<40} {max(found.values()):.1e}")
    return all(value <= ALLOWED for value in found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "system", choices=SYSTEMS, help="; ".join(f"{name}: {where}" for name, where in SYSTEMS.items())
    )
    parser.add_argument("clone", type=Path, help="a clone of that repository")
    options = parser.parse_args()
    where = SYSTEMS[options.system]
    if not options.clone.is_dir():
        parser.error(f"{options.clone}: is no folder; expected a clone of {where}")
    warnings.filterwarnings("ignore")  # of their code, and of losses that are logged without a trainer
    torch.manual_seed(0)
    print(f"{options.system} beside {where} {commit_of(options.clone)}", flush=True)
    try:
        near = report(importlib.import_module(f"public.{options.system}").compare(options.clone.resolve()))
    except ModuleNotFoundError as error:
        parser.error(f"{error.name}: cannot be imported; install it, or give a clone of {where}, not {options.clone}")
    return 0 if near else 1


if __name__ == "__main__":
    sys.exit(main())
