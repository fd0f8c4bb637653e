"""An exported file is inspected with nothing installed but what docs/export.md lists: no torch, Lightning, Hydra."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from support.hostile_models import model
from support.paths import ROOT
from uniad_lightning import Detector
from uniad_lightning.inspection.enlarging import enlarged
from uniad_lightning.scoring import upsample

PROGRAM = """
import importlib.abc, json, sys

blocked, file, image, runtime = json.loads(sys.argv[1])

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from uniad_lightning import Detector

detector = Detector.load(file, device="cpu", runtime=runtime, boundary=5)
result = detector.predict(image)
result.overlay()
regions = [[list(region.box), region.area] for region in result.regions]
print(json.dumps([result.score, result.decision, regions, float(result.anomaly_map.sum())]))
"""


def listed():
    """The packages that docs/export.md has installed beside the package itself."""
    (line,) = re.findall(r"^    pip install (.*onnxruntime)$", (ROOT / "docs/export.md").read_text(), re.MULTILINE)
    return line.split()


def with_requirements(names):
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            needed = map(Requirement, requires(name) or [])
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize(("runtime", "more"), [("onnxruntime", []), ("openvino", ["openvino"])])
def test_the_listed_packages_are_enough(runtime, more, tmp_path):
    packages = with_requirements([*listed(), *more])
    assert not packages & {"torch", "lightning", "hydra-core", "timm", "torchmetrics", "albumentations", "wandb"}
    packages.add("uniad-lightning")
    blocked = [
        module
        for module, owners in packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", owner).lower() in packages for owner in owners)
    ]
    # Python 3.10 does not know the modules of every distribution.
    blocked = sorted({*blocked, "torch", "lightning", "hydra", "omegaconf", "timm", "cv2"})
    file, image = tmp_path / "x.onnx", tmp_path / "x.png"
    file.write_bytes(model().SerializeToString())
    pixels = np.zeros((30, 20, 3), np.uint8)
    pixels[4:9, 6:9] = 90
    Image.fromarray(pixels).save(image)
    given = json.dumps([blocked, str(file), str(image), runtime])
    done = subprocess.run([sys.executable, "-c", PROGRAM, given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = Detector.load(file, device="cpu", boundary=5).predict(image)
    expected = [own.score, own.decision, [[list(one.box), one.area] for one in own.regions], own.anomaly_map.sum()]
    *found, total = json.loads(done.stdout)
    assert found == expected[:3]
    assert total == pytest.approx(expected[3])
    assert own.regions[0].box == (6, 4, 9, 9)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((7, 5), (300, 411)), ((1, 1), (9, 4)), ((1, 6), (5, 1)), ((14, 14), (14, 14)), ((224, 224), (37, 900))],
)
def test_a_map_is_enlarged_as_by_torch(shape, size):
    heat = np.random.default_rng(0).random(shape, dtype=np.float32) * 50
    found = enlarged(heat, size)
    assert (found.dtype, found.shape) == (np.float32, size)
    rounding = 50 * max(shape) * 2.0**-22  # torch has the places between pixels in float32
    np.testing.assert_allclose(found, upsample(torch.from_numpy(heat)[None], size)[0].numpy(), atol=rounding)
