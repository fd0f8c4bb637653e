"""`predict(cfg)` as the command runs it: a prediction and, where it is asked for, the page over it."""

from pathlib import Path

from omegaconf import DictConfig

from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.prediction import predict as prediction
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.report.write import write_report
from uniad_lightning.results.output_folder import is_first


def predict(cfg: DictConfig) -> Counts:
    """`prediction.predict`, and with `cfg.report` then `report.html` and `report.csv` in its folder.

    Raises InputError as both do.
    """
    if cfg.report and cfg.watch and cfg.stop_after_idle is None:
        raise InputError(
            "report=true: the page is written at the end, and watch=true has none; give stop_after_idle=SECONDS, or "
            f"write it with uniad report {cfg.output_dir}"
        )
    counts = prediction.predict(cfg)
    if cfg.report and is_first():
        written = write_report([Path(cfg.output_dir)], device="cpu" if cfg.runtime == "openvino" else cfg.device)
        print_stdout(f"page: {written.page}")
    return counts
