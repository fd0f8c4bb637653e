"""`train_decoder(cfg)`: train the decoder that renders features as images (appendix B.3).

For display alone: it is trained on test images and defects, too, and no detector uses it.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from omegaconf import DictConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.records import Splits
from uniad_lightning.detectors.optimization import optimize
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.precision import check_precision
from uniad_lightning.randomness import key
from uniad_lightning.rendering.decoder_checkpoint import (
    RENDERS,
    build_decoder,
    features_of,
    reconstructing,
    refuse_other_features,
)
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.training.build import build_saved, build_saved_data, warn
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint
from uniad_lightning.training.checkpoint_format import FORMAT
from uniad_lightning.training.resume import plain, refuse_other_run
from uniad_lightning.training.trainer_settings import check_end, check_trainer
from uniad_lightning.types import Batch

DECODER = "decoder.ckpt"


class DecoderTraining(L.LightningModule):
    """Trains `decoder` to recover images from their features: the mean squared error of normalised images (R).

    A checkpoint holds the decoder without the backbone, `config`, and as `renders` the result of `features_of`.
    """

    strict_loading = False  # a checkpoint lacks the backbone

    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: FeatureDecoder,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        config: dict[str, Any],
    ):
        super().__init__()
        self.renders = features_of(backbone, decoder.image_size)
        backbone.trainable = False
        self.backbone = backbone.requires_grad_(False).eval()
        self.decoder = decoder
        self.optimizer = optimizer
        self.schedule = schedule
        self.config = config

    @property
    def data(self) -> UnifiedDataModule:
        """The data module of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean squared error of the rendered images."""
        return F.mse_loss(self.decoder(self.backbone(batch["image"])), batch["image"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer and schedule, as of a detector."""
        return optimize(
            self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=self.data.steps.total_steps
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning while it builds a checkpoint."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name.startswith("decoder.")}
        checkpoint["format"] = FORMAT
        checkpoint["config"] = self.config
        checkpoint[RENDERS] = self.renders


@holds_output_dir
def train_decoder(cfg: DictConfig) -> Path:
    """Train a decoder for the backbone of `cfg.ckpt_path` and write it into `cfg.output_dir`; returns its file.

    It is trained on every image of the data, train and test, good and defective (appendix B.3), so it is for display
    alone. It renders the features of every detector on that backbone, standardising or not.

    Raises InputError for settings, data, a checkpoint, or a decoder to resume that cannot be used.
    """
    file = Path(cfg.output_dir) / DECODER
    check_trainer(cfg.trainer)
    check_end(cfg.trainer)
    config = {name: value for name, value in plain(cfg).items() if name != "resume"}
    resumed = _claim(file, config, resume=cfg.resume, overwrite=cfg.overwrite)
    module, checkpoint = build_saved(cfg.ckpt_path)
    module = reconstructing(module, cfg.ckpt_path)
    data = build_saved_data(checkpoint, module, cfg.data)
    use_every_image(data)
    torch.manual_seed(key("decoder", cfg.seed))
    training = DecoderTraining(
        backbone=module.backbone,
        decoder=build_decoder(cfg.decoder, module.backbone, data.image_size),
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        schedule=instantiate(cfg.schedule, _convert_="all"),
        config=config,
    )
    if resumed is not None:
        refuse_other_features(training.renders, resumed, str(file), ckpt_path=cfg.ckpt_path)
    _fit(training, data, cfg, file, resume_from=None if resumed is None else file)
    print_stdout(f"decoder: {file}   panels: uniad panels ckpt_path={cfg.ckpt_path} decoder={file}")
    return file


def _fit(
    training: DecoderTraining, data: UnifiedDataModule, cfg: DictConfig, file: Path, *, resume_from: Path | None
) -> None:
    """Train on one device and write the decoder to `file`."""
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        devices=1,
        num_nodes=1,
        strategy="auto",
        callbacks=[instantiate(callback) for callback in cfg.callbacks.values()],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        limit_val_batches=0,
    )
    check_precision(trainer.precision)
    warnings.filterwarnings("ignore", message=".*have no `validation_step`")  # the data module offers a test split
    data.prepare_data()
    data.setup()
    data.trainer = trainer  # as Lightning does later; the number of steps depends on it
    data.check_batch_size(trainer.world_size)
    print_stdout(
        f"{len(data.splits.train)} images to train on: all of the data, test images and defects too, for display alone"
    )
    trainer.fit(training, datamodule=data, ckpt_path=resume_from, weights_only=True)
    trainer.save_checkpoint(file)


def use_every_image(data: UnifiedDataModule) -> None:
    """Have `data` train on every image it lists, those of test and held out too; to be called before its `setup`."""
    data.source = partial(_listed_to_train_on, data.source)
    data.held_out = 0.0
    data.normal_classes = None


def _listed_to_train_on(source: Callable[..., Splits], root: Path, *, categories: Any) -> Splits:
    splits = source(root, categories=categories)
    return splits._replace(train=splits.all, validation=())


def _claim(file: Path, config: dict[str, Any], *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The checkpoint to resume, None to start; raises InputError where that would overwrite a decoder or mix two."""
    if not file.is_file():
        if resume:
            warn(f"resume=true: {file.parent} holds no decoder yet; starting")
        return None
    if resume or overwrite:
        checkpoint = load_checkpoint(str(file), key="decoder")  # never overwrite anything but a decoder
        if RENDERS not in checkpoint:
            raise InputError(f"{file}: is a detector, no decoder; choose another output_dir")
    if resume:
        refuse_other_run(config, checkpoint["config"], str(file))
        return checkpoint
    if not overwrite:
        raise InputError(
            f"output_dir={file.parent} already holds a decoder; continue with resume=true, choose another output_dir, "
            "or overwrite=true"
        )
    return None
