"""`train(cfg)` as the command runs it: a training and, where it is asked for, the boundary at its end."""

from pathlib import Path
from shlex import quote

import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from uniad_lightning.calibration.calibrate import calibrate
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.results.output_folder import is_first
from uniad_lightning.results.run_folder import CALIBRATION, best_checkpoint, read_metrics
from uniad_lightning.settings import conf_dir
from uniad_lightning.training import train as training

FOLDER = "calibration"  # in the run folder, of the report


def train(cfg: DictConfig) -> Evaluation:
    """`training.train`, and with `cfg.calibrate` then `calibrate` of its checkpoint, with that command's defaults.

    Raises InputError as both do.
    """
    evaluation = training.train(cfg)
    if not cfg.calibrate:
        return evaluation
    first = is_first()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()  # the first goes on alone, and nothing may wait for the others
    if first:
        set_boundary(cfg)
    return evaluation


def set_boundary(cfg: DictConfig) -> None:
    """Calibrate the checkpoint that the finished training of `cfg` has reported, on the device of the training."""
    folder = Path(cfg.output_dir)
    if read_metrics(folder) is None:
        raise InputError(f"{folder}: holds no finished training to calibrate")
    settings = DictConfig(OmegaConf.load(conf_dir() / "calibrate.yaml"))
    settings.pop("defaults")
    settings.data = OmegaConf.load(conf_dir() / "data" / "from_checkpoint.yaml")
    settings.overwrite = True  # a report from before the training went on
    settings.ckpt_path = str(best_checkpoint(folder))
    settings.output_dir = str(folder / FOLDER)
    settings.device = _device(cfg.trainer)
    calibrate(settings)
    print_stdout(f"test scores and pictures with this boundary: uniad evaluate {quote(f'ckpt_path={folder}')}")


def set_missing_boundary(cfg: DictConfig) -> None:
    """Calibrate a finished training that ended before its calibration, or was not to be calibrated then."""
    if cfg.calibrate and not (Path(cfg.output_dir) / FOLDER / CALIBRATION).is_file():
        set_boundary(cfg)


def _device(trainer: DictConfig) -> str:
    if trainer.accelerator == "cpu":
        return "cpu"
    numbered = OmegaConf.is_list(trainer.devices) and len(trainer.devices) > 0
    return f"cuda:{trainer.devices[0]}" if numbered else "auto"
