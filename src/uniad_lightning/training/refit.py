"""Fit the method of a checkpoint again, to a part of its train images."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf

from uniad_lightning.data.records import Record
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.training.build import build_module, build_saved_data


def refit(
    module: AnomalyModule, checkpoint: dict[str, Any], given: DictConfig, records: Iterable[Record]
) -> AnomalyModule:
    """A detector like `module`, which has `one_pass`, fitted to these `records` of its train images alone.

    `module` and `checkpoint` are those of `build_saved`, `given` the data configuration of `build_saved_data`. The
    result is on `module`'s device and in evaluation mode.
    """
    config = OmegaConf.create(checkpoint["config"])
    config.backbone.weights = "random"  # replaced by those of the checkpoint
    config.data.cache = "off"  # the features of each image are needed once
    fitted = build_module(config, announce=False)
    fitted.backbone = deepcopy(module.backbone)
    data = build_saved_data({**checkpoint, "config": OmegaConf.to_container(config)}, fitted, given)
    data.setup()
    data.train_on(records)
    trainer = L.Trainer(
        accelerator=module.device.type,
        devices=[module.device.index or 0] if module.device.type == "cuda" else 1,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(fitted, datamodule=data)
    return fitted.eval().to(module.device)
