"""Every option of conf/backbone: what its comment says, features on the grid, a training step, its missing weights."""

import huggingface_hub
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file

from support.paths import ROOT
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone

EFFICIENTNET, PYRAMID, DINOV2, DINOV3 = [2, 4, 8, 16], [4, 8, 16], [14] * 4, [16] * 4
EXPECTED = {  # option: channels, strides
    "efficientnet_b0": ([16, 24, 40, 112], EFFICIENTNET),
    "efficientnet_b2": ([16, 24, 48, 120], EFFICIENTNET),
    "efficientnet_b4": ([24, 32, 56, 160], EFFICIENTNET),
    "efficientnet_b6": ([32, 40, 72, 200], EFFICIENTNET),
    "efficientnet_lite0": ([16, 24, 40, 112], EFFICIENTNET),
    "efficientnet_lite2": ([16, 24, 48, 120], EFFICIENTNET),
    "resnet18": ([64, 128, 256], PYRAMID),
    "resnet34": ([64, 128, 256], PYRAMID),
    "resnet50": ([256, 512, 1024], PYRAMID),
    "resnet101": ([256, 512, 1024], PYRAMID),
    "resnet152": ([2048], [32]),
    "wide_resnet50_2": ([256, 512, 1024], PYRAMID),
    "vgg16": ([128, 256, 512, 512], [2, 4, 8, 16]),
    "vgg11_bn": ([512], [8]),
    "tiny": ([32, 64], [4, 8]),
    "fcdd_cnn32": ([128], [4]),
    "convnext_tiny": ([96, 192, 384], PYRAMID),
    "convnext_small": ([96, 192, 384], PYRAMID),
    "convnext_base": ([128, 256, 512], PYRAMID),
    "dinov2_small": ([384] * 4, DINOV2),
    "dinov2_base": ([768] * 4, DINOV2),
    "vit_base": ([768], [16]),
    "dinov3_small": ([384] * 4, DINOV3),
    "dinov3_base": ([768] * 4, DINOV3),
}
WITHOUT_WEIGHTS = {"fcdd_cnn32"}  # trained from its beginning
BY_HAND = ["backbone.name=resnet10t", "backbone.levels=[1,2]"]  # of backbone=timm
SMALL_UNIAD = [
    "model.grid=[4,4]", "model.neighbor_size=3", "model.hidden_dim=16", "model.num_heads=2", "model.feedforward_dim=16",
    "model.num_encoder_layers=1", "model.num_decoder_layers=1",
]  # fmt: skip


def composed(option, *overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [f"backbone={option}", *overrides, *SMALL_UNIAD, "data.root=x"])


def test_the_table_names_every_option_and_no_comment_departs_from_it():
    texts = {path.stem: path.read_text() for path in (conf_dir() / "backbone").glob("*.yaml")}
    assert EXPECTED.keys() == texts.keys() - {"timm", "published"}
    for option, (channels, strides) in EXPECTED.items():
        (comment,) = [line.split("#")[1] for line in texts[option].splitlines() if line.startswith("levels:")]
        added, product = "+".join(map(str, channels)), f"{len(channels)} x {channels[0]}"
        assert f"{added} = {sum(channels)} channels" in comment or f"{product} = {sum(channels)} channels" in comment
        ends = f"{strides[0]} to {strides[-1]}", f"{strides[0]} and {strides[-1]}", f"stride {strides[0]},"
        assert any(end in comment for end in ends), comment


@pytest.mark.slow
@pytest.mark.parametrize("option", EXPECTED)
def test_option_gives_features_that_a_small_uniad_learns_from(option):
    torch.manual_seed(0)
    cfg = composed(option, "backbone.weights=random")
    backbone = instantiate(cfg.backbone)
    assert (backbone.channels, backbone.strides) == EXPECTED[option]
    patch = backbone.strides[0] if len(set(backbone.strides)) == 1 else 16
    image = torch.randn(2, 3, 4 * patch, 5 * patch)
    backbone.check(image.shape[-2:])
    features = backbone(image)
    assert features.shape == (2, sum(backbone.channels), 4, 4)
    assert features.isfinite().all()
    assert (features.flatten(2).std(dim=2) > 0).any()  # the grid has places that differ

    network, loss = instantiate(cfg.model, channels=features.shape[1]), instantiate(cfg.loss)
    tokens = features.flatten(2).transpose(1, 2)
    value = loss(tokens, network.train()(tokens))
    value.backward()
    assert value.isfinite()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())

    backbone.requires_grad_(True)
    backbone(image).sum().backward()
    behind = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    assert not behind, f"kept although no level uses them: {behind}"


@pytest.mark.parametrize("option", sorted(EXPECTED.keys() - {"tiny", *WITHOUT_WEIGHTS}))
def test_timm_knows_where_the_weights_of_every_option_are(option):
    name = composed(option).backbone.name
    assert timm.get_pretrained_cfg(name).hf_hub_id == f"timm/{name}"


@pytest.mark.parametrize("option", ["efficientnet_b0", "resnet34", "convnext_tiny", "dinov2_small", "dinov3_small"])
def test_without_network_the_missing_file_is_named(option, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    settings = {key: value for key, value in composed(option).backbone.items() if key != "_target_"}
    with pytest.raises(InputError) as error:
        Backbone(**settings)
    assert f"model.safetensors of timm/{settings['name']}" in str(error.value)
    assert "\n" not in str(error.value)


def test_any_model_of_timm_is_chosen_on_the_command_line():
    backbone = instantiate(composed("timm", *BY_HAND, "backbone.weights=random").backbone)
    assert backbone.strides == [4, 8]


@pytest.mark.parametrize("option", ["dinov2_small", "dinov3_small"])
def test_vision_transformers_take_every_multiple_of_their_patch(option):
    backbone = instantiate(composed(option, "backbone.weights=random", "backbone.levels=[0,1]").backbone)
    for size in [(224, 224), (448, 448), (112, 224)]:
        backbone.check(size)
    patch = backbone.strides[0]
    with pytest.raises(
        InputError, match=rf"data.image_size=100: .*{patch}x{patch}; .* such as {patch * (100 // patch)} "
    ):
        backbone.check((100, 100))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["dinov2_small", "dinov3_small", "convnext_tiny"])
def test_weights_of_the_whole_model_at_its_own_size_load_from_a_file(option, tmp_path):
    torch.manual_seed(0)
    cfg = composed(option)
    whole = timm.create_model(cfg.backbone.name)
    for parameter in whole.parameters():
        torch.nn.init.uniform_(parameter)  # none has the value that a layer starts from
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    cfg.backbone.weights = str(tmp_path / "whole.safetensors")
    cfg.backbone.levels = [0, 2]
    backbone = instantiate(cfg.backbone)
    theirs = {name.replace("_", "."): tensor for name, tensor in whole.state_dict().items()}
    ours = {name.removeprefix("model.").replace("_", "."): t for name, t in backbone.model.state_dict().items()}
    assert ours
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    if option == "dinov2_small":
        assert ours["pos.embed"].shape == (1, 1 + 37 * 37, 384)  # resampled to the image when it comes


def test_positions_follow_the_image_and_agree_with_a_model_built_for_its_size(tmp_path):
    torch.manual_seed(0)
    name = "vit_small_patch14_dinov2.lvd142m"
    whole = timm.create_model(name)
    torch.nn.init.normal_(whole.pos_embed)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    settings = {"name": name, "levels": [1], "grid": [5, 5], "weights": str(tmp_path / "whole.safetensors")}
    dynamic = Backbone(**settings, arguments={"dynamic_img_size": True})
    fixed = Backbone(**settings, arguments={"img_size": 70})
    image = torch.randn(1, 3, 70, 70)
    assert torch.allclose(dynamic(image), fixed(image), atol=1e-4)


def test_levels_of_a_vision_transformer_are_patch_tokens_without_the_final_norm():
    torch.manual_seed(0)
    name, size = "vit_small_patch14_reg4_dinov2.lvd142m", {"dynamic_img_size": True}
    backbone = Backbone(name=name, levels=[0, 1], grid=[5, 5], weights="random", arguments=size)
    model, image = backbone.model.model, torch.randn(1, 3, 70, 70)
    stream = model.blocks[0](model._pos_embed(model.patch_embed(image)))
    assert stream.shape == (1, 1 + 4 + 25, 384)  # class token, registers, patches
    expected = stream[:, 5:].transpose(1, 2).unflatten(2, (5, 5))
    assert torch.allclose(backbone(image)[:, :384], expected, atol=1e-5)


def test_the_table_of_backbones_says_the_licence_that_timm_records_and_the_size_of_the_file():
    rows = {}
    for line in (ROOT / "docs" / "backbones.md").read_text().splitlines():
        if line.startswith("| `") and "backbone=" not in line:
            option, weights, licence, commercial, size, _ = (cell.strip() for cell in line.strip("|").split("|"))
            rows[option.split("`")[1]] = weights.strip("`"), licence, commercial, size
    assert set(rows) == EXPECTED.keys() - WITHOUT_WEIGHTS
    for option, (weights, licence, commercial, size) in rows.items():
        if option == "tiny":
            continue
        name = OmegaConf.load(conf_dir() / "backbone" / f"{option}.yaml").name
        recorded = timm.get_pretrained_cfg(name).license
        with torch.device("meta"):
            tensors = timm.create_model(name).state_dict().values()
        assert weights == name
        assert licence.lower().replace(" ", "-") == recorded
        assert (commercial == "yes") == (recorded in ("apache-2.0", "bsd-3-clause"))
        assert size == f"{sum(tensor.numel() for tensor in tensors) * 4 / 1e6:.0f} MB"
