"""The kinds of files that are mutated: sound ones, and what reads them."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from support.hostile_models import BOUNDARY, model
from support.trees import mvtec_tree
from uniad_lightning.data.images.cifar10_batches import load_batch
from uniad_lightning.data.images.decoding import read_image, read_marks
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.real_iad import list_real_iad
from uniad_lightning.data.layouts.visa import list_visa
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.prediction.rows import empty_row, journal_line, read_rows, table_line
from uniad_lightning.prediction.sources.items import Item
from uniad_lightning.results.run_folder import best_checkpoint
from uniad_lightning.training.checkpoint import load_checkpoint
from uniad_lightning.training.saved_config import saved_config
from uniad_lightning.training.trusted_targets import refuse_foreign


class Kind(NamedTuple):
    """A kind of file: sound ones by name (the name decides how it is opened), and what reads one."""

    sound: dict[str, bytes]
    read: Callable[[Path], object]


def _pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = {}
    for suffix in ("png", "jpeg", "tiff", "bmp", "gif", "webp", "ppm", "tga"):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, suffix)
            found[f"{mode}.{suffix}"] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(file, "png")
    return {**found, "deep.png": file.getvalue()}


def _read_picture(path: Path) -> None:
    read_image(path)
    read_marks(path)


def _checkpoints() -> dict[str, bytes]:
    content = {
        "format": 2,
        "config": {"model": {"_target_": "uniad_lightning.models.uniad.UniAD", "grid": [8, 8]}, "data": {}},
        "state_dict": {"a": torch.rand(4, 3), "b": torch.zeros(2).long()}, "loops": {"x": 1}, "categories": ["a"],
        "calibration": {"method": "x", "overall": BOUNDARY, "categories": {"a": BOUNDARY}, "by_category": True},
        "trained": torch.zeros(3).long(),
        "familiarity": {
            "references": torch.rand(3, 4), "boundary": 1.0, "names": ["a"], "owners": torch.zeros(3).long()
        },
    }  # fmt: skip
    found = {}
    for name, zipped in (("zip.ckpt", True), ("pickle.ckpt", False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        found[name] = file.getvalue()
    return found


def _read_checkpoint(path: Path) -> None:
    if path.name == "zip.ckpt":
        _seal_again(path)
    checkpoint = load_checkpoint(str(path))
    refuse_foreign(checkpoint["config"], "x")
    for from_plain, entry in ((Calibration.from_plain, "calibration"), (Familiarity.from_plain, "familiarity")):
        if checkpoint.get(entry):
            try:
                from_plain(checkpoint[entry])
            except ValueError as error:  # as `load_engine` tells it
                raise InputError(f"{path}: {error}") from None


def _seal_again(path: Path) -> None:
    """Make the archive's checksums fit its changed members, as whoever attacks would."""
    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = []
            for one in archive.infolist():
                name_bytes, extra_bytes = struct.unpack_from("<HH", raw, one.header_offset + 26)
                start = one.header_offset + 30 + name_bytes + extra_bytes
                members.append((one.filename, raw[start : start + one.file_size]))
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
    except Exception:  # damaged beyond that
        path.write_bytes(raw)


def _read_onnx(path: Path) -> None:
    OnnxEngine(str(path), "cpu")([np.zeros((8, 8, 3), np.uint8)])


def _batches() -> dict[str, bytes]:
    rows, labels = np.zeros((3, 3072), np.uint8), [0, 1, 2]
    plain = {"data": rows, "labels": labels, "fine_labels": labels}
    binary = b"".join(bytes([label]) + bytes(3072) for label in labels)
    return {
        "data_batch_1": pickle.dumps(plain, 2), "data_batch_2": pickle.dumps(plain, 4), "train": pickle.dumps(plain, 3),
        "data_batch_1.bin": binary,
    }  # fmt: skip


def _read_batch(path: Path) -> None:
    load_batch.cache_clear()
    load_batch(path)


def kinds_in(folder: Path) -> dict[str, Kind]:
    """Every kind, with the trees beside it that its lists name."""
    tree = mvtec_tree(folder / "tree", categories=["a"], train=1, good=1, defects={"hole": 1}, size=(8, 8))
    good, bad, mask = "a/train/good/000.png", "a/test/hole/000.png", "a/ground_truth/hole/000_mask.png"
    meta = [
        {"filename": good, "label": 0, "clsname": "a"},
        {"filename": bad, "label": 1, "clsname": "a", "maskname": mask, "label_name": "hole"},
    ]
    mvtec_tree(folder / "iad/realiad_1024", categories=["a"], train=1, good=1, defects={"hole": 1}, size=(8, 8))
    lines = [json.dumps(line) + "\n" for line in meta]
    (tree / "train.json").write_text(lines[0])
    csv = f"object,split,label,image,mask\na,train,normal,{good},\na,test,anomaly,{bad},{mask}\n"
    iad = {
        "meta": {"normal_class": "OK", "prefix": "a/"},
        "train": [{"category": "a", "anomaly_class": "OK", "image_path": "train/good/000.png", "mask_path": None}],
        "test": [{"category": "a", "anomaly_class": "AK", "image_path": "test/hole/000.png",
                  "mask_path": "ground_truth/hole/000_mask.png"}],
    }  # fmt: skip
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    metrics = {"checkpoint": "last", "mean": {"image_auroc": 0.5}, "pooled": {}, "categories": {"a": {"images": 3}}}
    region = {"box": [0, 0, 1, 1], "area": 1, "peak": 0.1}
    item = Item("a.png", read=lambda: None, size=9, mtime_ns=1)
    row = journal_line({**empty_row(item, 1.0, ""), "score": 0.5, "decision": "good", "regions": [region]})
    config = "name: x\nseed: 0\ndata:\n  root: x\n  categories: [a, b]\nmodel:\n  _target_: torch.nn.Linear\n"

    def placed(place: Path, read: Callable[[], object]) -> Callable[[Path], object]:
        def call(path: Path) -> object:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            return read()

        return call

    return {
        "image": Kind(_pictures(), _read_picture),
        "checkpoint": Kind(_checkpoints(), _read_checkpoint),
        "ONNX": Kind({"x.onnx": model().SerializeToString()}, _read_onnx),
        "CIFAR batch": Kind(_batches(), _read_batch),
        "list (JSON lines)": Kind(
            {"test.json": lines[1].encode()},
            placed(tree / "test.json", lambda: list_meta(tree, train="train.json", test="test.json")),
        ),
        "CSV (VisA)": Kind({"1cls.csv": csv.encode()}, placed(tree / "split_csv/1cls.csv", lambda: list_visa(tree))),
        "JSON (Real-IAD)": Kind(
            {"a.json": json.dumps(iad).encode()},
            placed(folder / "iad/realiad_jsons/a.json", lambda: list_real_iad(folder / "iad")),
        ),
        "metrics.json": Kind(
            {"metrics.json": json.dumps(metrics).encode()}, placed(run / "metrics.json", lambda: best_checkpoint(run))
        ),
        "predictions.jsonl": Kind({"p.jsonl": row * 3}, lambda path: [table_line(row) for _, row in read_rows(path)]),
        "config.yaml": Kind({"config.yaml": config.encode()}, saved_config),
    }
