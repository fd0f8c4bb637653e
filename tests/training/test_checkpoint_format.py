"""Checkpoints name their format; those of 0.1.0, which name none, go on to work, and later ones are refused."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object

from support.configs import CONF
from support.settings import SMALL
from uniad_lightning.errors import InputError
from uniad_lightning.training.build import build_module
from uniad_lightning.training.checkpoint import load_checkpoint
from uniad_lightning.training.checkpoint_format import FORMAT, upgrade, upgrade_config

# What the configuration of 0.1.0 names.
OLD = [
    "data.transforms.Augmentation",
    "models.backbone.Backbone",
    "models.cnn.CNN",
    "losses.CosineLoss",
    "losses.MSELoss",
    "losses.NormalizedMSELoss",
    "models.feature_decoder.FeatureDecoder",
    "models.jitter.FeatureJitter",
    "data.framing.Framing",
    "callbacks.HeatmapPanels",
    "callbacks.TrainingProgress",
    "scoring.ImageScore",
    "models.mlp.MLP",
    "dashboard.TensorBoard",
    "dashboard.WandbBoard",
    "monitors.TrainingMonitor",
    "models.uniad.UniAD",
    "data.datamodule.UnifiedDataModule",
    "models.vanilla.VanillaTransformer",
    "module.drop_after",
    "module.warm_up_and_decay",
    "data.btad.list_btad",
    "data.cifar10.list_cifar10",
    "data.folder.list_folder",
    "data.kolektor.list_kolektor_sdd",
    "data.meta.list_meta",
    "data.mix.list_mix",
    "data.mvtec.list_mvtec",
    "data.mvtec_3d.list_mvtec_3d",
    "data.mvtec_ad2.list_mvtec_ad2",
    "data.mvtec_loco.list_mvtec_loco",
    "data.real_iad.list_real_iad",
    "data.visa.list_visa",
    "data.synthetic.write_synthetic",
]


def aged(checkpoint):
    """The checkpoint as 0.1.0 would have written it."""
    back = {
        upgrade_config({"_target_": f"uniad_lightning.{old}"}, "x")["_target_"]: f"uniad_lightning.{old}" for old in OLD
    }

    def old(node):
        if isinstance(node, dict):
            return {key: back.get(value, value) if key == "_target_" else old(value) for key, value in node.items()}
        return [old(value) for value in node] if isinstance(node, list) else node

    config = old(checkpoint["config"])
    del config["backbone"]["resize"], config["trainer"]["accumulate_grad_batches"]
    return {**{key: value for key, value in checkpoint.items() if key != "format"}, "config": config}


@pytest.mark.parametrize("old", OLD)
def test_what_the_first_version_names_is_still_there(old):
    target = upgrade_config({"_target_": f"uniad_lightning.{old}"}, "x")["_target_"]
    assert get_object(target).__name__ == old.rpartition(".")[2]


@pytest.mark.slow
def test_a_checkpoint_of_the_first_version_is_evaluated_resumed_and_started_from(uniad, tree, tmp_path):
    words = [*SMALL, f"data.root={tree}"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    new = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert new["format"] == FORMAT
    old = tmp_path / "old.ckpt"
    torch.save(aged(new), old)
    assert "uniad_lightning.models.backbone.Backbone" in str(torch.load(old, weights_only=True)["config"])
    assert load_checkpoint(str(old))["config"] == new["config"]
    for command, more in (
        ("evaluate", [f"ckpt_path={old}"]),
        ("train", [*words, f"ckpt_path={old}"]),
        ("train", [*words, f"init_from={old}", "optimizer.lr=0"]),
    ):
        status, _, err = uniad(command, *more, f"output_dir={tmp_path}/{command}", "overwrite=true")
        assert status == 0, err
        assert (tmp_path / command / "results.csv").read_text() == (tmp_path / "run/results.csv").read_text()


def test_a_later_format_is_refused_in_one_line():
    with pytest.raises(
        InputError, match=rf"ckpt_path=x: has format {FORMAT + 1}; .* reads formats up to {FORMAT}, update"
    ):
        upgrade({"format": FORMAT + 1, "config": {}}, "ckpt_path=x")
    with pytest.raises(InputError, match="has format 'soon'"):
        upgrade({"format": "soon", "config": {}}, "ckpt_path=x")


def test_a_configuration_that_holds_itself_or_multiplies_is_refused():
    endless, doubled = {"data": []}, [0] * 10
    endless["data"].append(endless)
    for _ in range(20):
        doubled = [doubled] * 10
    for config, said in ((endless, "nested more than 32 levels"), ({"data": doubled}, "more than 100000 values")):
        with pytest.raises(InputError, match=rf"x: its data.* {said}"):
            upgrade_config(config, "x")


def test_an_optimizer_is_given_plain_values():
    """Torch 2.9 keeps `betas` as they are, and with them an object of OmegaConf in the checkpoint."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*SMALL, "data.root=photos", "output_dir=run"])
    assert type(build_module(cfg, announce=False).optimizer.keywords["betas"]) is list
