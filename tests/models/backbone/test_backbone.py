"""The frozen pyramid: shapes, freezing, truncation, and where weights come from."""

import socket
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from support.paths import SHARED
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint

LITE0 = SHARED / "weights" / "tf_efficientnet_lite0.safetensors"
SMALL_RESNET = {"channels": [8, 8, 16, 16], "stem_width": 8}


def resnet(**changes):
    settings = {"name": "resnet18", "levels": [1, 2, 3], "grid": [4, 4], "weights": "random", "arguments": SMALL_RESNET}
    return Backbone(**{**settings, **changes})


@pytest.mark.parametrize(
    ("name", "levels", "channels", "strides", "arguments"),
    [
        ("tf_efficientnet_b4.aa_in1k", [0, 1, 2, 3], [24, 32, 56, 160], [2, 4, 8, 16], {}),
        ("tf_efficientnet_lite0.in1k", [0, 1, 2, 3], [16, 24, 40, 112], [2, 4, 8, 16], {}),
        ("resnet18.tv_in1k", [1, 2, 3], [64, 128, 256], [4, 8, 16], {}),
        ("convnext_atto", [0, 1, 2], [40, 80, 160], [4, 8, 16], {}),
        ("vit_tiny_patch16_224", [3, 7, 11], [192, 192, 192], [16, 16, 16], {"img_size": 64}),
        ("swin_tiny_patch4_window7_224", [0, 1], [96, 192], [4, 8], {"img_size": 64}),
    ],
)
def test_levels_arrive_on_one_grid(name, levels, channels, strides, arguments):
    backbone = Backbone(name=name, levels=levels, grid=[4, 5], weights="random", arguments=arguments)
    assert backbone.channels == channels
    assert backbone.strides == strides
    features = backbone(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, sum(channels), 4, 5)
    assert features.isfinite().all()


def test_levels_are_averaged_over_a_window_with_zeros_outside_before_they_are_resized():
    torch.manual_seed(0)
    plain, averaged = resnet(levels=[1]), resnet(levels=[1], window=3)
    averaged.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 16, 20)
    (level,) = plain.model(image)
    assert level.shape == (2, 8, 4, 5)
    padded = torch.nn.functional.pad(level, (1, 1, 1, 1))
    mean = sum(padded[:, :, i : i + 4, j : j + 5] for i in range(3) for j in range(3)) / 9
    expected = torch.nn.functional.interpolate(mean, size=(4, 4), mode="bilinear", align_corners=True)
    assert torch.allclose(averaged(image), expected, atol=1e-6)
    assert fingerprint(plain) != fingerprint(averaged)


def test_channels_last_levels_are_told_apart_even_where_height_equals_channels():
    arguments = {"img_size": 64, "embed_dim": 16, "num_heads": [1, 2, 4, 8]}
    backbone = Backbone(
        name="swin_tiny_patch4_window7_224", levels=[0], grid=[16, 16], weights="random", arguments=arguments
    )
    image = torch.randn(1, 3, 64, 64)
    (level,) = backbone.model(image)
    assert level.shape == (1, 16, 16, 16)
    assert torch.allclose(backbone(image), level.permute(0, 3, 1, 2), atol=1e-6)


def test_blocks_behind_the_last_level_are_gone():
    full = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(0, 1, 2, 3))
    short = Backbone(name="tf_efficientnet_lite0", levels=[0, 1, 2, 3], grid=[4, 4], weights="random")
    assert len(full.blocks) == 7
    assert len(short.model.blocks) == 5
    full.load_state_dict(short.model.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(short.model.eval()(image), full.eval()(image), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)  # memory layouts differ, and so does rounding


def test_frozen_means_eval_and_no_gradients():
    backbone = resnet().train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    unfrozen = resnet(trainable=True).train()
    assert unfrozen.model.training
    assert all(parameter.requires_grad for parameter in unfrozen.parameters())


def test_alignment_is_bilinear_with_aligned_corners():
    backbone, image = resnet(grid=[8, 8]), torch.randn(1, 3, 64, 64)
    features, levels = backbone(image), backbone.model(image)
    assert torch.allclose(features[:, :8, 0, 0], levels[0][..., 0, 0], atol=1e-6)
    assert torch.allclose(features[:, 8:16], levels[1], atol=1e-5)  # batch norms are folded in, which rounds
    assert torch.allclose(features[:, 16:, -1, -1], levels[2][..., -1, -1], atol=1e-6)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file_of_the_whole_model(tmp_path, suffix):
    torch.manual_seed(1)
    whole = timm.create_model("resnet18", num_classes=10, **SMALL_RESNET)
    path = tmp_path / f"weights{suffix}"
    state = whole.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    loaded = resnet(weights=str(path))
    assert torch.equal(loaded.model.state_dict()["layer2.0.conv1.weight"], state["layer2.0.conv1.weight"])
    assert torch.equal(loaded.model.state_dict()["bn1.running_var"], state["bn1.running_var"])


def test_vision_transformer_weights_come_from_a_file_too(tmp_path):
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    loaded = Backbone(
        name="vit_tiny_patch16_224", levels=[2], grid=[4, 4], weights=str(tmp_path / "vit.safetensors"),
        arguments={"img_size": 64},
    )  # fmt: skip
    assert torch.equal(loaded.model.state_dict()["model.blocks.1.attn.qkv.weight"], whole.blocks[1].attn.qkv.weight)


def test_a_file_is_not_kept_beside_the_model_it_was_loaded_into(tmp_path):
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    loaded = Backbone(name="vit_tiny_patch16_224", levels=[0], grid=[4, 4], weights=str(tmp_path / "vit.safetensors"))
    records = [module.pretrained_cfg for module in loaded.modules() if hasattr(module, "pretrained_cfg")]
    assert len(records) == 2  # of timm's wrapper and of the model in it
    assert not any(record.get("state_dict") for record in records)


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not fit resnet18"):
        resnet(weights=str(tmp_path / "other.safetensors"))
    save_file(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"wide.safetensors: does not fit resnet18.*size mismatch"):
        resnet(weights=str(tmp_path / "wide.safetensors"))


def test_files_that_are_no_weights_are_refused(tmp_path):
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(InputError, match=name):
            resnet(weights=str(tmp_path / name))
    torch.save({"x": Path}, tmp_path / "code.pth")
    with pytest.raises(InputError, match="more than tensors"):
        resnet(weights=str(tmp_path / "code.pth"))
    with pytest.raises(InputError, match="no such file"):
        resnet(weights=str(tmp_path / "absent.pth"))


def test_without_network_pretrained_ends_in_one_line_that_names_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as error:
        Backbone(name="tf_efficientnet_b4.aa_in1k", levels=[0, 1, 2, 3], grid=[4, 4], weights="pretrained")
    message = str(error.value)
    assert "\n" not in message
    for part in ("tf_efficientnet_b4.aa_in1k", "model.safetensors", "backbone.weights=FILE"):
        assert part in message
    with pytest.raises(InputError, match="timm has no weights for resnet10t|could not be downloaded"):
        resnet(name="resnet10t", weights="pretrained", arguments={})


def test_a_hub_that_cannot_be_found_is_asked_again_the_next_time(monkeypatch, tmp_path):
    asked = []

    def unknown(host, port):
        asked.append(host)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    for _ in range(2):
        with pytest.raises(InputError, match="could not be downloaded"):
            resnet(name="resnet18.tv_in1k", weights="pretrained", arguments={})
        assert huggingface_hub.constants.HF_HUB_OFFLINE is before
    assert asked == ["huggingface.co"] * 2


def test_unknown_models_and_levels_are_refused():
    with pytest.raises(InputError, match="Did you mean 'resnet18'"):
        resnet(name="resnet8")
    with pytest.raises(InputError, match=r"levels=\[1, 9\].*5 levels, 0 to 4"):
        resnet(levels=[1, 9])
    with pytest.raises(InputError, match=r"levels=\[1, 12\].*12 levels, 0 to 11"):
        resnet(name="vit_tiny_patch16_224", levels=[1, 12], arguments={})
    for levels in ([2, 1], [1, 1], [-1]):
        with pytest.raises(InputError, match="each level once, shallow first, counted from 0"):
            resnet(levels=levels)


def test_arguments_that_the_model_does_not_have_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for weights in ("random", "pretrained"):
        with pytest.raises(InputError, match=r"backbone.arguments=\{'depth': 3\}: not for resnet18.tv_in1k; .*'depth'"):
            resnet(name="resnet18.tv_in1k", weights=weights, arguments={"depth": 3})


@pytest.mark.parametrize(
    ("name", "arguments", "size", "message"),
    [
        ("resnet18", SMALL_RESNET, (8, 64), r"image_size=\[8,64\]: .* has a stride of 16; expected 16 or more"),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, (70, 64), r"\[70,64\]: .*16x16; .* as 64 or \[80,64\]"),
        ("vit_tiny_patch16_224", {"img_size": 64}, (128, 128), r"=128: .* refuses .*; expected 64, or.*img_size: 128"),
        ("swin_tiny_patch4_window7_224", {}, (64, 64), r"=64: swin.* refuses it .*; expected 224, or.*img_size: 64"),
        ("maxvit_rmlp_pico_rw_256", {}, (40, 40), r"=40: maxvit.* \(height \(10\) must be .*\); expected 256, or"),
    ],
)  # fmt: skip
def test_image_sizes_that_the_model_refuses_are_named_before_the_run(name, arguments, size, message):
    backbone = resnet(name=name, arguments=arguments)
    with pytest.raises(InputError, match=message):
        backbone.check(size)


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("resnet18", SMALL_RESNET, (33, 70)),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, (48, 80)),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, "dynamic_img_pad": True}, (50, 70)),
        ("pvt_v2_b0", {}, (64, 80)),  # patches of 7 at a stride of 4
        ("twins_pcpvt_small", {}, (64, 96)),
    ],
)
def test_image_sizes_that_the_model_takes_pass(name, arguments, size):
    resnet(name=name, arguments=arguments).check(size)


def test_the_check_leaves_no_trace():
    backbone = resnet(trainable=True).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.check((64, 64))
    assert backbone.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_mean_and_std_are_the_models_own_unless_given():
    assert resnet().mean == pytest.approx((0.485, 0.456, 0.406))
    assert resnet(mean=[0.5] * 3, std=[0.25] * 3).std == (0.25, 0.25, 0.25)


@pytest.mark.skipif(not LITE0.is_file(), reason="needs ../shared/weights/tf_efficientnet_lite0.safetensors")
def test_real_weights_load_whole():
    backbone = Backbone(name="tf_efficientnet_lite0.in1k", levels=[0, 1, 2, 3], grid=[14, 14], weights=str(LITE0))
    assert backbone.mean == (0.5, 0.5, 0.5)
    torch.manual_seed(0)
    features = backbone(torch.randn(2, 3, 224, 224))
    assert features.shape == (2, 192, 14, 14)
    assert 0.1 < features.std() < 100
