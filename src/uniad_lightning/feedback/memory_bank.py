"""False alarms enter a memory bank: what is like them is near a good patch from then on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from uniad_lightning.calibration.scores import score_records
from uniad_lightning.data.dataset import normalise
from uniad_lightning.data.images.decoding import DATA_SET_PIXELS, read_image
from uniad_lightning.data.records import Record
from uniad_lightning.data.selection import image_groups
from uniad_lightning.detectors.memory_bank import MemoryBankDetector
from uniad_lightning.errors import InputError
from uniad_lightning.feedback.changes import Case, Proposal
from uniad_lightning.feedback.counting import counted
from uniad_lightning.feedback.reviewed import Reviewed, decisions, records_of, unlabelled
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.models.backbone.batch_norm_folding import GATE
from uniad_lightning.results.run_folder import LAST
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.checkpoint import AtomicCheckpointIO
from uniad_lightning.types import Batch


def propose(case: Case) -> Proposal:
    """All patches of the present false alarms in the bank, each under its image's category; the boundary stays.

    Raises InputError for a detector without a bank, no false alarm, and one whose category is not known.
    """
    module = case.engine.module
    if not isinstance(module, MemoryBankDetector):
        raise InputError(
            f"ckpt_path={case.path}: {_name_of(case)} has no bank; use change=boundary, or change=training"
        )
    reviewed = zip(case.reviewed, case.decisions, strict=True)
    alarms = [one for one, decision in reviewed if one.good and decision == "defective"]
    if not alarms:
        raise InputError("change=memory_bank: no image reviewed as good is called defective: nothing to learn")
    records = records_of(alarms, module.categories)
    _refuse_without_category(records, module.categories)
    size = len(module.bank.patches)
    for record in records:
        patches = _patches(case.engine, module, record)
        owner = torch.full((len(patches),), module.categories.index(record.category))
        module.bank.append(patches, owner.to(patches.device))
    added = len(module.bank.patches) - size
    familiarity = _familiar(case, alarms, records)
    scores = score_records(case.engine, unlabelled(case.reviewed), label="scores after")
    after = decisions(case.calibration, familiarity, scores, case.reviewed)

    def write(folder: Path) -> list[str]:
        AtomicCheckpointIO().save_checkpoint(_with_bank(case, module, records, familiarity), folder / LAST)
        return [
            f"the checkpoint with the larger bank: {folder / LAST}",
            "its boundary is the old one, below which more defects may fall now; set it anew with uniad calibrate",
        ]

    what = f"{added} patches of {counted(len(records), 'false alarm')} join the {size} in the bank; the boundary stays"
    return Proposal(what, scores.score.tolist(), after, write)


def _name_of(case: Case) -> str:
    """The detector as the training was asked for it, such as `model=denoiser`."""
    target = OmegaConf.select(OmegaConf.create(case.checkpoint["config"]), "model._target_")
    for file in sorted((conf_dir() / "model").glob("*.yaml")):
        if OmegaConf.select(OmegaConf.load(file), "_target_") == target:
            return f"model={file.stem}"
    return "its detector"


def _refuse_without_category(records: list[Record], known: list[str]) -> None:
    for record in records:
        if not record.category:
            raise InputError(
                f"{record.image}: its category is none of the bank ({', '.join(known)}); predict again with "
                "category=NAME, or set the boundary by categories (uniad calibrate), and review it there"
            )


@torch.no_grad()
def _patches(engine: TorchEngine, module: MemoryBankDetector, record: Record) -> Tensor:
    """The patches (M, C) of an image, those of all its tiles."""
    image = read_image(
        record.image, max_pixels=DATA_SET_PIXELS, white_level=engine.white_level, channels=engine.channels
    )
    tiles = list(engine.framing.tiles_of(image, engine.image_size))
    pixels = normalise(tiles, engine.mean, engine.std).to(engine.device)  # (T, 3, H, W)
    with GATE.running():
        return module.patches(module.features(Batch(image=pixels))).flatten(0, 1)


def _familiar(case: Case, alarms: Sequence[Reviewed], records: Sequence[Record]) -> Familiarity | None:
    """What is familiar, with the images that the bank has taken, as train images are; None where nothing was known."""
    known = case.engine.familiarity
    if known is None or case.scores.descriptor is None:
        return known
    places = [place for place, one in enumerate(case.reviewed) if one in alarms]
    owners = [known.names.index(record.category) if record.category in known.names else -1 for record in records]
    return Familiarity(
        references=torch.cat([known.references, case.scores.descriptor[places].float()]).half(),
        boundary=known.boundary,
        names=known.names,
        owners=torch.cat([known.owners, torch.tensor(owners)]),
        reviewed=known.reviewed + len(owners),
    )


def _with_bank(
    case: Case, module: MemoryBankDetector, records: list[Record], familiarity: Familiarity | None
) -> dict[str, object]:
    """The checkpoint's content with the larger bank; its new images are trained on, and set no boundary."""
    bank = {f"bank.{name}": tensor.cpu() for name, tensor in module.bank.state_dict().items()}
    before = case.checkpoint.get("trained", torch.zeros(0, dtype=torch.int64))
    known = {} if familiarity is None else {"familiarity": familiarity.plain()}
    return {
        **case.checkpoint,
        **known,
        "state_dict": {**case.checkpoint["state_dict"], **bank},
        "trained": torch.cat([before, image_groups(records)]).unique(),
    }
