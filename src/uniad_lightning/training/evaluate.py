"""`evaluate(cfg)`: a checkpoint on the data it was trained on, or on other data."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.records import Splits
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.precision import check_precision
from uniad_lightning.results.output_folder import holds_output_dir, is_first
from uniad_lightning.results.run_folder import (
    refuse_occupied,
)
from uniad_lightning.training.build import build_saved, build_saved_data, warn
from uniad_lightning.training.callbacks import EndWhenInterrupted, SaveMaps
from uniad_lightning.training.heatmaps import HeatmapPanels
from uniad_lightning.training.session import begin, build_callbacks, closing, prepare, run_test
from uniad_lightning.training.trainer_settings import (
    check_trainer,
)


@holds_output_dir
def evaluate(cfg: DictConfig) -> Evaluation:
    """Evaluate `cfg.ckpt_path` on the data it was trained on, or on what `cfg.data` names instead.

    Raises InputError for a checkpoint that cannot be read and for data that does not fit it.
    """
    folder = Path(cfg.output_dir)
    check_trainer(cfg.trainer)
    module, checkpoint = build_saved(cfg.ckpt_path)
    if is_first():
        refuse_occupied(folder, overwrite=cfg.overwrite)
    data = build_saved_data(checkpoint, module, cfg.data, evaluates=True)
    callbacks = {name: c for name, c in build_callbacks(cfg.callbacks).items() if not isinstance(c, ModelCheckpoint)}
    if cfg.save_maps:
        callbacks["maps"] = SaveMaps(output_dir=cfg.output_dir)
    callbacks["interrupts"] = EndWhenInterrupted()
    calibration = checkpoint.get("calibration")
    for callback in callbacks.values():
        if isinstance(callback, HeatmapPanels):
            callback.calibration = calibration
    trainer = instantiate(cfg.trainer, callbacks=list(callbacks.values()), logger=False, enable_checkpointing=False)
    check_precision(trainer.precision)
    prepare(trainer, data, folder)
    _warn_of_unseen(data.splits, checkpoint)
    begin(trainer, data, data.splits.test, cfg, reads=cfg.ckpt_path)
    trained_in = checkpoint["config"].get("trainer", {}).get("precision")  # an imported one has none
    with closing(trainer):
        facts = {"checkpoint": str(cfg.ckpt_path)}
        return run_test(trainer, module, data, folder, facts=facts, trained_in=trained_in, calibration=calibration)


def _warn_of_unseen(splits: Splits, checkpoint: dict[str, Any]) -> None:
    """Name the categories that the checkpoint was not trained on, but for those that are anomalies as a whole."""
    seen = set(map(composed, checkpoint.get("categories", splits.categories)))  # an imported one does not say
    tested = {record.category for record in splits.test if not record.label}
    unseen = sorted(tested - seen)
    if unseen:
        warn(
            f"the checkpoint was not trained on {', '.join(unseen)}; it knows {', '.join(sorted(seen))}, and a score "
            "of anything else means little; add them with uniad train init_from=CHECKPOINT"
        )
