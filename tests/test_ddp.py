"""Two real processes (gloo) give the numbers of one."""

import json
import subprocess

import pytest
import torch

from conftest import SMALL
from fabricate import mvtec_tree
from test_journey import UNIAD, weights

# Randomness is keyed per rank, so what is drawn differs between world sizes: compare without it.
STILL = ["model.dropout=0", "model.jitter.scale=0", "trainer.max_epochs=13", "data.eval_batch_size=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same 52 steps by one process and by two, over 11 test images, one category with a single one."""
    root = mvtec_tree(tmp_path_factory.mktemp("odd"), train=9, good=3, size=(64, 64))
    single = root / "cable" / "test"
    for path in [*single.glob("good/*"), *single.glob("scratch/*"), *(root / "cable/ground_truth/scratch").glob("*")]:
        path.unlink()
    more = mvtec_tree(tmp_path_factory.mktemp("more"), categories=["bottle"], good=7, size=(64, 64))
    for i in range(3, 7):
        (more / "bottle/test/good" / f"{i:03d}.png").rename(root / "bottle/test/good" / f"{i:03d}.png")
    folder = tmp_path_factory.mktemp("ddp")
    for world in (1, 2):
        processes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"] if world == 2 else []
        done = subprocess.run(
            [UNIAD, "train", *SMALL, *STILL, *processes, f"data.root={root}", f"output_dir={folder}/{world}"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder:") == 1
    return folder


def test_weights_after_50_steps_agree(runs):
    one, two = weights(runs / "1"), weights(runs / "2")
    assert torch.load(runs / "2/checkpoints/last.ckpt", weights_only=True)["global_step"] == 52
    for name, value in one.items():
        other = two[name]
        if name.endswith("in_proj_bias"):  # the key's third has a zero gradient but for rounding
            width = len(value) // 3
            value, other = (torch.cat([v[:width], v[2 * width :]]) for v in (value, other))
        assert (value.float() - other.float()).abs().max() < 1e-5, name


def test_metrics_agree(runs):
    one, two = (json.loads((runs / world / "metrics.json").read_text()) for world in ("1", "2"))
    assert one["categories"].keys() == two["categories"].keys() == {"bottle", "cable"}
    assert two["pooled"]["images"] == 11
    assert two["categories"]["cable"]["images"] == 1
    assert two["categories"]["cable"]["image_auroc"] is None
    for row in ("mean", "pooled"):
        for name, value in one[row].items():
            assert two[row][name] == pytest.approx(value, abs=1e-6), (row, name)


def test_pictures_and_files_are_those_of_one_process(runs):
    one, two = (sorted(p.relative_to(runs / w).as_posix() for p in (runs / w).rglob("*.*")) for w in ("1", "2"))
    assert one == two
