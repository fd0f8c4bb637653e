"""The configuration that a run has left in its folder: read with the care that a stranger's file needs."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.yaml_text import read_yaml
from uniad_lightning.training.checkpoint_format import upgrade_config


def saved_config(path: Path) -> dict[str, Any]:
    """The configuration in a run's config.yaml, in the current format, as plain values; nothing is resolved or built.

    Raises InputError that names the file for one that cannot be read, is too large, or is no mapping.
    """
    try:
        config = OmegaConf.to_container(OmegaConf.create(read_yaml(path, str(path))))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({one_line(error)}); expected a resolved configuration") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: is no mapping; expected a resolved configuration, as uniad train writes it")
    return {str(name): value for name, value in upgrade_config(config, str(path)).items()}
