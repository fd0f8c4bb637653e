"""`train(cfg)` as the command runs it: a training and, where it is asked for, the boundary at its end."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.calibration.calibrate import calibrate
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.results.output_folder import is_first
from uniad_lightning.results.run_folder import LAST
from uniad_lightning.settings import conf_dir
from uniad_lightning.training import train as training

FOLDER = "calibration"  # in the run folder, of the report


def train(cfg: DictConfig) -> Evaluation:
    """`training.train`, and with `cfg.calibrate` then `calibrate` of its checkpoint, with that command's defaults.

    Raises InputError as both do.
    """
    evaluation = training.train(cfg)
    if cfg.calibrate and is_first():
        folder = Path(cfg.output_dir)
        calibrate(_settings(ckpt_path=folder / LAST, output_dir=folder / FOLDER))
    return evaluation


def _settings(**paths: Path) -> DictConfig:
    """The defaults of `uniad calibrate`; a report from before the training went on is replaced."""
    settings = DictConfig(OmegaConf.load(conf_dir() / "calibrate.yaml"))
    settings.pop("defaults")
    settings.data = OmegaConf.load(conf_dir() / "data" / "from_checkpoint.yaml")
    settings.overwrite = True
    for key, path in paths.items():
        settings[key] = str(path)
    return settings
