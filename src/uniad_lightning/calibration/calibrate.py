"""`calibrate(cfg)`: boundaries of a trained checkpoint, kept in it, and a report of what they would have done."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uniad_lightning.calibration.boundaries import check_settings, only_chosen_on, set_boundaries, too_few
from uniad_lightning.calibration.images import further_good, not_trained_on, refuse_without_images, without
from uniad_lightning.calibration.outcomes import by_kind, learn_familiar, outcomes, share_unfamiliar
from uniad_lightning.calibration.report import draw_scores, show_calibration, write_report
from uniad_lightning.calibration.scores import score_records
from uniad_lightning.data.checking import check_files
from uniad_lightning.data.selection import spread_over
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import SCORES, claim
from uniad_lightning.training.build import build_saved_data, warn
from uniad_lightning.training.checkpoint import load_checkpoint, update_checkpoint

REFERENCES = 1000  # train images whose mean features are kept, to tell familiar pictures from others


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
