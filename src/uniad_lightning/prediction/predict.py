"""`predict(cfg)`: inspect the images of an input; rows, overlays and masks go to a folder."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.data.images.white_level import as_number, check_white_level
from uniad_lightning.drift.monitor import Monitor
from uniad_lightning.drift.status_file import StatusFile
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.files.user_path import expand
from uniad_lightning.files.within import is_within
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.files import PredictionWriter, part_files
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.overlays import OVERLAY_FOLDERS
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.processes import OtherProcessFailed, Processes, join
from uniad_lightning.prediction.sinks.opening import open_sinks, shown_sinks
from uniad_lightning.prediction.sinks.outgoing import Outgoing
from uniad_lightning.prediction.sources.address import is_live, without_secrets
from uniad_lightning.prediction.sources.items import Source, read_as
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.prediction.stopping import stopping
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import CONFIG, refuse_in_the_way, write_text
from uniad_lightning.training.build import warn


@holds_output_dir
def predict(cfg: DictConfig) -> Counts:
    """Inspect the images of `cfg.input`; rows, overlays and masks go to `cfg.output_dir`.

    Several processes (torchrun, srun) share the images; the first returns the counts of all. Raises InputError for
    settings that cannot be used and where results cannot be written; rows are kept.
    """
    processes = join()
    try:
        cfg.output_dir = processes.gather(cfg.output_dir)[0]  # it may contain the time
        with processes.agreed():
            sinks = open_sinks(_plain(cfg.sink)) if processes.first else []
            source, detector = _open_input(cfg, processes)
            drift = _drift(cfg, detector)
        with processes.agreed():
            whole = _open_results(cfg, drift) if processes.first else None
        with whole or nullcontext(), drift if processes.first else nullcontext():
            with processes.agreed():
                writer = _writer(cfg, processes, whole)
                outgoing = Outgoing(Path(cfg.output_dir), sinks, resume=cfg.resume)
            if whole is not None:
                whole.added = outgoing.added
            with writer, outgoing, stopping(source.stop):
                _say_what_ends_it(cfg, source)
                counts = predict_all(
                    detector, source, writer, batch_size=cfg.batch_size, workers=cfg.workers, category=cfg.category,
                    each=cfg.watch,
                )  # fmt: skip
                counts.undelivered = outgoing.finish()
                return counts
    except OtherProcessFailed:
        return Counts()


def _say_what_ends_it(cfg: DictConfig, source: Source) -> None:
    if cfg.watch:
        print_stdout(f"watching {cfg.input} for new images; Ctrl+C ends", flush=True)
    if source.stop is not None:
        print_stdout(f"reading {without_secrets(cfg.input)}; Ctrl+C ends", flush=True)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _open_input(cfg: DictConfig, processes: Processes) -> tuple[Source, Detector]:
    """The images, and the detector that inspects them."""
    if not isinstance(cfg.max_megapixels, int | float) or not 0 < cfg.max_megapixels < 1e6:
        raise InputError(f"max_megapixels={cfg.max_megapixels}: expected a number above 0, such as 400")
    if processes.count > 1 and (cfg.watch or cfg.input == "-" or (isinstance(cfg.input, str) and is_live(cfg.input))):
        given = "watch=true" if cfg.watch else f"input={without_secrets(cfg.input)}"
        raise InputError(
            f"{given}: images that arrive one by one cannot be shared by {processes.count} processes; use one, or give "
            "them a folder or a list (.txt)"
        )
    drawn = [Path(cfg.output_dir) / name for name in OVERLAY_FOLDERS]
    if cfg.input != "-" and any(is_within(folder, cfg.input) for folder in drawn):
        raise InputError(f"input={cfg.input}: is where uniad predict itself draws; choose another output_dir")
    max_pixels = round(1e6 * cfg.max_megapixels)
    source = open_source(
        cfg.input, watch=cfg.watch, stop_after_idle=cfg.stop_after_idle, every=cfg.every, max_pixels=max_pixels,
        without=Path(cfg.output_dir),
    )  # fmt: skip
    detector = Detector.load(
        cfg.ckpt_path, precision=cfg.precision, max_pixels=max_pixels, runtime=cfg.runtime,
        boundary=_plain(cfg.boundary),
        device=cfg.device if cfg.runtime == "openvino" else processes.device(cfg.device),
    )  # fmt: skip
    white_level = detector.white_level if cfg.white_level is None else as_number(check_white_level(cfg.white_level))
    return read_as(source, white_level=white_level, channels=detector.channels), detector


def _drift(cfg: DictConfig, detector: Detector) -> StatusFile:
    monitor = Monitor(detector.calibration, window=cfg.drift_window, defects=cfg.drift_defects)
    return StatusFile(Path(cfg.output_dir), monitor, resume=cfg.resume)


def _open_results(cfg: DictConfig, drift: StatusFile) -> PredictionWriter:
    """The files of the results, new or resumed."""
    folder, checkpoint = Path(cfg.output_dir), expand(cfg.ckpt_path).resolve()
    settings = {
        "ckpt_path": str(checkpoint),
        "ckpt_changed": checkpoint.stat().st_mtime_ns,  # a new calibration sets another boundary
        "input": _kept(cfg.input),
        "category": cfg.category,
        "every": cfg.every,
        **({} if cfg.precision == "fp32" else {"precision": cfg.precision}),
        **({} if cfg.runtime == "onnxruntime" else {"runtime": cfg.runtime}),
        **({} if cfg.boundary is None else {"boundary": _plain(cfg.boundary)}),
        **({} if cfg.white_level is None else {"white_level": cfg.white_level}),
    }
    refuse_in_the_way(folder, [CONFIG])
    writer = PredictionWriter(
        folder, overlays=cfg.overlays, overlays_size=cfg.overlays_size, settings=settings, resume=cfg.resume,
        overwrite=cfg.overwrite, seen=drift.seen,
    )  # fmt: skip
    if cfg.resume and not writer.kept and not part_files(folder):
        warn(f"resume=true: {folder} holds no predictions yet; starting")
    kept = OmegaConf.merge(cfg, {"input": without_secrets(cfg.input), "sink": shown_sinks(_plain(cfg.sink))})
    write_text(folder / CONFIG, OmegaConf.to_yaml(kept, resolve=True))
    return writer


def _kept(input: str) -> str:
    """`input` as the settings beside the results have it."""
    return without_secrets(input) if input == "-" or is_live(input) else os.path.abspath(expand(input))


def _writer(cfg: DictConfig, processes: Processes, whole: PredictionWriter | None) -> PredictionWriter | PartWriter:
    """The writer of this process: of the results, or of a part where several processes write or have written."""
    folder = Path(cfg.output_dir)
    if processes.count == 1 and whole is not None and not part_files(folder):
        return whole
    if cfg.watch:
        raise InputError(f"watch=true: {folder} holds parts of several processes; let a call without watch merge them")
    return PartWriter(folder, processes=processes, whole=whole, overlays=cfg.overlays, overlays_size=cfg.overlays_size)
