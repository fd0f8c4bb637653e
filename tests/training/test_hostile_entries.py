"""What the entries of a stranger's checkpoint may be: none of them ends in a traceback, or takes all memory."""

import copy

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support.settings import SMALL
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.build import build_module
from uniad_lightning.training.checkpoint import load_checkpoint

BOUNDARY = {"score": 1.0, "pixel": 1.0, "spread": 0.5, "images": 9, "rate": 0.1, "low": 0.0, "high": 0.2}
CALIBRATION = {"method": "rate=0.1", "overall": BOUNDARY, "categories": {"bottle": BOUNDARY}, "by_category": True}
LARGE = torch.zeros(1).expand(2**20, 2**20)  # 4 bytes that claim to be 4 TB


def familiarity(**changed):
    known = {"references": torch.rand(3, 8), "boundary": 1.0, "names": ["bottle"], "owners": torch.zeros(3).long()}
    return {**known, **changed}


@pytest.fixture(scope="module")
def content(tree):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*SMALL, f"data.root={tree}", "name=x", "output_dir=x"])
    config = OmegaConf.to_container(cfg, resolve=True)
    state = build_module(OmegaConf.create(config), announce=False).state_dict()
    found = {"format": 2, "config": config, "state_dict": state, "loops": {"x": 1}, "categories": ["bottle"]}
    return {**found, "calibration": CALIBRATION, "trained": torch.zeros(2).long()}


def test_the_sound_one_is_read(content, tmp_path):
    torch.save({**content, "familiarity": familiarity()}, tmp_path / "x.ckpt")
    assert Detector.load(tmp_path / "x.ckpt", device="cpu").calibration.by_category


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("calibration", [3, "x", [], {"overall": BOUNDARY}, {**CALIBRATION, "overall": None},
                         {**CALIBRATION, "method": 3}, {**CALIBRATION, "categories": [1]},
                         {**CALIBRATION, "categories": {3: BOUNDARY}},
                         {**CALIBRATION, "overall": {**BOUNDARY, "score": "1"}},
                         {**CALIBRATION, "overall": {**BOUNDARY, "score": float("nan")}},
                         {**CALIBRATION, "overall": {**BOUNDARY, "spread": -1.0}},
                         {**CALIBRATION, "overall": {**BOUNDARY, "more": 1.0}},
                         {**CALIBRATION, "overall": {"score": 1.0}}]),
        ("familiarity", [3, [], {"boundary": 1.0}, familiarity(references=3), familiarity(references=torch.rand(3)),
                         familiarity(references=LARGE), familiarity(references=torch.zeros(0, 8)),
                         familiarity(references=torch.zeros(3, 8).long()), familiarity(boundary="1"),
                         familiarity(boundary=float("nan")), familiarity(boundary=0), familiarity(names="abc"),
                         familiarity(names=[1]), familiarity(owners=torch.ones(3).long()),
                         familiarity(owners=torch.zeros(2).long()), familiarity(owners=[0, 0, 0]),
                         familiarity(reviewed="1"), familiarity(reviewed=-1), familiarity(reviewed=2**40)]),
        ("ignore", [3, {"bits": 1, "size": [2, 2]}, {"bits": torch.zeros(1).byte(), "size": [2**20, 2**20]},
                    {"bits": torch.zeros(1).byte(), "size": "22"}, {"bits": LARGE, "size": [2, 2]},
                    {"bits": torch.zeros(1).byte().expand(2**40), "size": [2**20, 2**23]}]),
        ("categories", [3, "bottle", [1], {"a": 1}]),
        ("trained", [3, "x", torch.rand(3), torch.zeros(1).long().expand(2**40)]),
        ("images", ["x", torch.zeros(1).byte().expand(2**40)]),
        ("loops", [3]),
        ("global_step", ["many"]),
        ("state_dict", [3, [], {"x": 3}, {3: torch.zeros(1)}, {"x": LARGE}]),
        ("config", [3, "x", [], {}, {"data": 3}, {"model": {"_target_": "os.system"}}]),
    ],
)  # fmt: skip
def test_an_entry_of_another_kind_is_one_line(content, tmp_path, entry, values):
    path = tmp_path / "x.ckpt"
    for value in values:
        torch.save({**content, entry: value}, path)
        with pytest.raises(InputError) as refused:
            Detector.load(path, device="cpu")
        assert str(refused.value).startswith(f"ckpt_path={path}: "), value
        assert "\n" not in str(refused.value)


def test_a_configuration_that_multiplies_is_refused_at_once(content, tmp_path):
    bomb = ["x"] * 10
    for _ in range(25):
        bomb = [bomb] * 10  # 10^26 values in a few kilobytes
    for form in (1, 2):
        changed = copy.deepcopy(content["config"])
        changed["loss"] = {"x": bomb}
        torch.save({**content, "config": changed, "format": form}, tmp_path / "x.ckpt")
        with pytest.raises(InputError, match=r"its loss.* has more than 100000 values"):
            Detector.load(tmp_path / "x.ckpt", device="cpu")


def test_a_program_of_torch_is_never_opened_for_a_user(uniad, tree, tmp_path):
    """`torch.export.load` runs what the file says, so that no command and no `Detector` hands it a file."""
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(2),)), tmp_path / "x.pt2")
    with pytest.raises(InputError, match=r"x\.pt2: cannot be read as a checkpoint; it is a program of torch\.export"):
        Detector.load(tmp_path / "x.pt2")
    words = [f"ckpt_path={tmp_path}/x.pt2", f"output_dir={tmp_path}/out"]
    for command, *more in (("predict", f"input={tree}"), ("evaluate",), ("calibrate",), ("export",)):
        status, _, err = uniad(command, *words, *more)
        assert status == 2
        assert "it is a program of torch.export" in err


def test_members_that_unpack_to_more_are_not_unpacked(content, tmp_path):
    """A sound file stores its members as they are; a packed one could be a thousand times its size."""
    import zipfile

    torch.save(content, tmp_path / "sound.ckpt")
    with zipfile.ZipFile(tmp_path / "sound.ckpt") as sound, zipfile.ZipFile(tmp_path / "x.ckpt", "w") as packed:
        for name in sound.namelist():
            packed.writestr(name, sound.read(name), zipfile.ZIP_DEFLATED)
        packed.writestr("archive/bomb", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="its members are packed"):
        load_checkpoint(str(tmp_path / "x.ckpt"))
