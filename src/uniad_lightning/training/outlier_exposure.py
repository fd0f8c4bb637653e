"""`model.outlier_exposure=FOLDER`: other images as anomalies (FCDD+OE), a spelling of two settings of the data."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.errors import InputError

_MODULE = "uniad_lightning.data.defects.confetti"
_OUTLIERS, _CONFETTI = f"{_MODULE}.OutlierExposure", f"{_MODULE}.Confetti"


def settle_outliers(cfg: DictConfig) -> None:
    """Put outliers in the place of confetti where `cfg.model.outlier_exposure` names a folder.

    That is the same as `data/defects=outliers data.defects.folder=FOLDER`, and a run says both, whichever was given.
    What a checkpoint of `cfg.init_from` learned from counts where `data.defects` says nothing else.

    Raises InputError for another folder in `data.defects`, and for defects that are no confetti.
    """
    if "outlier_exposure" not in cfg.model:
        return
    folder = cfg.model.outlier_exposure
    defects: Any = cfg.data.get("defects") or {}
    with open_dict(cfg):
        if defects.get("_target_") == _OUTLIERS:
            _agree(cfg, folder, defects)
            cfg.model.outlier_exposure = defects.folder
        elif folder is not None:
            if defects.get("_target_") != _CONFETTI:
                kind = str(defects.get("_target_")).rpartition(".")[2]
                raise InputError(
                    f"model.outlier_exposure={folder}: takes the place of confetti, and data.defects is {kind}; leave "
                    "one of them out"
                )
            cfg.data.defects = {"_target_": _OUTLIERS, "folder": folder, "share_good": defects.share_good}


def _agree(cfg: DictConfig, folder: str | None, defects: DictConfig) -> None:
    """Give `defects` the `folder` where they have none; InputError where they have another."""
    if OmegaConf.is_missing(defects, "folder") and folder is not None:
        defects.folder = folder
    if folder not in (None, defects.folder) and cfg.init_from is None:
        raise InputError(
            f"model.outlier_exposure={folder}, but data.defects.folder={defects.folder}: both name the folder of "
            "outliers; leave one out"
        )
