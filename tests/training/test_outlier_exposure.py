"""FCDD+OE by one setting: the same run as with the data's two, recorded alike, refused where they contradict."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from support.configs import CONF
from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.errors import InputError
from uniad_lightning.paper import rows
from uniad_lightning.settings import flat
from uniad_lightning.training.build import build_data, build_module
from uniad_lightning.training.method import leave_out_unused
from uniad_lightning.training.outlier_exposure import settle_outliers

SMALL = [*FEATURES, "model=fcdd", "model.frozen_modules=4", "model.field=16", "model.sigma=4", "trainer.max_epochs=1"]


def settled(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["data.root=x", "output_dir=run", *words])
    settle_outliers(cfg)
    return cfg


def test_both_spellings_are_one_run_of_fcdd_oe():
    shares = ["data.defects.share_good=0.3"]
    one = settled("model=fcdd", "model.outlier_exposure=photos", *shares)
    for words in (
        ["data/defects=outliers", "data.defects.folder=photos"],
        ["data/defects=outliers", "model.outlier_exposure=photos"],
        ["data/defects=outliers", "data.defects.folder=photos", "model.outlier_exposure=photos"],
    ):
        assert settled("model=fcdd", *words, *shares) == one
    assert OmegaConf.to_container(one.data.defects) == {
        "_target_": "uniad_lightning.data.defects.confetti.OutlierExposure", "folder": "photos", "share_good": 0.3
    }  # fmt: skip
    assert one.model.outlier_exposure == "photos"
    assert rows.system(flat(OmegaConf.to_container(one))) == "FCDD+OE"
    settle_outliers(one)  # as a resumed run does
    assert one == settled("model=fcdd", "model.outlier_exposure=photos", *shares)


def test_without_it_there_is_confetti_and_other_methods_know_nothing_of_it():
    plain = settled("model=fcdd")
    assert plain.data.defects["_target_"].endswith(".Confetti")
    assert plain.model.outlier_exposure is None
    assert rows.system(flat(OmegaConf.to_container(plain))) == "FCDD"
    assert "outlier_exposure" not in settled("model=draem").model


def test_contradictions_are_refused():
    with pytest.raises(InputError, match=r"model.outlier_exposure=a, but data.defects.folder=b: .*leave one out"):
        settled("model=fcdd", "model.outlier_exposure=a", "data/defects=outliers", "data.defects.folder=b")
    with pytest.raises(InputError, match=r"model.outlier_exposure=a: .* data.defects is PerlinDefects; leave one"):
        settled("model=fcdd", "model.outlier_exposure=a", "data/defects=perlin")


@pytest.mark.slow
def test_it_trains_resumes_and_starts_others_from_the_command_line(uniad, tree, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), (250, 10, 10)).save(tmp_path / "photos/a.png")
    words = [*SMALL, f"data.root={tree}"]
    given = f"model.outlier_exposure={tmp_path}/photos"
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    status, _, err = uniad("train", *words, given, f"output_dir={tmp_path}/run")
    assert status == 0, err
    config = OmegaConf.load(tmp_path / "run/config.yaml")
    assert config.data.defects.folder == config.model.outlier_exposure == f"{tmp_path}/photos"
    assert Detector.load(tmp_path / "run").engine.module.outlier_exposure == f"{tmp_path}/photos"
    status, _, err = uniad(
        "train", *words, "data/defects=outliers", f"data.defects.folder={tmp_path}/photos", "overwrite=true",
        f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/again",
    )  # fmt: skip
    assert status == 0, err
    status, _, err = uniad("train", *words, f"init_from={checkpoint}", f"output_dir={tmp_path}/further")
    assert status == 0, err
    assert OmegaConf.load(tmp_path / "further/config.yaml").data.defects.folder == f"{tmp_path}/photos"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.outlier_exposure=nowhere"], "nowhere: is no folder"),
        (["data/defects=outliers"], "data.defects.folder"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, words, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", *words)
    assert status == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_module_that_expects_outliers_refuses_to_train_on_confetti(tree, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*SMALL, "model.outlier_exposure=photos", f"data.root={tree}", "output_dir=run"])
    leave_out_unused(cfg)
    module = build_module(cfg, announce=False)
    with pytest.raises(InputError, match="model.outlier_exposure=photos: data.defects makes no outliers"):
        module.fill_cache(build_data(cfg.data, module), "fit")
