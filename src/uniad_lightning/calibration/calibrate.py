"""`calibrate(cfg)`: boundaries of a trained checkpoint, stored in it, and a report on the test images."""

from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from uniad_lightning.calibration.baselines import baselines
from uniad_lightning.calibration.boundaries import (
    check_settings,
    set_boundaries,
    warn_of_none,
    warn_of_too_few,
    warn_without_held_out,
)
from uniad_lightning.calibration.cross_fitting import can_cross_fit, cross_fit
from uniad_lightning.calibration.images import (
    further_defective,
    further_good,
    not_trained_on,
    refuse_without_images,
    without_defects,
    without_further,
)
from uniad_lightning.calibration.outcomes import at_rates, by_kind, outcomes, warn_of_blind
from uniad_lightning.calibration.recognition import (
    Recognition,
    learn,
    share_unfamiliar,
    warn_of_useless,
    with_categories,
)
from uniad_lightning.calibration.report import (
    draw_scores,
    show_boundaries,
    show_deciding,
    show_highest,
    show_outcomes,
    show_rates,
    write_decisions,
    write_report,
)
from uniad_lightning.calibration.scores import Scores, score_records
from uniad_lightning.data.checking import check_files
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.selection import spread_over
from uniad_lightning.errors import print_stdout
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.checkpoint import TorchEngine, find_device, load_engine
from uniad_lightning.results.output_folder import holds_output_dir, holds_run
from uniad_lightning.results.run_folder import SCORES, claim
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import load_checkpoint, update_checkpoint

REFERENCES = 1000  # train images whose mean features are stored, to find an image's category and unfamiliar images


class _Images(NamedTuple):
    splits: Splits  # of the training
    held_out: list[Record]  # good images that were not trained on, further ones of `good` included
    test: list[Record]  # further ones of `defective` included
    train: list[Record]  # at most `REFERENCES`
    reused: int  # test images that are among those of `good`, and are therefore not in `test`
    cross_fitted: bool  # whether the train images set the boundary, too


class _Scored(NamedTuple):
    good: Scores  # what the boundaries are set on
    test: Scores
    recognition: Recognition | None


@holds_output_dir
@holds_run
def calibrate(cfg: DictConfig) -> Calibration:
    """Set the boundaries of `cfg.ckpt_path`, store them in it, and report false alarms and misses in `cfg.output_dir`.

    Raises InputError for what cannot be used, and where there are no good images that were not trained on.
    """
    check_settings(
        by=cfg.by, boundaries=cfg.boundaries, folds=cfg.folds, rate=cfg.rate, recall=cfg.recall,
        unfamiliar_rate=cfg.unfamiliar_rate,
    )  # fmt: skip
    engine, checkpoint = load_engine(cfg.ckpt_path, find_device(cfg.device)), load_checkpoint(cfg.ckpt_path)
    images = _list_images(cfg, engine, checkpoint)
    claim(Path(cfg.output_dir), overwrite=cfg.overwrite, reads=cfg.ckpt_path)
    scored = _score(cfg, engine, checkpoint, images)
    recognition = scored.recognition
    by_category = cfg.boundaries == "category" and recognition is not None and recognition.reliable
    calibration = set_boundaries(
        scored.good, scored.test, by=cfg.by, rate=cfg.rate, recall=cfg.recall, by_category=by_category
    )
    good = scored.good if len(scored.good.score) else scored.test.labelled(0)
    calibration = calibration._replace(baselines=baselines(good, recognition, checkpoint.get("categories", ())))
    entries: dict[str, Any] = {"calibration": calibration.plain()}
    facts: dict[str, Any] = {"checkpoint": str(cfg.ckpt_path), "cross_fitted": images.cross_fitted}
    warnings = _warnings(cfg, calibration, scored.good, images.reused)
    if recognition is not None:
        entries["familiarity"] = recognition.familiarity.plain()
        facts["category_found"] = {"right": recognition.right, "images": recognition.images}
        facts["unfamiliar"] = share_unfamiliar(recognition.familiarity, scored.test)
        warnings += warn_of_useless(engine, recognition, facts["unfamiliar"])
    if by_category:
        warnings += warn_of_none(calibration, checkpoint.get("categories", ()))
    update_checkpoint(cfg.ckpt_path, **entries)
    _report(cfg, scored, calibration, facts, warnings)
    return calibration


def _report(
    cfg: DictConfig, scored: _Scored, calibration: Calibration, facts: dict[str, Any], warnings: list[str]
) -> None:
    """Write and print what the boundaries are and do, with the `facts` for the file and the `warnings` at the end."""
    folder, test = Path(cfg.output_dir), scored.test
    overall, own = outcomes(calibration, test)
    write_decisions(folder, test, calibration, scored.recognition)
    draw_scores(folder / SCORES, calibration, by_kind(scored.good, test))
    write_report(folder, calibration, overall, own, facts)  # the last, since its file marks the calibration as done
    show_deciding(calibration, scored.recognition, asked=cfg.boundaries)
    show_boundaries(calibration)
    show_outcomes(calibration, overall, own)
    show_highest(scored.good, calibration)
    if cfg.by == "rate" and any(record.label for record in test.records):
        show_rates(at_rates(scored.good, test, by_category=calibration.by_category))
    for line in [*warnings, *warn_of_blind(overall, own)]:
        warn(line)
    print_stdout(f"report: {folder}")


def _list_images(cfg: DictConfig, engine: TorchEngine, checkpoint: dict[str, Any]) -> _Images:
    """The images to score, none of them unreadable. Raises InputError where there are too few."""
    data = build_saved_data(checkpoint, engine.module, cfg.data, evaluates=True)
    data.prepare_data()
    data.setup()
    untrained = data.splits if data.is_other else not_trained_on(data.splits, checkpoint)
    further = [] if cfg.good is None else further_good(cfg.good, known=data.splits)
    untrained, reused = without_further(untrained, further)
    defective = [] if cfg.defective is None else further_defective(cfg.defective, further)
    untrained, _ = without_further(untrained, defective)  # of a test image, what is given here is the label
    good, test = [*untrained.validation, *further], [*untrained.test, *defective]
    cross_fitted = (
        cfg.by == "rate" and not data.is_other and can_cross_fit(engine.module, checkpoint, data.splits, cfg.folds)
    )
    if cfg.by == "rate":
        more, test = without_defects(test)
        good += more
    refuse_without_images(good, test, by=cfg.by, cross_fitted=cross_fitted)
    train = list(spread_over(data.splits.train, REFERENCES))
    check_files([*good, *test, *(data.splits.train if cross_fitted else train)], data.channels)
    return _Images(data.splits, good, test, train, reused, cross_fitted)


def _score(cfg: DictConfig, engine: TorchEngine, checkpoint: dict[str, Any], images: _Images) -> _Scored:
    """Score all images, and learn to recognise categories; train images by detectors fitted without them."""
    good = score_records(engine, images.held_out, label="scores of held-out images")
    test = score_records(engine, images.test, label="scores of test images")
    recognition = learn(
        score_records(engine, images.train, label="features of train images"),
        good,
        cfg.unfamiliar_rate,
        before=engine.familiarity,
        categories=checkpoint.get("categories", ()),
    )
    if images.cross_fitted:
        good = Scores.joined([good, cross_fit(engine, checkpoint, cfg.data, images.splits, cfg.folds)])
    if recognition is not None and recognition.reliable:
        good, test = (with_categories(scores, recognition.familiarity) for scores in (good, test))
    return _Scored(good, test, recognition)


def _warnings(cfg: DictConfig, calibration: Calibration, good: Scores, reused: int) -> list[str]:
    shared = f"test images among the further good ones: {reused}; they set the boundary and are left out of the report"
    few = warn_of_too_few(calibration, cfg.rate) if cfg.by == "rate" else warn_without_held_out(good)
    return [shared, *few] if reused else few
