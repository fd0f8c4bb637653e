"""`cache(cfg)`: the features that a training would use, computed and kept."""

from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from uniad_lightning.errors import say
from uniad_lightning.training.build import build_data, build_module
from uniad_lightning.training.method import leave_out_unused


def cache(cfg: DictConfig) -> None:
    """Compute the features of all images of `cfg.data`, on one device, and keep them on the disk.

    Raises InputError for what cannot be used in `cfg` or the data, and where the features change.
    """
    leave_out_unused(cfg)
    module = build_module(cfg)
    with open_dict(cfg):
        cfg.data.cache = "disk"
    data = build_data(cfg.data, module)
    trainer = instantiate(
        cfg.trainer, devices=1, num_nodes=1, strategy="auto", logger=False, enable_checkpointing=False
    )
    data.prepare_data()
    data.setup()
    data.trainer = trainer
    for stage in ("fit", "test"):
        module.fill_cache(data, stage)
    kept = {name: len(split.slots) for name, split in data.cache.splits.items()}
    say(f"features of {kept['train']} train and {kept['test']} test images are kept in {data.cache.folder}")
