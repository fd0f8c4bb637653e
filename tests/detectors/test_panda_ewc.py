"""model.ewc of PANDA: Fisher information and penalty as rewritten, what they hold, resuming, mistakes."""

import shutil
import subprocess

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from support.checkpoints import weights
from support.settings import FEATURES, UNIAD
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fisher import fisher_information
from uniad_lightning.models.backbone.weights import PACKAGED_WEIGHTS
from uniad_lightning.models.elastic_weights import ElasticWeights
from uniad_lightning.training.build import build_saved

WEIGHTS = PACKAGED_WEIGHTS / "tiny.safetensors"
TINY = {"channels": [32, 64, 128, 128], "stem_width": 16, "stem_type": "deep"}
SMALL = [
    *FEATURES, "model=panda", "model.frozen_modules=5", "trainer.max_epochs=2", f"backbone.weights={WEIGHTS}",
    "model.ewc=1e4", "trainer.gradient_clip_val=1",
]  # fmt: skip


def tiny():
    backbone = Backbone(
        name="resnet18", levels=[1, 2], grid=[4, 4], weights=str(WEIGHTS), arguments=TINY, trainable=True
    )
    for module in list(backbone.model.children())[:5]:
        module.requires_grad_(False)
    return backbone


def whole():
    """The packaged network with its head of ten classes, built without the code under test."""
    model = timm.create_model("resnet18", num_classes=10, **TINY)
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval().double()


def drawn(count, seed=0):
    return [torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]


def squares(model, names, image, label):
    """The squared gradient of log p(label)."""
    model.zero_grad()
    scores = model(image[None].double())[0]
    (scores[label] - scores.logsumexp(dim=0)).backward()
    return {name: model.get_parameter(name).grad.square() for name in names}


def test_the_fisher_information_is_that_of_a_rewrite_with_the_same_classes():
    backbone, images = tiny(), drawn(3)
    found = fisher_information(backbone, images, seed=5)
    model, generator = whole(), torch.Generator().manual_seed(5)
    expected = {name: 0.0 for name in found}
    for image in images:
        with torch.no_grad():
            chances = model(image[None].double()).softmax(dim=1).float()
        label = int(torch.multinomial(chances, 1, generator=generator))
        for name, square in squares(model, found, image, label).items():
            expected[name] = expected[name] + square / len(images)
    learning = {name for name, one in backbone.model.named_parameters() if one.requires_grad}
    assert found.keys() == learning
    assert all(name.startswith("layer2") for name in learning)
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value, rtol=1e-3, atol=1e-5 * value.max()), name
        assert value.max() > 0, name


def test_over_many_draws_it_is_the_mean_over_all_classes():
    image, model = drawn(1)[0], whole()
    found = fisher_information(tiny(), [image] * 400, seed=0)
    chances = model(image[None].double()).softmax(dim=1)[0].tolist()
    exact = {name: 0.0 for name in found}
    for label, chance in enumerate(chances):
        for name, square in squares(model, found, image, label).items():
            exact[name] = exact[name] + chance * square
    totals = [sum(float(part.sum()) for part in fisher.values()) for fisher in (found, exact)]
    assert totals[0] == pytest.approx(totals[1], rel=0.15)


def test_the_penalty_is_that_of_plain_loops_and_has_its_gradient():
    parameters = {"a": torch.nn.Parameter(torch.randn(2, 3)), "b": torch.nn.Parameter(torch.randn(4))}
    fisher = {name: torch.rand_like(one) for name, one in parameters.items()}
    elastic = ElasticWeights(list(parameters.values()), weight=3.0)
    elastic.fit(parameters, fisher)
    assert elastic(list(parameters.values())).item() == 0
    start = {name: one.detach().clone() for name, one in parameters.items()}
    with torch.no_grad():
        for one in parameters.values():
            one += torch.randn_like(one)
    penalty, total = elastic(list(parameters.values())), 0.0
    penalty.backward()
    for name, one in parameters.items():
        for f, now, before in zip(fisher[name].flatten(), one.flatten(), start[name].flatten(), strict=True):
            total += 3.0 / 2 * f.item() * (now.item() - before.item()) ** 2
        assert torch.allclose(one.grad, 3.0 * fisher[name] * (one.detach() - start[name]))
    assert float(penalty) == pytest.approx(total, rel=1e-5)


def trained(tree, folder, *more):
    assert run_command("train", [*SMALL, f"data.root={tree}", f"output_dir={folder}", *more]) == 0
    return build_saved(str(folder / "checkpoints/last.ckpt"))[0]


def moved(module):
    now = torch.cat([one.reshape(-1) for one in module.backbone.parameters() if one.requires_grad])
    return (now.detach() - tiny_learning()).norm()


def tiny_learning():
    return torch.cat([one.detach().reshape(-1) for one in tiny().parameters() if one.requires_grad])


@pytest.mark.slow
def test_a_larger_weight_holds_the_weights_more_firmly(tree, tmp_path):
    more = ["optimizer.lr=0.1", "trainer.max_epochs=4"]
    free, held, firm = (trained(tree, tmp_path / ewc, f"model.ewc={ewc}", *more) for ewc in ("1e-9", "1", "1e3"))
    assert torch.equal(held.elastic.anchor, tiny_learning())
    assert moved(firm) < moved(held) < moved(free)
    assert torch.equal(firm.elastic.fisher, free.elastic.fisher)


@pytest.mark.slow
def test_the_fisher_information_is_that_of_the_folder(tree, tmp_path):
    folder = tmp_path / "others"
    folder.mkdir()
    for path in sorted(tree.glob("bottle/train/good/*"))[:2]:
        shutil.copy(path, folder)
    module = trained(tree, tmp_path / "run", f"model.fisher_images={folder}", "trainer.max_epochs=1")
    words = [f"data.root={tree}", "model.ewc=null", "optimizer.lr=0", "trainer.max_epochs=1"]
    assert run_command("train", [*SMALL, *words, f"output_dir={tmp_path}/plain"]) == 0
    assert build_saved(str(tmp_path / "plain/checkpoints/last.ckpt"))[0].elastic is None
    assert module.elastic.fisher.count_nonzero() > 0.5 * module.elastic.fisher.numel()
    of_train = trained(tree, tmp_path / "of train", "trainer.max_epochs=1")
    assert not torch.allclose(module.elastic.fisher, of_train.elastic.fisher)
    shutil.rmtree(folder)  # a resumed training and an evaluation need it no more
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert run_command("evaluate", [f"ckpt_path={last}", f"output_dir={tmp_path}/evaluated"]) == 0
    more = [f"model.fisher_images={folder}", f"ckpt_path={last}", "trainer.max_epochs=1"]
    trained(tree, tmp_path / "resumed", *more)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.ewc=0", "model.ewc=0: expected more than 0"),
        ("model.ewc=null model.fisher_images=x", "model.fisher_images=x: is for model.ewc, which is null; set it"),
        ("model.fisher_images=absent", "model.fisher_images=absent: is no folder; expected one of images"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", *override.split()]
    status, _, err = uniad("train", *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_weights_without_a_classifier_are_named(tmp_path):
    state = {name: value for name, value in load_file(WEIGHTS).items() if not name.startswith("fc")}
    save_file(state, tmp_path / "headless.safetensors")
    settings = {"levels": [1], "grid": [4, 4], "trainable": True}
    headless = Backbone(name="resnet18", weights=str(tmp_path / "headless.safetensors"), arguments=TINY, **settings)
    with pytest.raises(InputError, match=r"headless.safetensors: has no classifier, expected fc.weight"):
        fisher_information(headless, drawn(1), seed=0)
    dino = Backbone(name="vit_small_patch14_dinov2", weights="random", arguments={"img_size": 28}, **settings)
    with pytest.raises(InputError, match="vit_small_patch14_dinov2: has no classifier"):
        fisher_information(dino, drawn(1), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vgg11_bn", "vit_tiny_patch16_224", "convnext_atto"])
def test_it_is_known_of_every_weight_of_other_kinds_of_networks(name):
    backbone = Backbone(name=name, levels=[2], grid=[2, 2], weights="random", trainable=True)
    found = fisher_information(backbone, [torch.randn(3, 224, 224)], seed=0)
    assert found.keys() == dict(backbone.model.named_parameters()).keys()
    for parameter, fisher in zip(backbone.model.parameters(), found.values(), strict=True):
        assert parameter.shape == fisher.shape
    assert sum(fisher.abs().sum() for fisher in found.values()) > 0


@pytest.mark.slow
def test_two_processes_train_the_same_and_a_resumed_training_bit_for_bit(tree, tmp_path):
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=3"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    middle = f"ckpt_path={tmp_path}/one/checkpoints/at-step=3.ckpt"
    for name, more in (("one", keep), ("two", two), ("resumed", [middle])):
        words = [*SMALL, *more, f"data.root={tree}", f"output_dir={tmp_path}/{name}", "trainer.gradient_clip_val=1"]
        done = subprocess.run([UNIAD, "train", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two, resumed = (weights(tmp_path / name) for name in ("one", "two", "resumed"))
    assert one.keys() == two.keys() == resumed.keys()
    for name, value in one.items():
        assert torch.equal(value, resumed[name]), name
        assert torch.allclose(value.float(), two[name].float(), rtol=1e-3, atol=1e-4), name
