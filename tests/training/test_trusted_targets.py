"""What a stranger's checkpoint may have built: nothing but what the package's own configuration names."""

import copy
import re
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support.settings import SMALL
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.build import build_module
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint
from uniad_lightning.training.trusted_targets import refuse_foreign


@pytest.fixture(scope="module")
def config(tree):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*SMALL, f"data.root={tree}", "name=x", "output_dir=x", "trainer=ddp"])
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.fixture(scope="module")
def checkpoint(config, tmp_path_factory):
    """What a training would leave, with a network that has learned nothing."""
    path = tmp_path_factory.mktemp("trust") / "sound.ckpt"
    module = build_module(OmegaConf.create(config), announce=False)
    content = {"config": config, "state_dict": module.state_dict(), "loops": {"x": 1}, "categories": ["bottle"]}
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def changed(config, key, value):
    """A copy of the configuration with another value at a dotted key."""
    result = copy.deepcopy(config)
    *parents, last = key.split(".")
    node = result
    for parent in parents:
        node[parent] = node[parent] if isinstance(node.get(parent), dict) else {}
        node = node[parent]
    node[last] = value
    return result


def copying(folder):
    (folder / "source.txt").write_text("x")
    return {"_target_": "shutil.copyfile", "src": f"{folder}/source.txt", "dst": f"{folder}/copied.txt"}


def test_whatever_conf_composes_is_built_from_a_checkpoint():
    counted = 0
    for path in sorted(conf_dir().rglob("*.yaml")):
        place, *rest = path.relative_to(conf_dir()).parts
        if place != "hydra" and path.stem != "train_decoder":
            content = _known(OmegaConf.to_container(OmegaConf.load(path)))
            refuse_foreign({place: content} if rest else content, str(path))
            counted += bool(rest) and "_target_" in path.read_text()
    refuse_foreign(_known(OmegaConf.to_container(OmegaConf.load(conf_dir() / "train_decoder.yaml"))), "decoder")
    assert counted > 30


def _known(node):
    """Without interpolations, which a training resolves before it writes them down."""
    if isinstance(node, dict):
        return {key: _known(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_known(value) for value in node]
    return "resolved" if isinstance(node, str) and "${" in node else node


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("optimizer", "torch.optim.SGD"),
        ("optimizer", "torch.optim.AdamW"),
        ("schedule", "torch.optim.lr_scheduler.StepLR"),
        ("callbacks.stop", "lightning.pytorch.callbacks.EarlyStopping"),
        ("logger", "lightning.pytorch.loggers.TensorBoardLogger"),
        ("trainer.strategy", "lightning.pytorch.strategies.FSDPStrategy"),
    ],
)
def test_other_classes_of_torch_and_lightning_may_stand_where_they_belong(config, key, target):
    refuse_foreign(changed(config, key, {"_target_": target, "_partial_": True, "lr": 0.1}), "x")
    with pytest.raises(InputError, match=re.escape(f"x: its data.source._target_ is '{target}'")):
        refuse_foreign(changed(config, "data.source", {"_target_": target}), "x")


ELSEWHERE = [
    "shutil.copyfile",
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "torch.load",
    "torch.optim.lr_scheduler.partial",
    "torch.optim.Optimizer.__init__",
    "torch.optim.sys.exit",
    "lightning.pytorch.callbacks.os.system",
    "hydra.utils.get_method",
    "hydra.utils.call",
    "hydra._internal.utils._locate",
    "omegaconf.OmegaConf.save",
    "uniad_lightning.data.feature_cache.store.shutil.rmtree",
    "uniad_lightning.data.feature_cache.usage.bound",
    "uniad_lightning.results.run_folder.write_text",
    "uniad_lightning.models.losses",
    "uniad_lightning.models.losses.MSELoss.__init__",
    "uniad_lightning.models.losses..MSELoss",
    " uniad_lightning.models.losses.MSELoss",
    "uniad_lightning.training.train.train",
    "hydra_plugins.search.Search",
    "",
    7,
    None,
    ["shutil.copyfile"],
    {"_target_": "shutil.copyfile"},
]
PLACES = [
    "model", "model.jitter", "model.hidden_dim", "backbone", "backbone.arguments", "backbone.arguments.act_layer",
    "loss", "score", "score.kind", "optimizer", "optimizer.betas", "schedule", "data", "data.source", "data.prepare",
    "data.framing.region", "data.augmentation", "data.categories", "callbacks.checkpoint", "logger", "trainer.plugins",
    "seed", "anything",
]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE, ids=str)
@pytest.mark.parametrize("partial", [True, False])
def test_another_target_is_refused_wherever_it_stands(config, target, partial):
    for place in PLACES:
        for planted in ({"_target_": target, "_partial_": partial}, [1, [{"_target_": target, "_args_": [1]}]]):
            with pytest.raises(InputError) as refused:
                refuse_foreign(changed(config, place, planted), "ckpt_path=x.ckpt")
            line = str(refused.value)
            assert line.startswith(f"ckpt_path=x.ckpt: its {place}")
            assert "\n" not in line


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("score", "uniad_lightning.data.synthetic.dataset.write_synthetic"),  # would write where it is told to
        ("data.framing", "uniad_lightning.data.synthetic.dataset.write_synthetic"),
        ("model", "uniad_lightning.tracking.boards.WandbBoard"),  # would speak with the network
        ("optimizer", "uniad_lightning.training.schedules.drop_after"),
        ("loss", "torch.optim.AdamW"),
    ],
)
def test_a_target_of_the_package_is_refused_where_it_does_not_belong(config, place, target):
    with pytest.raises(InputError, match=re.escape(f"its {place}._target_ is '{target}'")):
        refuse_foreign(changed(config, place, {"_target_": target, "root": "/tmp/x"}), "x")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("${oc.env:HOME}", "its loss.x is"),
        ("a ${seed} b", "its loss.x is"),
        ({"${oc.env:HOME}": 1}, "its loss.x, a key, is"),
        ([["${oc.decode:1}"]], "its loss.x[0][0] is"),
        (torch.zeros(1), "its loss.x is a Tensor; expected plain values"),
        (b"bytes", "its loss.x is a bytes"),
        ({1.5j: 1}, "its loss.x, a key, is a complex"),
        ({"a\n\x1b[2Jb": b""}, "its loss.x.a\\n\\x1b[2Jb is a bytes"),
    ],
)
def test_what_is_no_plain_value_is_refused(value, named):
    with pytest.raises(InputError, match=re.escape(named)):
        refuse_foreign({"loss": {"x": value}}, "x")
    endless = []
    endless.append(endless)
    for deep in (endless, {"a": endless}):
        with pytest.raises(InputError, match="nested more than 32 levels"):
            refuse_foreign({"loss": deep}, "x")
    with pytest.raises(InputError, match="not a mapping"):
        refuse_foreign([1], "x")


def plant(checkpoint, folder, key, value):
    content = load_checkpoint(str(checkpoint))
    content["config"] = changed(content["config"], key, value)
    path = folder / "planted.ckpt"
    torch.save(content, path)
    return path


def test_every_command_refuses_before_anything_is_built(uniad, checkpoint, tree, tmp_path):
    path = plant(checkpoint, tmp_path, "score", copying(tmp_path))
    out = f"output_dir={tmp_path}/out"
    for words in (
        ("evaluate", f"ckpt_path={path}"),
        ("predict", f"ckpt_path={path}", f"input={tree}/bottle/test"),
        ("calibrate", f"ckpt_path={path}"),
        ("export", f"ckpt_path={path}"),
        ("panels", f"ckpt_path={path}", f"decoder={path}"),
        ("train_decoder", f"ckpt_path={path}"),
        ("train", *SMALL, f"data.root={tree}", f"init_from={path}"),
    ):
        status, _, err = uniad(*words, out)
        assert status == 2, words
        lines = [line for line in err.splitlines() if "warning" not in line]
        assert len(lines) == 1, lines
        assert f"{path}: its score._target_ is 'shutil.copyfile'" in lines[0]
    with pytest.raises(InputError, match=r"score\._target_ is 'shutil.copyfile'"):
        Detector.load(path)
    assert not (tmp_path / "copied.txt").exists()


def test_values_that_do_not_fit_are_one_line_of_python_too(checkpoint, tmp_path):
    for key, value in (
        ("model.hidden_dim", "many"), ("backbone.name", "no_such_model"), ("data.framing.tiles", "x"), ("score", None),
        ("backbone.arguments", {"checkpoint_path": "/tmp/other.pth"}), ("model.grid", []), ("data", 3),
    ):  # fmt: skip
        with pytest.raises(InputError) as refused:
            Detector.load(plant(checkpoint, tmp_path, key, value))
        assert str(refused.value).startswith(f"ckpt_path={tmp_path}/planted.ckpt: ")
        assert "\n" not in str(refused.value)


OWN = """
import os
from subprocess import run
from shutil import copyfile
from uniad_lightning.scoring import ImageScore

class MyScore(ImageScore):
    pass

def my_schedule(optimizer, *, total_steps):
    raise NotImplementedError
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of the user's own that a program finds."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from mine.scores import MyScore")
    (tmp_path / "mine" / "scores.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mine", "mine.scores"):
        sys.modules.pop(name, None)


def test_a_class_of_ones_own_is_built_where_its_package_is_named(own, checkpoint, monkeypatch):
    for target in ("mine.scores.MyScore", "mine.MyScore"):
        path = plant(checkpoint, own, "score._target_", target)
        with pytest.raises(InputError, match=r"or if that is a class of your own.*UNIAD_TRUST=PACKAGE"):
            Detector.load(path)
        assert "mine" not in sys.modules
        assert type(Detector.load(path, trust="mine").engine.module.score).__name__ == "MyScore"
        monkeypatch.setenv("UNIAD_TRUST", "other, mine")
        assert type(Detector.load(path).engine.module.score).__name__ == "MyScore"
        monkeypatch.delenv("UNIAD_TRUST")
        sys.modules.pop("mine")
    with pytest.raises(InputError, match=r"mine\.scores\.Other cannot be imported"):
        Detector.load(plant(checkpoint, own, "score._target_", "mine.scores.Other"), trust=("mine",))


def test_a_trusted_package_lends_its_trust_to_nothing_that_it_imports(own, config):
    refuse_foreign(changed(config, "schedule._target_", "mine.scores.my_schedule"), "x", trust=["mine"])
    for target in ("mine.scores.os.system", "mine.scores.run", "mine.scores.copyfile", "mine.scores", "minerva.X"):
        with pytest.raises(InputError, match="does not instantiate there"):
            refuse_foreign(changed(config, "score._target_", target), "x", trust=["mine"])
