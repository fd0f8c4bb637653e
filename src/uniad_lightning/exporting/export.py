"""A trained detector as one file that needs neither this package nor Lightning: ONNX, or `torch.export`'s program.

A file is kept only if its outputs are those of its checkpoint.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from uniad_lightning import __version__
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.records import Splits
from uniad_lightning.data.selection import limit_images, spread_over
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError, print_stderr, print_stdout, system_reason
from uniad_lightning.exporting.graph import trace
from uniad_lightning.exporting.plan import Plan, plan_export
from uniad_lightning.exporting.verify import Agreement, agreement, generated_images, refuse_disagreement
from uniad_lightning.files.atomic import remove_left, replacing
from uniad_lightning.files.sealed import seal_archive, seal_model
from uniad_lightning.inspection.engines.base import Engine
from uniad_lightning.inspection.engines.checkpoint import TorchEngine, find_device, load_engine
from uniad_lightning.inspection.engines.metadata import CHANNELS_FORMAT, FORMAT
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.engines.program import ABOUT, ProgramEngine
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import refuse_in_the_way, write_text
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import load_checkpoint

EXPORT = "export.json"
ONE_FILE = 2**31 - 2**20  # bytes: what Protocol Buffers, and so one .onnx file, can hold
RANGES_FROM = 64  # good images, spread over the categories, for the ranges of int8


class Exported(NamedTuple):
    """A written file, and its differences from the checkpoint on `real` and on `generated` images."""

    path: Path
    format: str
    precision: str
    megabytes: float
    real: int
    generated: int
    agreement: Agreement


def splits_of(data: UnifiedDataModule, *, required: bool) -> Splits | None:
    """The records of `data`; where they cannot be listed, None, or an InputError if they are `required`."""
    try:
        data.setup()
    except InputError:
        if required:
            raise
        return None
    return data.splits


def export_detector(engine: TorchEngine, plan: Plan, *, categories: Sequence[str], splits: Splits | None) -> Exported:
    """Write `engine` by `plan`, compare the file's outputs with its own, and only then move the file to its place.

    Compared are one good and one defective test image of each category of `splits`, and generated images; `fp16` and
    `int8` may differ, and the difference is reported. Raises InputError for an `fp32` file that differs, for one that
    would be too large, and for `int8` without images.
    """
    if engine.calibration is None:
        warn("the checkpoint has no boundary, so the file gives no decision; uniad calibrate ckpt_path=... sets one")
    _refuse_precision(plan.precision, engine.module)
    about = _about(engine, plan, categories)
    remove_left([plan.path])
    with replacing(plan.path, plan.path.suffix) as unfinished:
        print_stderr("export: writing the file, which may take minutes")
        with _quiet():
            file = _write(engine, unfinished, plan, about, splits)
        records = () if splits is None else limit_images(splits, 1).test
        real = [[read_image(one.image, white_level=engine.white_level, channels=engine.channels)] for one in records]
        generated = generated_images()
        print_stderr(f"export: comparing it with the checkpoint on {len(real) + sum(map(len, generated))} images")
        differences = agreement(engine, file, [*real, *generated])
        if plan.precision == "fp32":
            refuse_disagreement(differences)
    size = plan.path.stat().st_size / 1e6
    return Exported(*plan, size, len(real), sum(map(len, generated)), differences)


def _write(engine: TorchEngine, path: Path, plan: Plan, about: dict[str, Any], splits: Splits | None) -> Engine:
    """Write `engine` to `path`; returns the engine that runs the file."""
    program = trace(engine)
    if plan.format == "torch":
        content = BytesIO()  # a full disk would end the process within torch's own writer
        torch.export.save(program, content, extra_files={ABOUT: json.dumps(about)})
        _put(path, seal_archive(content))
        return ProgramEngine(str(path))
    # Imported late, since these packages are optional and `plan_export` says which one is missing.
    from uniad_lightning.exporting.low_precision import to_fp16, to_int8
    from uniad_lightning.exporting.onnx_model import described, to_onnx

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > ONE_FILE:
        raise InputError(f"the weights take {size / 1e9:.1f} GB and an .onnx file holds 2 GB; use format=torch")
    model = to_onnx(program)
    if plan.precision == "fp16":
        model = to_fp16(model)
    elif plan.precision == "int8":
        if splits is None:
            raise InputError("precision=int8: needs good images of the training; give their folder as data.root=...")
        ranges = spread_over(splits.train, RANGES_FROM)
        images = (read_image(one.image, white_level=engine.white_level, channels=engine.channels) for one in ranges)
        model = to_int8(model, images, parts=engine.module.integer_parts)
    _put(path, seal_model(described(model, about).SerializeToString()))
    return OnnxEngine(str(path), "cpu")


def _refuse_precision(precision: str, module: AnomalyModule) -> None:
    if not module.precisions:
        raise InputError(
            f"{type(module).__name__} is not exported: its map is no graph of tensor operations; use its checkpoint, "
            "with uniad predict or Detector.load"
        )
    if precision not in module.precisions:
        raise InputError(
            f"precision={precision}: {type(module).__name__} is exported as {' or '.join(module.precisions)}; its "
            "distances need all the digits of fp32"
        )


def _put(path: Path, content: BytesIO) -> None:
    try:
        path.write_bytes(content.getbuffer())
    except OSError as error:
        raise InputError(f"output: {path.parent} cannot take the file; {system_reason(error)}") from error


def _about(engine: TorchEngine, plan: Plan, categories: Sequence[str]) -> dict[str, Any]:
    """The metadata of a file, plain values by name."""
    return {
        "format": FORMAT if engine.channels is None else CHANNELS_FORMAT,
        "version": __version__,
        "precision": plan.precision,
        "image_size": list(engine.image_size),
        "map_size": list(engine.map_size),
        "white_level": engine.white_level,
        **({} if engine.channels is None else {"channels": list(engine.channels)}),
        "region": list(engine.region),
        "tiles": engine.framing.count,
        "categories": list(categories),
        "found": [] if engine.familiarity is None else list(engine.familiarity.names),
        "calibration": None if engine.calibration is None else engine.calibration.plain(),
    }


def report(done: Exported, folder: Path) -> None:
    """Print the written file and its differences from the checkpoint, and write both to `export.json` in `folder`."""
    differences = done.agreement
    against = f"{done.real} test images and {done.generated} generated images"
    if not done.real:
        against = f"{done.generated} generated images alone, without the training data; data.root=... adds it"
    print_stdout(
        f"{done.path}: {done.megabytes:.1f} MB, {done.precision}; largest difference from the checkpoint, as a share "
        f"of a map's range: map {differences.map:.1e}, score {differences.score:.1e} ({against})"
    )
    facts = {**done._asdict(), "path": str(done.path), "agreement": differences._asdict()}
    write_text(folder / EXPORT, json.dumps(facts, indent=2) + "\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' warnings; the comparison afterwards shows any real problem."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@holds_output_dir
def export(cfg: DictConfig) -> Exported:
    """Write `cfg.ckpt_path` as one file that runs without this package, and compare its outputs with the checkpoint's.

    Raises InputError for invalid settings, and for a file that differs from the checkpoint.
    """
    refuse_in_the_way(Path(cfg.output_dir), [EXPORT])
    plan = plan_export(
        cfg.ckpt_path, output=cfg.output, format=cfg.format, precision=cfg.precision, overwrite=cfg.overwrite
    )  # fmt: skip
    engine = load_engine(cfg.ckpt_path, find_device("cpu"))
    checkpoint = load_checkpoint(cfg.ckpt_path)
    data = build_saved_data(checkpoint, engine.module, cfg.data)
    splits = splits_of(data, required=cfg.data.root is not None)
    done = export_detector(engine, plan, categories=checkpoint.get("categories", []), splits=splits)
    report(done, Path(cfg.output_dir))
    return done
