"""What `uniad export` writes, and where; checked before anything long begins."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.errors import InputError, did_you_mean, system_reason
from uniad_lightning.files.atomic import temporary_path
from uniad_lightning.files.user_path import expand

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PRECISIONS = ("fp32", "fp16", "int8")
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Plan(NamedTuple):
    """The file to write, its format and its precision."""

    path: Path
    format: str
    precision: str


def plan_export(ckpt_path: str, *, output: str | None, format: str, precision: str, overwrite: bool) -> Plan:
    """The file to write, beside the checkpoint unless `output` is given.

    Raises InputError for an unknown format or precision, a file that exists or cannot be written, and packages that are
    not installed.
    """
    for name, given, known in (("format", format, tuple(SUFFIXES)), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise InputError(
                f"{name}={given}: unknown; expected one of {', '.join(known)}.{did_you_mean(str(given), known)}"
            )
    if format == "torch" and precision != "fp32":
        raise InputError(f"precision={precision}: format=torch is written in fp32 alone; use format=onnx")
    path = expand(ckpt_path).with_suffix(SUFFIXES[format]) if output is None else expand(output)
    if path.suffix != SUFFIXES[format]:
        raise InputError(f"output={path}: expected a name that ends in {SUFFIXES[format]} for format={format}")
    if path.exists() and not overwrite:
        raise InputError(f"output={path}: is there already; choose another output, or overwrite=true")
    absent = [name for name in NEEDED if find_spec(name) is None] if format == "onnx" else []
    if absent:
        raise InputError(f"format=onnx: {', '.join(absent)} not installed; pip install 'uniad-lightning[export]'")
    if Path(ckpt_path).is_file():  # else loading it raises the error, and no folder is made
        _refuse_unwritable(path)
    return Plan(path, format, precision)


def _refuse_unwritable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path(path, path.suffix).touch()
        temporary_path(path, path.suffix).unlink()
    except OSError as error:
        raise InputError(f"output={path}: cannot be written; {system_reason(error)}") from None
