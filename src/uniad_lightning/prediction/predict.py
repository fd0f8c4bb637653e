"""`predict(cfg)`: the images of an input, their results as rows and pictures in a folder."""

import os
from contextlib import nullcontext
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.data.images.white_level import as_number, check_white_level
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.files import PredictionWriter, part_files
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.overlays import PICTURE_FOLDERS
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.processes import Ended, Processes, join
from uniad_lightning.prediction.sources.items import Source, at_white_level
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import CONFIG, refuse_in_the_way, write_text
from uniad_lightning.training.build import warn


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
