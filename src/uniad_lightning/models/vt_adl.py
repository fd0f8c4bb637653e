"""The networks of VT-ADL (Mishra et al. 2021): a transformer, capsules, a decoder and a mixture density network.

T tokens of E numbers, one for each of 8 x 8 patches of an image. Sizes are those of the authors' code
(pankajmishra000/VT-ADL, MIT); together they have 41,100,563 parameters.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.types import Size

SIDE = 8  # tokens a side, which is what the decoder begins with
_CODE = 8 * SIDE * SIDE  # numbers that describe a whole image
_CAPSULE = 8  # numbers in one capsule
# Channels, kernel, stride and padding of each stage, and the side of what it gives.
_STAGES = (
    (16, 3, 2, 1, 15), (32, 9, 3, 1, 49), (32, 7, 5, 1, 245), (16, 9, 2, 0, 497), (8, 6, 1, 0, 502), (3, 11, 1, 0, 512),
)  # fmt: skip


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward network; products are divided by the root of the whole width."""

    def __init__(self, *, dim: int, num_heads: int, feedforward_dim: int):
        super().__init__()
        self.num_heads, self.scale = num_heads, dim**-0.5
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, feedforward_dim), nn.GELU(), nn.Linear(feedforward_dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, E) -> the same."""
        parts = self.query_key_value(self.first(tokens)).unflatten(2, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, T, d) each
        weights = (query @ key.transpose(2, 3) * self.scale).softmax(dim=3)
        tokens = tokens + self.out((weights @ value).transpose(1, 2).flatten(2))
        return tokens + self.feed(self.second(tokens))


class VisionTransformer(nn.Module):
    """Encodes patches (B, T, P) together with a class token, which is left out of the result (B, T, E)."""

    def __init__(self, *, pixels: int, dim: int, num_heads: int, feedforward_dim: int, num_layers: int):
        super().__init__()
        self.embed = nn.Linear(pixels, dim)
        self.class_token = nn.Parameter(torch.randn(dim))
        self.position = nn.Parameter(torch.randn(SIDE * SIDE + 1, dim))
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(dim=dim, num_heads=num_heads, feedforward_dim=feedforward_dim)
                for _ in range(num_layers)
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as in the authors' code
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, T, P) -> (B, T, E)."""
        first = self.class_token.expand(patches.shape[0], 1, -1)
        return self.blocks(torch.cat([first, self.embed(patches)], dim=1) + self.position)[:, 1:]


class Capsules(nn.Module):
    """Tokens (B, T, E) as T * E / 8 capsules of 8 numbers, from which one of 512 is made, of a length below 1.

    Routing by agreement shares each capsule among those of the next layer. There is one, which gets all of each in
    every one of the three routings: what is left of them is the sum.
    """

    def __init__(self, *, numbers: int):
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(numbers // _CAPSULE, _CODE, _CAPSULE))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, E) -> (B, 512)."""
        capsules = tokens.flatten(1).unflatten(1, (-1, _CAPSULE))
        code = torch.einsum("bnc,noc->bo", capsules, self.weight)
        length = code.square().sum(dim=1, keepdim=True)
        return code * length.clamp(min=1e-12).sqrt() / (1 + length)


class Decoder(nn.Module):
    """Codes (B, 512) as 8 channels of 8 x 8 -> images (B, 3, H, W) in [-1, 1].

    Transposed convolutions with batch norm and ReLU, up to the first that gives at least the size of the image; it ends
    in a tanh and is resized. At 512 pixels these are the six of the authors' code.
    """

    def __init__(self, *, image_size: Size):
        super().__init__()
        self.image_size = image_size
        count = 1 + sum(side < max(image_size) for *_, side in _STAGES[:-1])
        widths = [8, *(width for width, *_ in _STAGES[: count - 1]), 3]
        layers: list[nn.Module] = []
        for (inputs, outputs), (_, kernel, stride, padding, _) in zip(pairwise(widths), _STAGES, strict=False):
            layers += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Tanh())

    def forward(self, code: Tensor) -> Tensor:
        """(B, 512) -> (B, 3, H, W)."""
        image = self.layers(code.unflatten(1, (-1, SIDE, SIDE)))
        return F.interpolate(image, size=self.image_size, mode="bilinear", align_corners=False)


class MixtureDensity(nn.Module):
    """How unlikely each token is under a mixture of `count` Gaussians that is made of the token itself.

    Weights, means and log-variances are linear in the positive part of the token. Log-variances pass a softplus, as in
    the authors' code, so that no variance is below 1: the density of a token whose own mean is free would grow without
    bound. The negative log-likelihood is that of the mixture, a log-sum-exp over Gaussians (Bishop 1994); the authors'
    code averages those of the Gaussians, each with its weight.
    """

    def __init__(self, *, dim: int, count: int):
        super().__init__()
        self.count = count
        self.weights = nn.Linear(dim, count, bias=False)
        self.means, self.spreads = (nn.Linear(dim, dim * count, bias=False) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, E) -> negative log-likelihoods (B, T)."""
        positive = tokens.relu()
        shares = self.weights(positive).log_softmax(dim=2)  # (B, T, K)
        means = self.means(positive).unflatten(2, (self.count, -1))  # (B, T, K, E)
        log_variances = F.softplus(self.spreads(positive)).unflatten(2, (self.count, -1))
        terms = log_variances + (tokens[:, :, None] - means).square() * (-log_variances).exp() + math.log(2 * math.pi)
        return -(shares - 0.5 * terms.sum(dim=3)).logsumexp(dim=2)
