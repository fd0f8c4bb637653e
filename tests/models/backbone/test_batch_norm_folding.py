"""Batch norms folded into convolutions: the same features, under the same names, of the weights as they are now."""

import copy
import pickle

import pytest
import torch
from torch import nn

from uniad_lightning.models.backbone.batch_norm_folding import fold_batch_norms
from uniad_lightning.models.backbone.feature_pyramid import Backbone

BARE = {nn.BatchNorm2d: lambda norm: nn.Identity()}


def with_statistics(model):
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias, module.running_mean):
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator) / 10)
    return model.eval()


def backbone(name="resnet18", levels=(1, 2), **settings):
    torch.manual_seed(0)
    return with_statistics(Backbone(name=name, levels=levels, grid=[4, 4], weights="random", **settings))


def unfolded(model, image):
    return torch.cat([model._align(level) for level in model.model(image)], 1)


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2", "tf_efficientnet_b0", "tf_efficientnet_lite0"])
def test_every_batch_norm_of_the_papers_families_is_folded_and_the_features_stay(name):
    model, image = backbone(name), torch.randn(9, 3, 224, 224)
    features, expected = model(image), unfolded(model, image)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()
    assert norms(model.model)
    assert not norms(model._folded(model.model))


def test_a_backbone_without_batch_norms_is_not_copied():
    model = backbone("convnext_atto", [0])
    assert model._folded(model.model) is model.model


def test_folding_shows_neither_in_the_modules_nor_in_the_checkpoint():
    model = backbone()
    before, modules = copy.deepcopy(model.state_dict()), dict(model.named_modules())
    model(torch.randn(1, 3, 64, 64))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dict(model.named_modules()) == modules


def doubled(module):
    """Loads weights with every first convolution doubled; the root is the whole backbone or timm's model in it."""
    module.load_state_dict({name: value * (1 + ("conv1" in name)) for name, value in module.state_dict().items()})


@pytest.mark.parametrize(
    "change",
    [
        doubled,
        lambda model: doubled(model.model),
        lambda model: model.double(),
        lambda model: model.model.bn1.running_mean.add_(1),
    ],
)
def test_changed_weights_are_folded_anew(change):
    model, image = backbone(), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(image)
    change(model)
    image = image.to(next(model.parameters()).dtype)
    features, expected = model(image), unfolded(model, image)
    assert features.dtype == expected.dtype
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not torch.equal(features, before)


def test_unchanged_weights_are_folded_once():
    model, image = backbone(), torch.randn(1, 3, 64, 64)
    model(image)
    kept = model._folded(model.model)
    model.train()(image)
    assert model._folded(model.model) is kept


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_fold_their_own_weights(copied):
    model, image = backbone(), torch.randn(1, 3, 64, 64)
    before = model(image)
    other = copied(model)
    other.model.conv1.weight.zero_()
    assert torch.equal(model(image), before)
    assert not torch.allclose(other(image), before)


def test_a_trainable_backbone_runs_as_it_is():
    model = backbone(trainable=True).train()
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert model.model.bn1.weight.grad is not None
    assert model.model.bn1.num_batches_tracked == 1


def test_gradients_reach_the_image_of_a_frozen_backbone():
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    backbone()(image).sum().backward()
    assert image.grad.abs().sum() > 0


class Shared(nn.Module):
    """A convolution whose output goes to more than its batch norm, and one that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.first(x)
        return self.twice(self.other(self.twice(x + self.norm(x))))


class Branching(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


def test_what_cannot_be_folded_stays():
    model, image = with_statistics(Shared()), torch.randn(2, 3, 4, 4)
    folded = fold_batch_norms(model, BARE)
    assert len(norms(folded)) == 2
    assert torch.allclose(folded(image), model(image), atol=1e-6)
    model = with_statistics(Branching(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    assert fold_batch_norms(model, BARE) is model
