"""`forget(cfg)`: a category leaves a memory bank."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from uniad_lightning.detectors.memory_bank import MemoryBankDetector
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.results.output_folder import holds_run
from uniad_lightning.training.build import build_saved
from uniad_lightning.training.checkpoint import update_checkpoint


@holds_run
def forget(cfg: DictConfig) -> None:
    """Take the category `cfg.category` out of the bank in `cfg.ckpt_path`; the others stay as they are.

    The boundaries go with it, since they were set with it. Raises InputError for a checkpoint without a bank and for a
    category that it does not have, or has alone.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError("-m: forget takes one category at a time, in one call each")
    module, checkpoint = build_saved(cfg.ckpt_path)
    if not isinstance(module, MemoryBankDetector):
        raise InputError(
            f"ckpt_path={cfg.ckpt_path}: {type(module).__name__} has learned all categories together and can forget "
            "none; expected a detector trained with model=memory_bank"
        )
    if module.categories == [cfg.category]:
        raise InputError(f"category={cfg.category}: is the only one of the bank, and without it nothing would be left")
    module.remove(str(cfg.category))
    config = checkpoint["config"]
    boundaries = "; set new boundaries with uniad calibrate" if "calibration" in checkpoint else ""
    update_checkpoint(
        cfg.ckpt_path,
        state_dict=module.state_dict(),
        categories=list(module.categories),
        config={**config, "data": {**config["data"], "categories": list(module.categories)}},
        calibration=None,
        familiarity=None,
    )
    print_stdout(f"{cfg.ckpt_path}: the bank holds {', '.join(module.categories)} now{boundaries}")
