"""A memory bank of the cached features as a yardstick: the same as one trained by itself, where it is of use."""

import json
import shutil

import pytest

from support.settings import FEATURES, SMALL

SAME = ["backbone.only_deepest=true", "backbone.window=3", "standardize=true"]  # as of model=memory_bank


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_it_is_the_memory_bank_that_would_be_trained(uniad, tree, tmp_path):
    given = [f"data.root={tree}", "data.framing.tiles=[1,2]"]
    status, out, err = uniad("train", *SMALL, *SAME, *given, "yardstick=true", f"output_dir={tmp_path}/run")
    assert status == 0, err
    found = metrics(tmp_path / "run")["yardstick"]
    status, _, err = uniad(
        "train", *FEATURES, *given, "model=memory_bank", "model.coreset=0.1", f"output_dir={tmp_path}/bank"
    )
    assert status == 0, err
    expected = metrics(tmp_path / "bank")["mean"]
    assert found == {name: pytest.approx(expected[name], abs=1e-3) for name in ("image_auroc", "pixel_auroc")}
    numbers = f"image AUROC {100 * found['image_auroc']:.1f}, pixel AUROC {100 * found['pixel_auroc']:.1f}"
    assert f"a memory bank of the same features: {numbers} (yardstick=false leaves this out)" in out


@pytest.mark.slow
def test_the_result_is_the_same_with_and_without(uniad, tree, tmp_path):
    for name in ("true", "false"):
        status, out, err = uniad(
            "train",
            *SMALL,
            f"data.root={tree}",
            "data.cache=disk",
            f"yardstick={name}",
            f"output_dir={tmp_path}/{name}",
        )
        assert status == 0, err
        assert ("a memory bank of the same features" in out) == (name == "true")
        assert ("yardstick" in metrics(tmp_path / name)) == (name == "true")
    assert (tmp_path / "true/results.csv").read_text() == (tmp_path / "false/results.csv").read_text()


def test_by_itself_it_is_of_own_images_that_have_good_and_defective_ones(uniad, tree, tmp_path):
    photos = shutil.copytree(tree / "bottle" / "train", tmp_path / "photos" / "bottle")
    own = [*SMALL, "data=folder", f"data.root={tmp_path}/photos"]

    def yardstick(name, *words):
        status, _, err = uniad("train", *words, f"output_dir={tmp_path}/{name}")
        assert status == 0, err
        return metrics(tmp_path / name).get("yardstick")

    assert yardstick("good", *own) is None  # no defective images
    shutil.copytree(tree / "bottle" / "test" / "scratch", photos / "scratch")
    assert yardstick("own", *own).keys() == {"image_auroc"}  # no masks
    assert yardstick("uncached", *own, "data.cache=off", "yardstick=true") is None
    assert yardstick("paper", *SMALL, f"data.root={tree}") is None
    bank = [*FEATURES, "model=memory_bank", "data.cache=disk", "yardstick=true", f"data.root={tree}"]
    assert yardstick("bank", *bank) is None


def test_another_value_is_refused_in_one_line(uniad, tree, tmp_path):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", "yardstick=maybe", f"output_dir={tmp_path}/run")
    assert status == 2
    assert "uniad: yardstick=maybe: expected auto, true or false" in err
