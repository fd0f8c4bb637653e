"""`cache(cfg)`: compute and store the features that a training uses."""

from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from uniad_lightning.errors import print_stdout
from uniad_lightning.training.build import build_data, build_module, check_listing
from uniad_lightning.training.method import leave_out_unused


def cache(cfg: DictConfig) -> None:
    """Compute the features of all images of `cfg.data`, on one device, and store them on the disk.

    Raises InputError for what cannot be used in `cfg` or the data, and where the features are not always the same.
    """
    leave_out_unused(cfg)
    check_listing(cfg.data)
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
    stored = {name: len(split.slots) for name, split in data.cache.splits.items()}
    print_stdout(
        f"features of {stored['train']} train and {stored['test']} test images are kept in {data.cache.folder}"
    )
