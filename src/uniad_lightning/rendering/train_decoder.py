"""`train_decoder(cfg)` and `panels(cfg)`: pictures of what a detector reconstructs (appendix B.3; Figs. 2b, 6, A2, A3).

For display alone: the decoder has seen test images and defects, and nothing that judges an image knows of it.
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
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.records import Splits
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.detectors.optimization import optimize
from uniad_lightning.errors import InputError, say
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.precision import check_precision
from uniad_lightning.randomness import key
from uniad_lightning.rendering.panels import Renderer, draw_category, draw_sheet
from uniad_lightning.results.output_folder import holds_output_dir
from uniad_lightning.results.run_folder import refuse_in_the_way
from uniad_lightning.results.written_files import file_stem, note, remove_written
from uniad_lightning.training.build import build_saved, build_saved_data, warn
from uniad_lightning.training.callbacks import choose
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint, load_weights
from uniad_lightning.training.checkpoint_format import FORMAT
from uniad_lightning.training.resume import plain, refuse_other_run
from uniad_lightning.training.trainer_settings import check_end, check_trainer
from uniad_lightning.training.trusted_targets import refuse_foreign
from uniad_lightning.types import Batch, Size

DECODER, PANELS, QUERIES = "decoder.ckpt", "panels", "queries.png"


class DecoderTraining(L.LightningModule):
    """Trains `decoder` to recover images from their features: the mean squared error of normalised images (R).

    A checkpoint holds the decoder without the backbone, `config`, and what it `renders`, as `features_of` says it.
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
        """The error of the rendered images."""
        return F.mse_loss(self.decoder(self.backbone(batch["image"])), batch["image"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """As a detector's."""
        return optimize(
            self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=self.data.total_steps
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning while it puts a checkpoint together."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name.startswith("decoder.")}
        checkpoint["format"] = FORMAT
        checkpoint["config"] = self.config
        checkpoint["renders"] = self.renders


@holds_output_dir
def train_decoder(cfg: DictConfig) -> Path:
    """Train a decoder for the backbone of `cfg.ckpt_path` and leave it in `cfg.output_dir`; returns its file.

    It learns from every image of the data, train and test, good and defective (appendix B.3), so it is for display
    alone. One serves every detector on that backbone, standardising or not.

    Raises InputError for what cannot be used in `cfg`, the data, the checkpoint or the decoder to go on with.
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
        decoder=_build_decoder(cfg.decoder, module.backbone, data.image_size),
        optimizer=instantiate(cfg.optimizer),
        schedule=instantiate(cfg.schedule),
        config=config,
    )
    if resumed is not None:
        _refuse_other_features(training.renders, resumed, str(file), ckpt_path=cfg.ckpt_path)
    _fit(training, data, cfg, file, resume_from=None if resumed is None else file)
    say(f"decoder: {file}   panels: uniad panels ckpt_path={cfg.ckpt_path} decoder={file}")
    return file


def reconstructing(module: AnomalyModule, path: str) -> FeatureReconstruction:
    """`module` as what it has to be; InputError for a detector of `path` that reconstructs no features."""
    if not isinstance(module, FeatureReconstruction):
        raise InputError(
            f"ckpt_path={path}: {type(module).__name__} reconstructs no features that could be shown; expected a "
            "detector trained with model=uniad, mlp, cnn or transformer"
        )
    return module


def _fit(
    training: DecoderTraining, data: UnifiedDataModule, cfg: DictConfig, file: Path, *, resume_from: Path | None
) -> None:
    """Train on one device, and leave the decoder in `file`."""
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
    data.check_batch_size(trainer.world_size)
    say(f"{len(data.splits.train)} images to train on: all there are, test images and defects too, for display alone")
    trainer.fit(training, datamodule=data, ckpt_path=resume_from, weights_only=True)
    trainer.save_checkpoint(file)


def use_every_image(data: UnifiedDataModule) -> None:
    """Let `data` train on every image it will list, those of test and of what was held out too; before its `setup`."""
    data.source = partial(_listed_to_train_on, data.source)
    data.held_out = 0.0
    data.normal_classes = None


def _listed_to_train_on(source: Callable[..., Splits], root: Path, *, categories: Any) -> Splits:
    splits = source(root, categories=categories)
    return splits._replace(train=(*splits.train, *splits.validation, *splits.test), validation=())


def features_of(backbone: Backbone, image_size: Size) -> dict[str, Any]:
    """What a decoder belongs to, as plain values: a backbone's `fingerprint`, and the (height, width) of its images."""
    return {**fingerprint(backbone), "image_size": image_size}


def load_decoder(path: str, backbone: Backbone, image_size: Size, *, ckpt_path: str) -> FeatureDecoder:
    """The decoder in a file of `train_decoder`, which is to render the features of the detector in `ckpt_path`.

    Raises InputError for another file, and for a decoder of other features.
    """
    checkpoint = load_checkpoint(path, key="decoder")
    _refuse_other_features(features_of(backbone, image_size), checkpoint, path, ckpt_path=ckpt_path)
    refuse_foreign(checkpoint["config"], f"decoder={path}")
    decoder = _build_decoder(OmegaConf.create(checkpoint["config"]["decoder"]), backbone, image_size)
    load_weights(nn.ModuleDict({"decoder": decoder}), checkpoint, path, key="decoder")
    return decoder


def _build_decoder(cfg: DictConfig, backbone: Backbone, image_size: Size) -> FeatureDecoder:
    return instantiate(cfg, channels=sum(backbone.channels), grid=backbone.grid, image_size=image_size)


def _refuse_other_features(features: dict[str, Any], checkpoint: dict[str, Any], path: str, *, ckpt_path: str) -> None:
    """Raises InputError for a checkpoint that is no decoder, or one of other `features` than those of `ckpt_path`."""
    remedy = f"train one with uniad train_decoder ckpt_path={ckpt_path}"
    if "renders" not in checkpoint:
        raise InputError(f"decoder={path}: is a detector, no decoder; {remedy}")
    made_for = checkpoint["renders"]
    for name, value in features.items():
        if made_for[name] != value:
            raise InputError(f"decoder={path}: is for {name}={made_for[name]}, and {ckpt_path} has {value}; {remedy}")


def _claim(file: Path, config: dict[str, Any], *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The decoder to go on with, None to start anew; InputError where that would lose one or mix two."""
    if not file.is_file():
        if resume:
            warn(f"resume=true: {file.parent} holds no decoder yet; starting")
        return None
    if resume or overwrite:
        checkpoint = load_checkpoint(str(file), key="decoder")  # nothing else is ever written over
        if "renders" not in checkpoint:
            raise InputError(f"{file}: is a detector, no decoder; choose another output_dir")
    if resume:
        refuse_other_run(config, checkpoint["config"], str(file))
        return checkpoint
    if not overwrite:
        raise InputError(
            f"output_dir={file.parent} already holds a decoder; go on with resume=true, choose another output_dir, or "
            "overwrite=true"
        )
    return None


@holds_output_dir
def panels(cfg: DictConfig) -> Path:
    """Draw what the detector `cfg.ckpt_path` reconstructs, rendered by `cfg.decoder`, below `cfg.output_dir`.

    That is `panels/<category>.png` for each category, and `queries.png` of a network with learned queries; returns the
    folder of the panels.

    Raises InputError for what cannot be used in `cfg`, and where there are panels already.
    """
    folder = Path(cfg.output_dir)
    if not isinstance(cfg.per_category, int) or cfg.per_category < 1:
        raise InputError(f"per_category={cfg.per_category}: expected a whole number of at least 1")
    own, others = _load_renderers(cfg)
    if (folder / PANELS).exists() and not cfg.overwrite:
        raise InputError(f"output_dir={folder} already holds panels; choose another output_dir, or overwrite=true")
    refuse_in_the_way(folder, (PANELS, QUERIES))
    data = build_saved_data(load_checkpoint(cfg.ckpt_path), own.engine.module, cfg.data)
    data.prepare_data()
    data.setup()
    remove_written(folder, stays=lambda name: Path(name).parts[0] not in (PANELS, QUERIES))
    (folder / PANELS).mkdir(parents=True, exist_ok=True)
    for category in data.splits.categories:
        records = [data.splits.test[i] for i in choose(data.splits.test, category, cfg.per_category)]
        references = [r for r in data.splits.train if r.category == category and not r.tile]  # a picture's first tile
        if records:
            path = folder / PANELS / f"{file_stem(category)}.png"
            note(path)
            draw_category(records, references, own, others).save(path)
    queries = own.render_queries()
    if queries:
        label = "learned queries, straight through the output projection"
        note(folder / QUERIES)
        draw_sheet({name: [image] for name, image in queries.items()}, [label]).save(folder / QUERIES)
    say(f"panels: {folder / PANELS}   learned queries: {folder / QUERIES if queries else 'there are none'}")
    return folder / PANELS


def _load_renderers(cfg: DictConfig) -> tuple[Renderer, dict[str, Renderer]]:
    """Of `cfg.ckpt_path` and of each of `cfg.others`; InputError for detectors that cannot stand beside each other."""
    if cfg.others is not None and not isinstance(cfg.others, DictConfig):
        raise InputError(f"others={cfg.others}: expected names with checkpoints, such as 'others={{mlp:MLP.ckpt}}'")
    paths = {str(name): str(path) for name, path in (cfg.others or {}).items()}
    device = find_device(cfg.device)

    def load(path: str) -> Renderer:
        engine = load_engine(path, device)
        module = reconstructing(engine.module, path)
        decoder = load_decoder(cfg.decoder, module.backbone, engine.image_size, ckpt_path=path)
        return Renderer(engine=engine, module=module, decoder=decoder)

    own, others = load(cfg.ckpt_path), {name: load(path) for name, path in paths.items()}
    for name, other in others.items():
        if other.engine.framing.plain() != own.engine.framing.plain():
            raise InputError(
                f"others.{name}={paths[name]}: its data.framing is not that of {cfg.ckpt_path}; expected detectors "
                "that look at the same part of a picture"
            )
    return own, others
