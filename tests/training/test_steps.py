"""Trainer settings that could shift steps: each leaves order, randomness and schedule right, or is refused."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

from support.settings import SMALL
from uniad_lightning.randomness import permutation

EPOCHS, STEPS, BATCH, IMAGES = 4, 4, 4, 18  # 18 images, batches of 4: the rest of each epoch is dropped


class Recorder(L.Callback):
    """Writes what each step had: its images, its learning rate, and the first number drawn for it."""

    def __init__(self, *, path):
        self.path = Path(path)
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.steps.append([batch["index"].tolist(), rate, trainer.global_step])

    def on_train_end(self, trainer, pl_module):
        self.path.write_text(json.dumps(self.steps))


@pytest.fixture
def record(uniad, tree, tmp_path):
    """Train with a cosine schedule: (status, stderr, steps); of a refused one there are none."""

    def call(*overrides, folder="run"):
        status, _, err = uniad(
            "train", *SMALL, f"trainer.max_epochs={EPOCHS}", "schedule=cosine", f"data.root={tree}", "data.cache=disk",
            f"output_dir={tmp_path}/{folder}", "+callbacks.recorder._target_=test_steps.Recorder",
            f"+callbacks.recorder.path={tmp_path}/steps.json", *overrides,
        )  # fmt: skip
        path = tmp_path / "steps.json"
        return status, err, json.loads(path.read_text()) if path.is_file() else []

    return call


def expected_images(steps_per_epoch, steps):
    order = [permutation(IMAGES, seed=0, epoch=e).tolist() for e in range(-(-steps // steps_per_epoch))]
    return [
        order[step // steps_per_epoch][step % steps_per_epoch * BATCH :][:BATCH] for step in range(steps)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "per_epoch", "steps"),
    [
        ([], STEPS, EPOCHS * STEPS),
        (["+trainer.limit_train_batches=3"], 3, EPOCHS * 3),
        (["+trainer.limit_train_batches=1"], 1, EPOCHS),
        (["+trainer.limit_train_batches=1.0"], STEPS, EPOCHS * STEPS),
        (["+trainer.limit_train_batches=0.5"], 2, EPOCHS * 2),
        (["+trainer.limit_train_batches=0.8", "data.num_workers=1", "data.cache=off"], 3, EPOCHS * 3),
        (["+trainer.limit_train_batches=100"], STEPS, EPOCHS * STEPS),
        (["+trainer.limit_train_batches=3", "trainer.max_steps=7"], 3, 7),
        (["trainer.max_steps=7"], STEPS, 7),
        (["trainer.max_steps=7", "trainer.max_epochs=null"], STEPS, 7),
        (["trainer.max_steps=7", "trainer.max_epochs=-1"], STEPS, 7),
        (["+trainer.min_epochs=9", "+trainer.min_steps=99"], STEPS, EPOCHS * STEPS),
        (["+trainer.reload_dataloaders_every_n_epochs=1", "+trainer.limit_train_batches=3"], 3, EPOCHS * 3),
        (["validate_every=1", "+trainer.limit_train_batches=3"], 3, EPOCHS * 3),
    ],
    ids=lambda value: " ".join(value) or "plain" if isinstance(value, list) else None,
)
def test_order_and_schedule_follow_from_the_steps_that_are_taken(record, tmp_path, overrides, per_epoch, steps):
    status, err, found = record(*overrides)
    assert status == 0, err
    assert [step for _, _, step in found] == list(range(steps))
    assert [images for images, _, _ in found] == expected_images(per_epoch, steps)
    rates = [rate for _, rate, _ in found]
    assert max(rates) == pytest.approx(1e-3, rel=0.1)
    assert rates[-1] == pytest.approx(1e-3 / 25 / 1e4)  # the schedule ends with the last step, not before or after
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == steps
    assert "before the end of its learning rates" not in err


@pytest.mark.parametrize(("together", "steps"), [(2, 8), (3, 8), (4, 4), (9, 4)])  # an epoch's last batch always steps
def test_accumulated_gradients_shift_neither_order_nor_schedule(record, tmp_path, together, steps):
    status, err, found = record(f"trainer.accumulate_grad_batches={together}")
    assert status == 0, err
    assert [images for images, _, _ in found] == expected_images(STEPS, EPOCHS * STEPS)
    rates = [rate for _, rate, _ in found]
    assert max(rates) == pytest.approx(1e-3, rel=0.1)
    assert rates[-1] == pytest.approx(1e-3 / 25 / 1e4)
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == steps
    assert "before the end of its learning rates" not in err


@pytest.mark.slow
def test_a_limited_training_resumed_within_an_epoch_goes_on_alike(record, tmp_path):
    limits = ["+trainer.limit_train_batches=3", "callbacks.checkpoint.every_n_epochs=null"]
    limits += ["callbacks.checkpoint.every_n_train_steps=5", "callbacks.checkpoint.save_on_train_epoch_end=false"]
    keep = ["callbacks.checkpoint.filename='{step}'", "+callbacks.checkpoint.auto_insert_metric_name=false"]
    _, _, whole = record(*limits, *keep, "+callbacks.checkpoint.save_top_k=-1", folder="whole")
    last = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    status, err, rest = record(*limits, f"ckpt_path={tmp_path}/whole/checkpoints/5.ckpt", folder="resumed")
    assert status == 0, err
    assert rest == whole[5:]
    again = torch.load(tmp_path / "resumed/checkpoints/last.ckpt", weights_only=True)
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in last["state_dict"].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.accumulate_grad_batches=0", "at least 1"),
        ("trainer.accumulate_grad_batches=null", "at least 1"),
        ("+trainer.overfit_batches=2", "data.limit=N"),
        ("+trainer.overfit_batches=0.5", "data.limit=N"),
        ("+trainer.fast_dev_run=true", "trainer=smoke"),
        ("+trainer.fast_dev_run=3", "trainer=smoke"),
        ("+trainer.max_time='00:00:01:00'", "max_steps"),
        ("+trainer.max_time={minutes:1}", "max_steps"),
        ("+trainer.limit_test_batches=1", "data.limit=N"),
        ("+trainer.limit_test_batches=0.5", "data.limit=N"),
        ("+trainer.limit_val_batches=1", "validate_every=null"),
        ("+trainer.val_check_interval=0.5", "validate_every"),
        ("+trainer.val_check_interval=1", "validate_every"),
        ("+trainer.check_val_every_n_epoch=2", "validate_every"),
        ("trainer.num_sanity_val_steps=2", "each image"),
        ("trainer.use_distributed_sampler=true", "leave it at false"),
        ("+trainer.limit_train_batches=0", "above 0"),
        ("+trainer.limit_train_batches=1.5", "above 0"),
        ("+trainer.limit_train_batches=-1", "above 0"),
        ("+trainer.limit_train_batches=half", "'half'"),
        ("+trainer.limit_train_batches=0.1", "none of the 4 batches"),
        ("trainer.max_epochs=null", "set no end"),
        ("trainer.max_epochs=-1", "set no end"),
        ("trainer.max_epochs=0", "at least 1"),
        ("trainer.max_epochs=-3", "at least 1"),
        ("trainer.max_epochs=2.5", "a whole number"),
        ("trainer.max_epochs=ten", "'ten'"),
        ("trainer.max_epochs='10'", "'10'"),
        ("trainer.max_epochs=true", "a whole number"),
        ("trainer.max_epochs=[3]", "a whole number"),
        ("trainer.max_steps=0", "at least 1"),
        ("trainer.max_steps=null", "null: expected"),
        ("trainer.max_steps=many", "'many'"),
        ("+trainer.min_epochs=few", "'few'"),
        ("+trainer.reload_dataloaders_every_n_epochs=-1", "at least 0"),
        ("trainer.log_every_n_steps=null", "null: expected"),
        ("trainer.log_every_n_steps=-5", "at least 0"),
        ("trainer.num_nodes=0", "at least 1"),
        ("trainer.gradient_clip_val=much", "'much'"),
        ("trainer.gradient_clip_val=-1", "at least 0"),
        ("trainer.devices=null", "trainer"),
        ("trainer.devices=none", "trainer"),
        ("trainer.devices=-3", "trainer"),
        ("trainer.precision=exact", "trainer"),
        ("trainer.accelerator=null", "trainer"),
        ("trainer.strategy=null", "trainer"),
        ("validate_every=-2", "validate_every=-2"),
        ("validate_every=often", "validate_every=often"),
        ("+callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder", "BatchSizeFinder"),
        ("+callbacks.x={_target_:lightning.pytorch.callbacks.Timer,duration:'00:00:01:00'}", "Timer"),
        (
            "+callbacks.x={_target_:lightning.pytorch.callbacks.GradientAccumulationScheduler,scheduling:{'0':2}}",
            "GradientAccumulationScheduler",
        ),
    ],
)
def test_what_would_shift_steps_or_is_no_value_is_one_line(record, tmp_path, override, said):
    status, err, found = record(override)
    lines = [line for line in err.splitlines() if line and "warning" not in line and "it/s" not in line]
    lines = [line for line in lines if not line.startswith(("\r", "features:"))]
    assert status == 2, err
    assert len(lines) == 1, err
    assert said in lines[0]
    key = override.removeprefix("+").partition("=")[0].removesuffix("._target_")
    assert key.removeprefix("trainer.") in lines[0]
    assert found == []
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
def test_a_training_that_is_stopped_early_says_that_its_schedule_was_not_ended(record):
    status, err, found = record(
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=train/loss_epoch", "+callbacks.stop.stopping_threshold=1e9",
    )  # fmt: skip
    assert status == 0, err
    assert len(found) == STEPS
    assert "ended after 4 of 16 batches, before the end of its learning rates" in err
