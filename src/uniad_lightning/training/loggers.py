"""The loggers of a configuration, one or several: `logger=wandb`, `logger=[csv,mlflow]`."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from uniad_lightning.errors import InputError
from uniad_lightning.tracking.loggers import FaultTolerantLogger

_TARGET = "_target_"


def by_name(loggers: DictConfig) -> dict[str, DictConfig]:
    """The configuration of each logger by its name.

    Raises InputError for an entry that is none. Configurations of earlier releases hold one logger without a name, and
    a training that was begun with one may be resumed.
    """
    if _TARGET in loggers:
        return {"": loggers}
    given = {str(name): logger for name, logger in loggers.items() if logger is not None}
    for name, logger in given.items():
        if not isinstance(logger, DictConfig) or _TARGET not in logger:
            raise InputError(
                f"logger.{name}: is {logger!r:.80}, expected a logger, a mapping with {_TARGET}; a file of your own in "
                "logger/NAME.yaml begins with '# @package logger.NAME'"
            )
    return given


def build_loggers(cfg: DictConfig) -> list[FaultTolerantLogger]:
    """The loggers of `cfg`; where they group runs, those of a sweep by its folder, others by their name.

    A failure of one does not reach the others.
    """
    swept = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    built = []
    for logger in by_name(cfg.logger).values():
        if logger.get("group", "") is None:
            logger.group = Path(cfg.output_dir).parent.name if swept else cfg.name
        built.append(FaultTolerantLogger(instantiate(logger, _convert_="all")))
    return built
