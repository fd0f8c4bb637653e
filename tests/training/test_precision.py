"""What trainer.precision changes, the network's training steps, and what it does not: the numbers of a detector."""

import json

import numpy as np
import pytest
import torch

from support.settings import SMALL
from uniad_lightning.data.images.tiling import WHOLE, Framing
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.training.build import build_saved, build_saved_data

HALF = "trainer.precision=bf16-mixed"


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """Run folders of a training in bfloat16, of whole images and of tiles."""
    from hydra.core.global_hydra import GlobalHydra

    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("half")
    for name, tiles in (("whole", 1), ("tiles", 2)):
        GlobalHydra.instance().clear()
        options = [f"data.root={tree}", f"data.framing.tiles={tiles}", "validate_every=1", HALF]
        assert run_command("train", [*SMALL, *options, f"output_dir={folder}/{name}"]) == 0
    return folder


def checkpoint(folder, name):
    return folder / name / "checkpoints" / "last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "tiles"])
def test_evaluation_in_any_precision_repeats_that_of_the_training_bit_for_bit(trained, uniad, tree, tmp_path, name):
    results, maps, scores = [(trained / name / "results.csv").read_bytes()], [], []
    for precision in ("32-true", "bf16-mixed"):
        folder = tmp_path / precision
        status, _, err = uniad(
            "evaluate", f"ckpt_path={checkpoint(trained, name)}", "trainer=cpu", f"trainer.precision={precision}",
            "save_maps=true", f"output_dir={folder}",
        )  # fmt: skip
        assert status == 0, err
        results.append((folder / "results.csv").read_bytes())
        files = [np.load(path) for path in sorted((folder / "maps").glob("*.npz"))]
        maps.append(np.stack([file["map"] for file in files]))
        scores.append({str(file["path"]): float(file["score"]) for file in files})
    assert results[0] == results[1] == results[2]
    assert np.array_equal(*maps)
    assert scores[0] == scores[1]
    assert len(np.unique(maps[0])) > maps[0].size / 2  # bfloat16 has some hundreds
    found = Detector.load(checkpoint(trained, name)).predict(list(scores[0]))
    assert [one.score for one in found] == pytest.approx(list(scores[0].values()), rel=1e-5)


def test_the_run_folder_says_which_precision_is_whose(trained, uniad, tree, tmp_path):
    recorded = json.loads((trained / "whole" / "metrics.json").read_text())["precision"]
    assert recorded == {"training": "bf16-mixed", "evaluation": "32-true", "test_features": "float32"}
    status, _, err = uniad(
        "evaluate", f"ckpt_path={checkpoint(trained, 'whole')}", "trainer=cpu", "data.cache=memory",
        f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0, err
    recorded = json.loads((tmp_path / "run" / "metrics.json").read_text())["precision"]
    assert recorded == {"training": "bf16-mixed", "evaluation": "32-true", "test_features": "float16"}


@pytest.mark.parametrize("framing", [WHOLE, Framing(region=None, tiles=2, overlap=0.2, ignore=None)])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_detector_is_the_same_under_autocast(trained, trainable, framing):
    module, _ = build_saved(str(checkpoint(trained, "whole")))
    module.eval().backbone.requires_grad_(trainable)
    images = torch.rand(2 * framing.count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module.inspect({"image": images}, framing=framing, size=framing.map_size((64, 64)))
        with torch.autocast("cpu", torch.bfloat16):
            found = module.inspect({"image": images}, framing=framing, size=framing.map_size((64, 64)))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_features_that_are_kept_are_those_that_are_computed_in_a_training_step(trained):
    """Both in float32 under autocast; what is kept is rounded to float16."""
    import lightning as L

    module, saved = build_saved(str(checkpoint(trained, "whole")))
    data = build_saved_data(saved, module)
    data.cache.mode = "memory"
    data.setup()
    data.trainer = L.Trainer(accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        module.fill_cache(data, "fit")
        dataset = data.cache.splits["train"].dataset
        images = dataset.collate([dataset[i] for i in range(6)])["image"]
        computed = module.train().features({"image": images})
    assert computed.dtype == torch.float32
    assert torch.equal(data.cache.splits["train"].features(range(6)), computed.half())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_precision_that_rounds_the_weights_is_refused(trained, uniad, tree, tmp_path, command, precision):
    options = [*SMALL, f"data.root={tree}"] if command == "train" else [f"ckpt_path={checkpoint(trained, 'whole')}"]
    status, _, err = uniad(command, *options, f"trainer.precision={precision}", f"output_dir={tmp_path}/run")
    assert status == 2
    (line,) = [line for line in err.splitlines() if "RANDOM" not in line]
    assert f"trainer.precision={precision}: " in line
    assert "expected 32-true, or bf16-mixed" in line
