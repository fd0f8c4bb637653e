"""How much each weight of a backbone matters to the classification that it was pretrained for."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.timm_model import create_classifier
from uniad_lightning.precision import in_float32


def fisher_information(backbone: Backbone, images: Iterable[Tensor], *, seed: int) -> dict[str, Tensor]:
    """The diagonal Fisher information of the parameters that learn, by their name in `backbone.model`.

    That is the mean over images (3, H, W) of the squared gradient of log p(y), where the class y is drawn from what the
    classifier itself says of the image (Kirkpatrick et al. 2017; Martens 2020, Sec. 5), so that images need no labels.
    The classifier is the whole pretrained model in eval mode with the backbone's weights as they are.

    Raises InputError for a model without classes, and where there are no images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for backbone.weights=random
        classifier, names = _classifier(backbone)
    parameters = [classifier.get_parameter(theirs) for theirs in names.values()]
    device = parameters[0].device
    generator = torch.Generator().manual_seed(seed)
    total, count = [torch.zeros_like(parameter) for parameter in parameters], 0
    with in_float32(device), torch.enable_grad():
        for image in images:
            scores = classifier(image[None].to(device)).log_softmax(dim=1)[0]
            drawn = torch.multinomial(scores.detach().exp().cpu(), 1, generator=generator).item()
            gradients = torch.autograd.grad(scores[int(drawn)], parameters)
            for part, gradient in zip(total, gradients, strict=True):
                part += gradient.square()
            count += 1
    if not count:
        raise InputError("model.ewc: there is no image to take the Fisher information of; expected at least one")
    return {name: part / count for name, part in zip(names, total, strict=True)}


def _classifier(backbone: Backbone) -> tuple[nn.Module, dict[str, str]]:
    """The whole model on the backbone's device, and its names of the parameters that learn by the backbone's."""
    classifier = create_classifier(backbone.name, backbone.weights, backbone.arguments).eval()
    theirs = {_plain(name): name for name in classifier.state_dict()}
    own = backbone.model.state_dict()
    state = {theirs[_plain(name)]: value for name, value in own.items() if _plain(name) in theirs}
    classifier.load_state_dict(state, strict=False)
    learning = [name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad]
    return classifier.to(next(backbone.parameters()).device), {name: theirs[_plain(name)] for name in learning}


def _plain(name: str) -> str:
    """A name without what timm's feature models change of it: a prefix, and dots that they write as `_`."""
    return name.removeprefix("model.").replace("_", ".")
