"""What is done with a trained checkpoint: `calibrate(cfg)`, `export(cfg)`, `predict(cfg)`."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.calibration.calibrate import (
    REFERENCES,
    by_kind,
    check_settings,
    further_good,
    learn_familiar,
    not_trained_on,
    only_chosen_on,
    outcomes,
    refuse_without_images,
    score_records,
    set_boundaries,
    share_unfamiliar,
    spread_over,
    too_few,
    without,
)
from uniad_lightning.calibration.report import draw_scores, show_calibration, write_report
from uniad_lightning.data.checking import check_files
from uniad_lightning.data.images.white_level import as_number, check_white_level
from uniad_lightning.errors import InputError
from uniad_lightning.exporting.export import EXPORT, Exported, export_detector, plan_export, report, splits_of
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.files import PredictionWriter, part_files
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.overlays import PICTURE_FOLDERS
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.processes import Ended, Processes, join
from uniad_lightning.prediction.sources.items import Source, at_white_level
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import CONFIG, SCORES, claim, refuse_in_the_way, write_text
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import load_checkpoint, update_checkpoint


@holds_output_dir
def calibrate(cfg: DictConfig) -> Calibration:
    """Set the boundaries of `cfg.ckpt_path`, keep them in it, and report what they would have done in `cfg.output_dir`.

    Raises InputError for what cannot be used, and where there are no good images that were not trained on.
    """
    folder = Path(cfg.output_dir)
    check_settings(by=cfg.by, rate=cfg.rate, recall=cfg.recall, unfamiliar_rate=cfg.unfamiliar_rate)
    engine = load_engine(cfg.ckpt_path, find_device(cfg.device))
    checkpoint = load_checkpoint(cfg.ckpt_path)
    data = build_saved_data(checkpoint, engine.module, cfg.data, evaluates=True)
    data.prepare_data()
    data.setup()
    unseen = data.splits if data.is_other else not_trained_on(data.splits, checkpoint)
    further = [] if cfg.good is None else further_good(cfg.good, known=data.splits)
    unseen, reused = without(unseen, further)
    refuse_without_images([*unseen.validation, *further], unseen.test, by=cfg.by)
    check_files([*unseen.validation, *further, *unseen.test, *spread_over(data.splits.train, REFERENCES)])
    claim(folder, overwrite=cfg.overwrite, reads=cfg.ckpt_path)
    held_out = score_records(engine, [*unseen.validation, *further], label="held out")
    test = score_records(engine, unseen.test, label="test")
    calibration = set_boundaries(held_out, test, by=cfg.by, rate=cfg.rate, recall=cfg.recall)
    entries: dict[str, Any] = {"calibration": calibration.plain()}
    facts: dict[str, Any] = {"checkpoint": str(cfg.ckpt_path)}
    known = score_records(engine, spread_over(data.splits.train, REFERENCES), label="train")
    if held_out.descriptor is not None and known.descriptor is not None:
        familiarity = learn_familiar(known.descriptor, held_out.descriptor, cfg.unfamiliar_rate)
        entries["familiarity"] = familiarity.plain()
        facts["unfamiliar"] = share_unfamiliar(familiarity, test)
    update_checkpoint(cfg.ckpt_path, **entries)
    if reused:
        warn(
            f"good={cfg.good}: {reused} of these are test images; they set the boundary and are left out of the report"
        )
    for line in too_few(calibration, cfg.rate) if cfg.by == "rate" else only_chosen_on(held_out):
        warn(line)
    one, own = outcomes(calibration, test)
    write_report(folder, calibration, one, own, facts)
    draw_scores(folder / SCORES, calibration, by_kind(held_out, test))
    show_calibration(calibration, one, own)
    return calibration


@holds_output_dir
def export(cfg: DictConfig) -> Exported:
    """Write `cfg.ckpt_path` as one file that runs without this package, and see that it says the same.

    Raises InputError for what cannot be used in `cfg`, and for a file that differs from the checkpoint.
    """
    refuse_in_the_way(Path(cfg.output_dir), [EXPORT])
    plan = plan_export(
        cfg.ckpt_path, output=cfg.output, format=cfg.format, precision=cfg.precision, overwrite=cfg.overwrite
    )  # fmt: skip
    engine = load_engine(cfg.ckpt_path, find_device("cpu"))
    checkpoint = load_checkpoint(cfg.ckpt_path)
    data = build_saved_data(checkpoint, engine.module, cfg.data)
    splits = splits_of(data, demanded=cfg.data.root is not None)
    done = export_detector(engine, plan, categories=checkpoint.get("categories", []), splits=splits)
    report(done, Path(cfg.output_dir))
    return done


@holds_output_dir
def predict(cfg: DictConfig) -> Counts:
    """Judge the pictures of `cfg.input`; rows and pictures go to `cfg.output_dir`.

    Several processes (torchrun, srun) share them; the counts of all are the first one's. Raises InputError for what
    cannot be used and where results cannot be written; rows are kept.
    """
    processes = join()
    try:
        cfg.output_dir = processes.everyones(cfg.output_dir)[0]  # it may have the time in it
        with processes.agreed():
            source, detector = _given(cfg, processes)
        with processes.agreed():
            whole = _results(cfg) if processes.first else None
        with whole or nullcontext():
            with processes.agreed():
                writer = _writer(cfg, processes, whole)
            with writer:
                return predict_all(
                    detector, source, writer, batch_size=cfg.batch_size, workers=cfg.workers, product=cfg.product
                )  # fmt: skip
    except Ended:
        return Counts()


def _given(cfg: DictConfig, processes: Processes) -> tuple[Source, Detector]:
    """What is to be judged, and what judges it."""
    if not isinstance(cfg.max_megapixels, int | float) or not 0 < cfg.max_megapixels < 1e6:
        raise InputError(f"max_megapixels={cfg.max_megapixels}: expected a number above 0, such as 400")
    if processes.count > 1 and (cfg.watch or cfg.input == "-"):
        raise InputError(
            f"{'watch=true' if cfg.watch else 'input=-'}: what comes one after the other cannot be shared by "
            f"{processes.count} processes; use one, or give them a folder or a list (.txt)"
        )
    drawn = [Path(cfg.output_dir).resolve() / name for name in PICTURE_FOLDERS]
    if cfg.input != "-" and any(expand(cfg.input).resolve().is_relative_to(folder) for folder in drawn):
        raise InputError(f"input={cfg.input}: is drawn by uniad predict itself; choose another output_dir")
    max_pixels = round(1e6 * cfg.max_megapixels)
    source = open_source(
        cfg.input, watch=cfg.watch, stop_after_idle=cfg.stop_after_idle, every=cfg.every, max_pixels=max_pixels,
        without=Path(cfg.output_dir),
    )  # fmt: skip
    detector = Detector.load(cfg.ckpt_path, device=processes.device(cfg.device), max_pixels=max_pixels)
    white_level = detector.white_level if cfg.white_level is None else as_number(check_white_level(cfg.white_level))
    return at_white_level(source, white_level), detector


def _results(cfg: DictConfig) -> PredictionWriter:
    """The files of the results, begun or gone on with."""
    folder, checkpoint = Path(cfg.output_dir), expand(cfg.ckpt_path).resolve()
    settings = {
        "ckpt_path": str(checkpoint),
        "ckpt_changed": checkpoint.stat().st_mtime_ns,  # calibrated anew it has another boundary
        "input": cfg.input if cfg.input == "-" else os.path.abspath(expand(cfg.input)),
        "product": cfg.product,
        "every": cfg.every,
        **({} if cfg.white_level is None else {"white_level": cfg.white_level}),
    }
    refuse_in_the_way(folder, [CONFIG])
    writer = PredictionWriter(
        folder, pictures=cfg.pictures, settings=settings, resume=cfg.resume, overwrite=cfg.overwrite
    )  # fmt: skip
    if cfg.resume and not writer.kept and not part_files(folder):
        warn(f"resume=true: {folder} holds no predictions yet; starting")
    write_text(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    return writer


def _writer(cfg: DictConfig, processes: Processes, whole: PredictionWriter | None) -> PredictionWriter | PartWriter:
    """Where this process writes: into the results, unless several do or have done so."""
    folder = Path(cfg.output_dir)
    if processes.count == 1 and whole is not None and not part_files(folder):
        return whole
    if cfg.watch:
        raise InputError(f"watch=true: {folder} holds parts of several processes; let a call without watch end them")
    return PartWriter(folder, processes=processes, whole=whole, pictures=cfg.pictures)
