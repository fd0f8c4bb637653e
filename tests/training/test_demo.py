"""The demo's data is not trivial: what the backbone has learned matters. (A short training on a part of the set.)"""

import json

import pytest

pytestmark = pytest.mark.slow

FEWER = ["data.prepare.train_images=30", "data.prepare.test_good=10", "data.prepare.test_per_defect=4"]


def test_a_random_backbone_stays_clearly_below_the_trained_one(uniad, tmp_path):
    reached = {}
    for weights in ("tiny.safetensors", "random"):
        status, _, err = uniad(
            "train", "experiment=demo", "trainer.max_epochs=16", *FEWER, f"data.root={tmp_path}/synthetic",
            f"backbone.weights={weights}", f"output_dir={tmp_path}/{weights}",
        )  # fmt: skip
        assert status == 0, err
        reached[weights] = json.loads((tmp_path / weights / "metrics.json").read_text())["mean"]["image_auroc"]
    print(f"mean image AUROC: {reached}")
    assert reached["tiny.safetensors"] > reached["random"] + 0.1
