"""`calibrate(cfg)`: boundaries of a trained checkpoint, stored in it, and a report on the test images."""

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from uniad_lightning.calibration.boundaries import (
    check_settings,
    set_boundaries,
    warn_of_too_few,
    warn_without_held_out,
)
from uniad_lightning.calibration.images import further_good, not_trained_on, refuse_without_images, without_further
from uniad_lightning.calibration.outcomes import by_kind, learn_familiar, outcomes, share_unfamiliar
from uniad_lightning.calibration.report import draw_scores, show_calibration, write_report
from uniad_lightning.calibration.scores import Scores, score_records
from uniad_lightning.data.checking import check_files
from uniad_lightning.data.records import Record
from uniad_lightning.data.selection import spread_over
from uniad_lightning.errors import print_stdout
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.checkpoint import TorchEngine, find_device, load_engine
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import SCORES, claim
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import load_checkpoint, update_checkpoint

REFERENCES = 1000  # train images whose mean features are stored, to distinguish familiar images from others


class _Images(NamedTuple):
    held_out: list[Record]  # good images that were not trained on, further ones of `good` included
    test: list[Record]
    train: list[Record]  # at most `REFERENCES`
    reused: int  # test images that are among those of `good`, and are therefore not in `test`


@holds_output_dir
def calibrate(cfg: DictConfig) -> Calibration:
    """Set the boundaries of `cfg.ckpt_path`, store them in it, and report false alarms and misses in `cfg.output_dir`.

    Raises InputError for what cannot be used, and where there are no good images that were not trained on.
    """
    folder = Path(cfg.output_dir)
    check_settings(by=cfg.by, rate=cfg.rate, recall=cfg.recall, unfamiliar_rate=cfg.unfamiliar_rate)
    engine = load_engine(cfg.ckpt_path, find_device(cfg.device))
    images = _list_images(cfg, engine)
    claim(folder, overwrite=cfg.overwrite, reads=cfg.ckpt_path)
    held_out = score_records(engine, images.held_out, label="held out")
    test = score_records(engine, images.test, label="test")
    calibration = set_boundaries(held_out, test, by=cfg.by, rate=cfg.rate, recall=cfg.recall)
    entries: dict[str, Any] = {"calibration": calibration.plain()}
    facts: dict[str, Any] = {"checkpoint": str(cfg.ckpt_path)}
    known = score_records(engine, images.train, label="train")
    if held_out.descriptor is not None and known.descriptor is not None:
        familiarity = learn_familiar(known.descriptor, held_out.descriptor, cfg.unfamiliar_rate)
        entries["familiarity"] = familiarity.plain()
        facts["unfamiliar"] = share_unfamiliar(familiarity, test)
    update_checkpoint(cfg.ckpt_path, **entries)
    for line in _warnings(cfg, calibration, held_out, images.reused):
        warn(line)
    overall, own = outcomes(calibration, test)
    write_report(folder, calibration, overall, own, facts)
    draw_scores(folder / SCORES, calibration, by_kind(held_out, test))
    show_calibration(calibration, overall, own)
    print_stdout(f"report: {folder}")
    return calibration


def _list_images(cfg: DictConfig, engine: TorchEngine) -> _Images:
    """The images to score, none of them unreadable. Raises InputError where there are too few."""
    checkpoint = load_checkpoint(cfg.ckpt_path)
    data = build_saved_data(checkpoint, engine.module, cfg.data, evaluates=True)
    data.prepare_data()
    data.setup()
    untrained = data.splits if data.is_other else not_trained_on(data.splits, checkpoint)
    further = [] if cfg.good is None else further_good(cfg.good, known=data.splits)
    untrained, reused = without_further(untrained, further)
    good = [*untrained.validation, *further]
    refuse_without_images(good, untrained.test, by=cfg.by)
    images = _Images(good, list(untrained.test), list(spread_over(data.splits.train, REFERENCES)), reused)
    check_files([*images.held_out, *images.test, *images.train])
    return images


def _warnings(cfg: DictConfig, calibration: Calibration, held_out: Scores, reused: int) -> list[str]:
    shared = f"good={cfg.good}: {reused} of these are test images; they set the boundary and are left out of the report"
    few = warn_of_too_few(calibration, cfg.rate) if cfg.by == "rate" else warn_without_held_out(held_out)
    return [shared, *few] if reused else few
