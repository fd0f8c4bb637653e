"""Every YAML key is an argument of what it configures, and every option, experiment and sweep composes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import uniad_lightning.training.train  # noqa: F401 - configs name what it imports
from support.configs import CONF, check_arguments, targets
from uniad_lightning.command_line.cli import COMMANDS

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def composed(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides], return_hydra_config=False)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_option_composes_and_its_keys_are_arguments(group, option):
    command = "evaluate" if (group, option) == ("data", "from_checkpoint") else "train"
    of_model = {"sizes": option.partition("_")[2], "method": option, "published": option}.get(
        group
    )  # what is said of one model alone
    chosen = [] if of_model is None else [f"model={of_model}"]
    cfg = composed(command, f"{group}={option}", *chosen, *(["data.root=x"] if group != "data" else []))
    if cfg.get("data") is not None and "root" in cfg.data:
        cfg.data.root = "x"
    found = list(targets(cfg))
    assert found
    for node in found:
        check_arguments(node)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_command_composes_and_has_a_script(command):
    cfg = composed(command)
    assert {"output_dir", "overwrite", "ckpt_path", "seed"} <= set(cfg)
    assert (CONF.parent / "scripts" / f"{command}.py").is_file()
    assert COMMANDS[command].example.startswith(f"uniad {command} ")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["model", "loss", "score", "optimizer", "schedule", "callbacks", "logger"])
def test_options_instantiate(group, tmp_path):
    for path in sorted((CONF / group).glob("*.yaml")):
        extra = ["logger.wandb.offline=true"] if path.stem == "wandb" else []
        cfg = composed("train", f"{group}={path.stem}", f"output_dir={tmp_path}", *extra)
        node = cfg[group]
        if group in ("callbacks", "logger"):
            built = [instantiate(child) for child in node.values()]
        elif group == "model":  # needs parts that code gives
            built = instantiate(node, _partial_=True)
        else:
            built = instantiate(node)
        assert built is not None


def test_names_that_others_rely_on():
    cfg = composed("train", "data.root=x")
    for key in """
        data.root data.categories data.batch_size data.image_size backbone.weights model.neighbor_size model.masked
        model.jitter.scale model.jitter.prob model.dropout model.hidden_dim model.num_heads model.num_encoder_layers
        model.num_decoder_layers trainer.max_epochs trainer.devices seed ckpt_path output_dir
    """.split():  # noqa: SIM905 - reads better than twenty quoted words
        assert OmegaConf.select(cfg, key, default="absent") != "absent", key


def test_the_fidelity_table_is_the_default():
    cfg = composed("train", "experiment=mvtec", "data.root=x")
    expected = {
        "model.grid": [14, 14], "model.hidden_dim": 256, "model.feedforward_dim": 1024, "model.num_heads": 8,
        "model.num_encoder_layers": 4, "model.num_decoder_layers": 4, "model.dropout": 0.1, "model.neighbor_size": 7,
        "model.decoder": "a",
        "model.masked": [True] * 3, "model.jitter.scale": 20.0, "model.jitter.prob": 1.0, "model.jitter.per": "batch",
        "data.image_size": 224, "data.batch_size": 64, "optimizer.lr": 1e-4, "optimizer.betas": [0.9, 0.999],
        "optimizer.weight_decay": 1e-4, "schedule.fraction": 0.8, "schedule.gamma": 0.1, "trainer.max_epochs": 1000,
        "trainer.gradient_clip_val": 0.1, "backbone.name": "tf_efficientnet_b4.aa_in1k",
        "backbone.levels": [0, 1, 2, 3], "score.kind": "max", "score.window": 16,
        "loss._target_": "uniad_lightning.models.losses.MSELoss",
    }  # fmt: skip
    found = {key: OmegaConf.select(cfg, key) for key in expected}
    assert {key: list(v) if OmegaConf.is_list(v) else v for key, v in found.items()} == expected


def test_experiments_say_their_command():
    for path in Path(CONF / "experiment").glob("*.yaml"):
        assert f"uniad train experiment={path.stem}" in path.read_text()
