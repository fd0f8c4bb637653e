"""`feedback(cfg)`: an operator's verdicts are kept, and what they change is shown and, when asked for, taken."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.calibration.scores import score_records
from uniad_lightning.errors import InputError, did_you_mean, print_stdout
from uniad_lightning.feedback import boundary, memory_bank, training
from uniad_lightning.feedback.changes import Case, Count, Proposal, show, table
from uniad_lightning.feedback.counting import counted
from uniad_lightning.feedback.history import FEEDBACK, Entry, add, latest, read_history
from uniad_lightning.feedback.output import DECISIONS, held_output, refuse_output
from uniad_lightning.feedback.predictions import Predictions, cell_of, open_predictions
from uniad_lightning.feedback.reviewed import decisions, find_images, unlabelled
from uniad_lightning.feedback.verdicts import Verdict, read_verdicts
from uniad_lightning.files.user_path import expand
from uniad_lightning.files.within import real
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.prediction.stopping import stopping
from uniad_lightning.results.run_folder import reported_checkpoint, write_text
from uniad_lightning.training.checkpoint import load_checkpoint

CHANGES: dict[str, Callable[[Case], Proposal]] = {
    "boundary": boundary.propose,
    "memory_bank": memory_bank.propose,
    "training": training.propose,
}


def feedback(cfg: DictConfig) -> Proposal | None:
    """Add the verdicts of `cfg.verdicts` to the history of `cfg.predictions`, and show what `cfg.change` would do.

    With `cfg.apply` that is written to `cfg.output`; the checkpoint that it starts from is never changed. Raises
    InputError for what cannot be used; no verdict is added then.
    """
    _check(cfg)
    predictions = open_predictions(cfg.predictions)
    folders = {real(one.folder): one for one in (*map(open_predictions, _earlier(cfg.earlier)), predictions)}
    if cfg.verdicts is not None:
        _add(predictions, read_verdicts(expand(str(cfg.verdicts))))
    _show_history(predictions)
    if cfg.change is None:
        return None
    with stopping(_end), TemporaryDirectory(prefix="uniad-") as work:
        case = _case(cfg, list(folders.values()), Path(work))
        proposal = CHANGES[cfg.change](case)
        show(case, proposal)
        print_stdout(f"{cfg.change}: {proposal.what}")
        if cfg.apply:
            _take(cfg, case, proposal)
        else:
            print_stdout("nothing is changed yet: the same call with apply=true writes it, to a new folder")
        return proposal


def _end() -> None:
    """End as an interrupt does, so that what the work has left in the temporary folder is removed."""
    signal.raise_signal(signal.SIGINT)  # also remembered where Lightning catches the exception
    raise KeyboardInterrupt  # where SIGINT is ignored, as in the background of a shell


def _check(cfg: DictConfig) -> None:
    if cfg.change is not None and cfg.change not in CHANGES:
        near = did_you_mean(str(cfg.change), CHANGES)
        raise InputError(f"change={cfg.change}: expected one of {', '.join(CHANGES)}, or null.{near}")
    for key in ("by", "rate", "recall", "good"):
        if cfg[key] is not None and cfg.change != "boundary":
            raise InputError(f"{key}={cfg[key]}: has an effect with change=boundary alone; leave it out")
    if not isinstance(cfg.apply, bool):
        raise InputError(f"apply={cfg.apply}: expected true or false")
    if cfg.apply and cfg.change is None:
        raise InputError(f"apply=true: there is nothing to write; name what to change, change={' or '.join(CHANGES)}")


def _earlier(given: object) -> Sequence[str]:
    if given is None:
        return []
    return [str(one) for one in given] if OmegaConf.is_list(given) else [str(given)]  # type: ignore[attr-defined]


def _add(predictions: Predictions, verdicts: Sequence[Verdict]) -> None:
    """Add the verdicts, each with the row that it is about; InputError for one that is about none."""
    rows = predictions.rows(verdict.path for verdict in verdicts)
    entries = []
    for one in verdicts:
        row = rows.get(one.path)
        if row is None:
            raise InputError(
                f"{one.place}: {one.path!r:.200} has no row in {predictions.folder}.{predictions.similar(one.path)} "
                "Expected a path as predictions.csv has it"
            )
        entries.append(
            Entry(
                one.when,
                cell_of(row["path"]),
                one.verdict,
                one.by,
                one.note,
                row["decision"],
                row["score"],
                row["category"],
                row["size"],
                str(predictions.checkpoint),
                predictions.checkpoint_changed,
            )  # fmt: skip
        )
    before = latest(read_history(predictions.folder))
    added = add(predictions.folder, entries)
    counting = latest(read_history(predictions.folder))
    changed = [path for path in {one.path for one in added} & before.keys() if _differs(before[path], counting[path])]
    print_stdout(
        f"{predictions.folder / FEEDBACK}: {counted(len(added), 'verdict')} added, {len(changed)} in place of an "
        f"earlier one; {len(entries) - len(added)} there before"
    )


def _differs(before: Entry, after: Entry) -> bool:
    return before.verdict != after.verdict


def _show_history(predictions: Predictions) -> None:
    """Print what the verdicts so far say of the decisions that they were given on."""
    entries = latest(read_history(predictions.folder)).values()
    if not entries:
        print_stdout(f"{predictions.folder}: no verdicts yet; give some with verdicts=FILE.csv")
        return
    decided = [entry for entry in entries if entry.decision]
    count = Count.of([entry.verdict == "good" for entry in decided], [entry.decision for entry in decided])
    rest = f"; {len(entries) - len(decided)} had no decision" if len(decided) < len(entries) else ""
    print_stdout(f"verdicts so far on {counted(len(entries), 'image')}: {count.text}{rest}")


def _case(cfg: DictConfig, folders: Sequence[Predictions], work: Path) -> Case:
    """The images with a verdict in all folders, decided by the checkpoint as it is."""
    reviewed = find_images(
        folders, images=None if cfg.images is None else expand(str(cfg.images)), on_missing=cfg.on_missing
    )
    path = str(cfg.ckpt_path or _checkpoint_of(folders[-1]))
    if cfg.apply:  # before all images are scored
        refuse_output(expand(str(cfg.output)), overwrite=cfg.overwrite, checkpoint=path)
    engine = load_engine(path, find_device(cfg.device))
    if engine.calibration is None:
        raise InputError(f"ckpt_path={path}: has no boundary, so nothing is decided; set one with uniad calibrate")
    scores = score_records(engine, unlabelled(reviewed), label="scores of reviewed images")
    decided = decisions(engine.calibration, engine.familiarity, scores, reviewed)
    return Case(cfg, path, load_checkpoint(path), engine, engine.calibration, reviewed, scores, decided, work)


def _checkpoint_of(predictions: Predictions) -> Path:
    """The checkpoint of the predictions; InputError where it is gone, or an exported file."""
    path = predictions.checkpoint
    if path.suffix == ".onnx":
        raise InputError(
            f"{predictions.folder}: is of {path}, an exported file; give its checkpoint with ckpt_path=RUN"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file, the checkpoint of {predictions.folder}; give it with ckpt_path=RUN")
    return reported_checkpoint(path, "ckpt_path")


def _take(cfg: DictConfig, case: Case, proposal: Proposal) -> None:
    folder = expand(str(cfg.output))
    with held_output(folder, overwrite=cfg.overwrite, checkpoint=case.path):
        write_text(folder / DECISIONS, table(case, proposal))
        lines = proposal.write(folder)
    for line in lines:
        print_stdout(line)
    print_stdout(f"every decision before and after: {folder / DECISIONS}")
