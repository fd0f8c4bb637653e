"""`logger=wandb` in offline mode: what it wrote is read back with W&B's own record format."""

import json

from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from conftest import SMALL


def records(path):
    store = DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def test_loss_and_metrics_reach_wandb(uniad, tree, tmp_path):
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=wandb", "logger.offline=true",
        "trainer.log_every_n_steps=1",
    )  # fmt: skip
    assert status == 0, err
    (file,) = (tmp_path / "run").rglob("run-*.wandb")
    history = {}
    for record in records(file):
        for item in record.history.item:
            history.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    assert len(history["train/loss_step"]) == 8
    assert all(value > 0 for value in history["train/loss_step"])
    assert len(history["mean/image_auroc"]) == 1
