"""Verdicts set the boundary: images reviewed as good help to set it, defective ones say what it misses."""

import io
import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from uniad_lightning.calibration.boundaries import METHODS
from uniad_lightning.calibration.calibrate import calibrate
from uniad_lightning.calibration.images import further_good
from uniad_lightning.data.records import Record
from uniad_lightning.data.same_images import among
from uniad_lightning.data.selection import image_groups
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.feedback.changes import Case, Proposal
from uniad_lightning.feedback.counting import counted
from uniad_lightning.feedback.reviewed import decisions, records_of
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.results.run_folder import CALIBRATION, LAST, write_text
from uniad_lightning.results.written_files import note
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint

_REPORT = "calibration"  # folder of the report of `uniad calibrate`


class _Usable(NamedTuple):
    good: list[Record]
    defective: list[Record]
    further: list[Record]  # good ones that are named besides


def propose(case: Case) -> Proposal:
    """The boundary of `uniad calibrate` with the reviewed images, in a copy of the checkpoint.

    Raises InputError as `calibrate` does, and where no reviewed image can set or test it.
    """
    usable = _usable(case)
    copy = case.work / LAST
    copy.parent.mkdir(parents=True)
    shutil.copyfile(expand(case.path), copy)
    printed = io.StringIO()
    with redirect_stdout(printed):
        calibrate(_settings(case, copy, usable))
    print_stdout("\n".join(line for line in printed.getvalue().splitlines() if not line.startswith("report: ")))
    changed = load_checkpoint(str(copy))
    calibration = Calibration.from_plain(changed["calibration"])
    familiarity = Familiarity.from_plain(changed["familiarity"]) if "familiarity" in changed else None
    after = decisions(calibration, familiarity, case.scores, case.reviewed)

    def write(folder: Path) -> list[str]:
        AtomicCheckpointIO().save_checkpoint(changed, folder / LAST)
        _keep_report(case.work / _REPORT, folder / _REPORT, folder / LAST)
        return [
            f"the checkpoint with the new boundary: {folder / LAST}; the report of its calibration: {folder / _REPORT}"
        ]

    _warn_of_fewer(case.calibration.overall.images, calibration.overall.images)
    moved = _moved(case.calibration, calibration)
    what = (
        f"{moved} ({calibration.method}); {counted(len(usable.good), 'image')} reviewed as good helped to set it, so "
        "expect more false alarms on new ones"
    )
    return Proposal(what, case.scores.score.tolist(), after, write)


def _moved(before: Calibration, after: Calibration) -> str:
    """The boundaries that decide, before and after: that for all categories, or those of the categories that differ."""
    pairs = {"all categories": (before.overall, after.overall)}
    if after.by_category:
        pairs = {
            name: (before.of(name if before.by_category and name in before.categories else None), own)
            for name, own in sorted(after.categories.items())
        }
    moved = [
        f"{name} {old.score:.4g} -> {new.score:.4g}" for name, (old, new) in pairs.items() if old.score != new.score
    ]
    return f"the boundary of {', '.join(moved)}" if moved else "no boundary moves"


def _usable(case: Case) -> _Usable:
    """The reviewed images that were not trained on, by their verdict."""
    data = build_saved_data(case.checkpoint, case.engine.module, case.cfg.data, evaluates=True)
    data.prepare_data()
    data.setup()
    records = records_of(case.reviewed, case.engine.categories)
    seen = among({record.image.resolve() for record in records}, data.splits.train)  # type: ignore[union-attr]
    groups = set(case.checkpoint.get("trained", torch.zeros(0)).tolist())  # those that a bank took later, too
    numbers = image_groups(records).tolist()
    new = [
        r
        for r, n in zip(records, numbers, strict=True)
        if n not in groups and r.image.resolve() not in seen  # type: ignore[union-attr]
    ]
    good, defective = ([record for record in new if record.label == label] for label in (0, 1))
    _warn_of_trained(records, new)
    _warn_of_chosen(case)
    if not new:
        raise InputError("change=boundary: all images with a verdict were trained on, and can set no boundary")
    known = {record.image.resolve() for record in records}  # type: ignore[union-attr]
    named = [] if case.cfg.good is None else further_good(case.cfg.good, known=data.splits)
    further = [record for record in named if record.image.resolve() not in known]  # type: ignore[union-attr]
    return _Usable(good, defective, further)


def _warn_of_fewer(before: int, after: int) -> None:
    if after < before:
        warn(
            f"the new boundary stands on fewer images than the present one, {before} -> {after}: those given to uniad "
            "calibrate as good=... are not among them; give them again, good=..."
        )


def _warn_of_trained(records: Sequence[Record], new: Sequence[Record]) -> None:
    trained = [record for record in records if record not in new]
    wrong = [record for record in trained if record.label]
    if trained:
        was = "was" if len(trained) == 1 else "were"
        warn(
            f"{counted(len(trained), 'image')} with a verdict {was} trained on; that neither sets nor tests a boundary"
        )
    if wrong:
        warn(
            f"reviewed as defective, but trained on as good: {counted(len(wrong), 'image')}, such as {wrong[0].image}; "
            "train again without them (change=training)"
        )


def _warn_of_chosen(case: Case) -> None:
    """Warns where most images reviewed as good are false alarms: they were looked at for their high scores."""
    good = [decision for one, decision in zip(case.reviewed, case.decisions, strict=True) if one.good]
    alarms = good.count("defective")
    if alarms > len(good) / 2:
        warn(
            f"{alarms} of {counted(len(good), 'image')} reviewed as good called defective, chosen for high scores: the "
            "boundary rises more than the rate asks for; review images that were called good as well"
        )


def _settings(case: Case, copy: Path, usable: _Usable) -> DictConfig:
    """Those of `uniad calibrate`; method and rate if not given, and which boundaries decide, are as they were."""
    cfg, settings = case.cfg, DictConfig(OmegaConf.load(conf_dir() / "calibrate.yaml"))
    settings.pop("defaults")
    settings.update(_method(case))
    for name in ("rate", "recall"):
        if cfg[name] is not None and settings.by in METHODS and settings.by != name:
            raise InputError(
                f"{name}={cfg[name]}: has no effect with by={settings.by}; leave it out, or give by={name}"
            )
    settings.update({name: cfg[name] for name in ("rate", "recall") if cfg[name] is not None})
    settings.boundaries = "category" if case.calibration.by_category else "one"
    settings.data, settings.device = cfg.data, cfg.device
    settings.ckpt_path, settings.output_dir = str(copy), str(case.work / _REPORT)
    settings.good = [str(record.image) for record in (*usable.further, *usable.good)] or None
    settings.defective = [str(record.image) for record in usable.defective] or None
    return settings


def _method(case: Case) -> dict[str, object]:
    """The method of the new boundary, `by`, and the share that goes with it where that of the present one stays."""
    cfg, (method, _, value) = case.cfg, case.calibration.method.partition("=")
    if cfg.by not in (None, method):
        return {"by": cfg.by}
    if method == "f1" or cfg.get(method) is not None:
        return {"by": method}
    try:
        return {"by": method, method: {"rate": float, "recall": float}[method](value)}
    except (KeyError, ValueError):
        raise InputError(
            f"ckpt_path={case.path}: its boundary was set by {case.calibration.method!r:.40}, which cannot be "
            "repeated; give by=rate and a rate, or by=f1, or by=recall and a recall"
        ) from None


def _keep_report(made: Path, folder: Path, checkpoint: Path) -> None:
    """Copy the report of the calibration, which names the checkpoint where it is now."""
    for path in sorted(path for path in made.iterdir() if path.is_file()):
        if path.name == CALIBRATION:
            facts = {**json.loads(path.read_text()), "checkpoint": str(checkpoint)}
            write_text(folder / path.name, json.dumps(facts, indent=2) + "\n")
        else:
            note(folder / path.name)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / path.name, path.read_bytes())
