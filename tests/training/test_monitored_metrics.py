"""What the best epoch is chosen by, and what a search is for, is defined, or refused before the training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from support.paths import ROOT
from support.settings import SMALL
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Row
from uniad_lightning.training.monitored_metrics import choose_monitor, defined_metrics


def splits(test, trained):
    """Splits from category -> a word for each test image: g good, d defective without a mask, m with one."""
    names = tuple(sorted(test))
    records = [
        Record(Path(f"{name}{i}"), (Path("mask"),) if kind == "m" else (), name, kind, int(kind != "g"))
        for name in names
        for i, kind in enumerate(test[name])
    ]
    train = tuple(Record(Path(name), (), name, "good", 0) for name in trained)
    return Splits(names, train, tuple(records))


CASES = {
    "masks": ({"a": "gm", "b": "ggmd"}, "ab", False, "mean/pixel_auroc"),
    "masks of some": ({"a": "gm", "b": "gd"}, "ab", False, "mean/pixel_auroc"),
    "no masks": ({"a": "gd", "b": "gdd"}, "ab", False, "mean/image_auroc"),
    "one has no good ones": ({"a": "d", "b": "gd"}, "ab", False, "mean/image_auroc"),
    "none has both": ({"a": "g", "b": "d"}, "ab", False, "pooled/image_auroc"),
    "whole classes": ({"a": "g", "b": "d"}, "a", True, "pooled/image_auroc"),
    "whole classes with masks": ({"a": "gm", "b": "d"}, "a", True, "pooled/image_auroc"),
    "all good": ({"a": "g", "b": "gg"}, "ab", False, None),
    "all defective": ({"a": "d", "b": "dd"}, "ab", False, None),
    "all defective with masks": ({"a": "m", "b": "d"}, "ab", False, "mean/pixel_auroc"),
}


@pytest.mark.parametrize(("test", "trained", "by_class", "chosen"), CASES.values(), ids=CASES)
def test_what_the_listing_says_is_defined_is_what_the_evaluation_defines(test, trained, by_class, chosen):
    listed = splits(test, trained)
    metrics = AnomalyMetrics(
        categories=listed.categories, num_images=len(listed.test), foreign=set(test) - set(trained)
    )
    masks = torch.zeros(len(listed.test), 8, 8, dtype=torch.bool)
    masks[[i for i, record in enumerate(listed.test) if record.masks], 2:4, 2:4] = True
    generator = torch.Generator().manual_seed(0)
    metrics.update(
        maps=torch.rand(len(listed.test), 8, 8, generator=generator),
        scores=torch.rand(len(listed.test), generator=generator),
        masks=masks,
        has_mask=torch.tensor([bool(record.masks) or record.label == 0 for record in listed.test]),
        labels=torch.tensor([record.label for record in listed.test]),
        categories=torch.tensor([listed.categories.index(record.category) for record in listed.test]),
        indices=torch.arange(len(listed.test)),
    )
    found = metrics.compute()
    rows = {"mean": found.mean, "pooled": found.pooled}
    expected = {f"{row}/{name}" for row in rows for name in Row._fields[1:] if getattr(rows[row], name) ==
                getattr(rows[row], name)}  # fmt: skip
    defined = defined_metrics(listed)
    assert defined.keys() == expected
    assert all(found.mean_over[name.partition("/")[2]] == n for name, n in defined.items() if name.startswith("mean"))
    if chosen is None:
        with pytest.raises(InputError, match="not both good and defective"):
            choose_monitor(listed, by_class=by_class)
    else:
        name, reason = choose_monitor(listed, by_class=by_class)
        assert name == chosen
        assert name in expected
        assert reason


@pytest.fixture(scope="session")
def unmarked(tree, tmp_path_factory):
    """The two products as plain folders, good and defective, without a mask."""
    root = tmp_path_factory.mktemp("unmarked") / "parts"
    for product in ("bottle", "cable"):
        shutil.copytree(tree / product / "train" / "good", root / product / "good")
        shutil.copytree(tree / product / "test" / "hole", root / product / "hole")
        shutil.copytree(tree / product / "test" / "scratch", root / product / "scratch")
    return root


def logged(folder, name):
    """The values of a metric at the validations, by epoch."""
    import csv

    with next((folder / "logs").rglob("metrics.csv")).open() as file:
        return {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.slow
def test_without_masks_the_best_epoch_is_that_of_the_images(uniad, unmarked, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, "data=folder", f"data.root={unmarked}", "validate_every=2", "trainer.max_epochs=8",
        "callbacks=best_on_test", "optimizer.lr=3e-3", f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0, err
    assert "the best epoch is that of the highest mean/image_auroc (the test split has no masks)" in out
    best = torch.load(tmp_path / "run/checkpoints/best_on_test.ckpt", weights_only=True)
    looks = logged(tmp_path / "run", "mean/image_auroc")
    looks.pop(8, None)  # the evaluation after the training
    assert len(looks) == 4
    assert looks[best["epoch"]] == max(looks.values())
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["mean"]["image_auroc"] == pytest.approx(max(looks.values()), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["callbacks.best.monitor=mean/pixel_auroc"], "no test image has a mask"),
        (["callbacks.best.monitor=pooled/aupro"], "no test image has a mask"),
        (["callbacks.best.monitor=mean/image_aurok"], "Did you mean 'mean/image_auroc'"),
        (["callbacks.best.monitor=image_auroc"], "no such metric"),
        (["validate_every=9"], "validate_every=9 of 2 epochs makes none"),
        (["validate_every=2", "trainer.max_epochs=-1", "trainer.max_steps=5"], "makes none"),
        (["validate_every=null"], "validate_every=None"),
        (["data.held_out=0", "data.limit=0"], "data.limit"),
        (
            ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
             "+callbacks.stop.monitor=mean/pixel_auroc"],
            "callbacks.stop.monitor=mean/pixel_auroc: is undefined",
        ),
    ],
)  # fmt: skip
def test_an_undefined_metric_to_watch_is_refused_before_the_training(uniad, unmarked, tmp_path, words, said):
    status, _, err = uniad(
        "train", *SMALL, "data=folder", f"data.root={unmarked}", "validate_every=1", "callbacks=best_on_test",
        f"output_dir={tmp_path}/run", *words,
    )  # fmt: skip
    assert status == 2, err
    (line,) = [line for line in err.splitlines() if "warning" not in line]
    assert said in line
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_masks_that_vanish_end_the_training_at_its_first_evaluation(uniad, tree, tmp_path):
    from PIL import Image

    root = shutil.copytree(tree, tmp_path / "data")
    for path in root.glob("*/ground_truth/*/*.png"):
        with Image.open(path) as mask:
            dot = Image.new("L", mask.size)
            dot.putpixel((0, 0), 255)  # one pixel of 80 x 72: nothing of it is left at 32 x 32
        dot.save(path)
    status, _, err = uniad(
        "train", *SMALL, f"data.root={root}", "data.image_size=32", "validate_every=1", "callbacks=best_on_test",
        "model.grid=[4,4]", f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 2, err
    assert "callbacks.best.monitor=mean/pixel_auroc: is undefined in this evaluation, in which 6 masks" in err
    assert not (tmp_path / "run/checkpoints/best_on_test.ckpt").exists()


@pytest.mark.slow
def test_a_search_for_what_is_undefined_ends_at_the_first_trial_and_says_why(uniad, unmarked, tmp_path):
    words = [word for word in SMALL if not word.startswith("optimizer.lr")]
    status, out, err = uniad(
        "train", *words, "trainer.max_epochs=1", "data=folder", f"data.root={unmarked}", f"output_dir={tmp_path}/runs",
        "-m", "hydra/sweeper=search", "hydra.sweeper.trials=3", "hydra.sweeper.objective=mean/pixel_auroc",
        "optimizer.lr=interval(1e-4,1e-2)",
    )  # fmt: skip
    assert status == 1, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("uniad: hydra.sweeper.objective=mean/pixel_auroc: is undefined on this test split")
    assert "mean/image_auroc" in last
    assert len(list((tmp_path / "runs").glob("*/metrics.json"))) == 1
    assert (tmp_path / "runs/sweep.csv").is_file()


def test_the_watched_metric_of_the_configuration_is_left_to_the_data():
    best = OmegaConf.load(ROOT / "conf/callbacks/best_on_test.yaml").best
    assert best.monitor is None
