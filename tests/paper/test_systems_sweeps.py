"""`sweep=table1` to `table4` train every system of a table by one command, each on the backbone of its paper."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support.configs import CONF
from support.settings import FEATURES
from uniad_lightning.paper import numbers as paper
from uniad_lightning.paper.rows import system
from uniad_lightning.results.run_folder import read_metrics

SYSTEMS = {
    "1": set(paper.TABLE_1_METHODS),
    "2": set(paper.TABLE_2_METHODS),
    "3": set(paper.TABLE_3_METHODS) - {"FCDD+OE"},  # needs images of the user's
    "4": {"InTra", "VT-ADL", "AnoVit"},
}
BACKBONES = {
    "UniAD": "tf_efficientnet_b4.aa_in1k", "VanillaTransformer": "tf_efficientnet_b4.aa_in1k",
    "UninformedStudents": "resnet18.tv_in1k", "PadimDetector": "wide_resnet50_2.tv_in1k",
    "CutPasteDetector": "resnet18.tv_in1k", "MKD": "vgg16.tv_in1k", "FCDD": "vgg11_bn.tv_in1k",
    "PANDA": "resnet152.tv_in1k", "AnoViT": "vit_base_patch16_384.augreg_in21k_ft_in1k",
}  # fmt: skip


def composed(*words, **kwargs):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["data.root=x", "output_dir=run", *words], **kwargs)


def models(words):
    params = composed(*words, return_hydra_config=True).hydra.sweeper.params
    return params, params.model.split(",")


@pytest.mark.parametrize("table", SYSTEMS)
def test_a_sweep_has_the_systems_of_its_table_on_their_backbones(table):
    experiment = "cifar10" if table == "3" else "mvtec"
    words = [f"experiment={experiment}", f"sweep=table{table}"]
    params, names = models(words)
    found = [composed(*words, f"model={name}") for name in names]
    assert {system({"model._target_": cfg.model._target_}) for cfg in found} == SYSTEMS[table] | {None}
    for cfg in found:
        kind = cfg.model._target_.rpartition(".")[2]
        assert cfg.backbone.name == BACKBONES.get(kind, cfg.backbone.name)
    assert ("data.normal_classes" if table == "3" else "data.categories") in params


def test_a_backbone_of_the_command_line_is_taken_by_all():
    for name in ("padim", "mkd", "uniad"):
        cfg = composed("experiment=mvtec", "sweep=table1", f"model={name}", "backbone=resnet50")
        assert cfg.backbone.name == "resnet50.tv_in1k"


def test_levels_of_one_experiment_are_those_of_uniad_alone():
    of = {name: composed("experiment=cifar10", f"model={name}", "backbone=published") for name in ("uniad", "panda")}
    assert {name: list(cfg.backbone.levels) for name, cfg in of.items()} == {"uniad": [0, 1, 2, 3, 4], "panda": [4]}
    assert {name: list(cfg.model.grid) for name, cfg in of.items()} == {"uniad": [8, 8], "panda": [7, 7]}


@pytest.mark.slow
def test_one_command_trains_them_all_and_another_leaves_them(uniad, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        *FEATURES, f"data.root={tree}", "sweep=table4", "data.categories=null", "trainer.max_epochs=1",
        "experiment=demo", "data=mvtec", "data.image_size=128", "output_dir=runs",
    ]  # fmt: skip
    status, _, err = uniad("train", *words)
    assert status == 0, err
    names = models(words)[1]
    folders = {name: tmp_path / "runs" / f"model-{name}" for name in names}
    assert all(read_metrics(folder)["mean"]["image_auroc"] >= 0 for folder in folders.values())
    kinds = {OmegaConf.load(folder / "config.yaml").model._target_.rpartition(".")[2] for folder in folders.values()}
    assert len(kinds) == len(names)
    status, out, err = uniad("train", *words)
    assert status == 0, err
    assert out.count("finished before with the same settings") == len(names)


@pytest.mark.slow
def test_what_the_only_method_of_a_sweep_does_not_use_is_refused(uniad, tree, tmp_path):
    words = [f"data.root={tree}", "trainer=cpu", f"output_dir={tmp_path / 'runs'}", "-m", "seed=0,1", "model=vt_adl"]
    status, _, err = uniad("train", *words, "backbone=tiny")
    assert status == 1
    assert "backbone=tiny: VTADL does not use backbone; leave it out" in err
