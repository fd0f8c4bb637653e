"""What a run left for W&B in offline mode, read back from W&B's own record format."""

import json
import struct
import time
from pathlib import Path
from typing import NamedTuple

from wandb.proto import wandb_internal_pb2

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


def ended(path):
    """The records of a run that has ended; W&B's own process writes the last of them a moment later."""
    for _ in range(600):
        found = list(records(path))
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


class Written(NamedTuple):
    """What one process left of a run for W&B."""

    files: Path  # pictures and tables
    run: wandb_internal_pb2.RunRecord
    config: dict
    history: dict  # name -> [(step, value)]
    summary: dict
    artifacts: list
    exit_code: int


def read(folder, number=0):
    """The run of the `number`-th process that wrote in a run folder."""
    file = sorted(Path(folder).glob("wandb/offline-run-*/run-*.wandb"))[number]
    run, config, history, summary, artifacts = None, {}, {}, {}, []
    for record in ended(file):
        run = record.run if record.HasField("run") and run is None else run
        config |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
        summary |= {name(item): json.loads(item.value_json) for item in record.summary.update}
        row = {name(item): json.loads(item.value_json) for item in record.history.item}
        for key, value in row.items():
            history.setdefault(key, []).append((row["trainer/global_step"], value))
        artifacts += [record.artifact] if record.HasField("artifact") else []
    return Written(file.parent / "files", run, config, history, summary, artifacts, record.exit.exit_code)


def name(item):
    return item.key or "/".join(item.nested_key)
