"""`logger=wandb` in offline mode: what it wrote is read back in W&B's own record format."""

import json
import struct

from wandb.proto import wandb_internal_pb2

from conftest import SMALL

BLOCK = 32768  # bytes; a record does not cross its end but goes on in the next
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """The protobuf records of a `.wandb` file: LevelDB's log format behind a header of seven bytes."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # no room for a record's head: padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
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
    assert len(history["train/loss_step"]) == 8, history.keys()
    assert all(value > 0 for value in history["train/loss_step"])
    assert len(history["mean/image_auroc"]) == 1
