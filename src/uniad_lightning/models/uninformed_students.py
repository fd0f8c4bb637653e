"""The network of Uninformed Students (Bergmann et al. 2020): a descriptor of each patch of an image, densely."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError


class Layer(NamedTuple):
    """A convolution of side `kernel` to `channels` at a width of 128, and whether a 2x2 max pool follows."""

    kernel: int
    channels: int
    pooled: bool = False


# By the side of a patch. 65 as in denguir/student-teacher-anomaly-detection, which Table A7 counts.
LAYERS = {
    17: (Layer(6, 128), Layer(5, 256), Layer(5, 256), Layer(4, 128)),
    33: (Layer(5, 128, True), Layer(5, 256, True), Layer(2, 256), Layer(4, 128)),
    65: (Layer(5, 128, True), Layer(5, 128, True), Layer(5, 256, True), Layer(4, 256), Layer(1, 128)),
}
_SLOPE = 5e-3  # of the leaky ReLUs


class PatchNetwork(nn.Module):
    """Images (B, 3, H, W) -> a descriptor of the patch around every `stride`-th pixel, (B, `width`, h, w).

    The side of a patch is 17, 33 or 65. A pool whose stride would exceed `stride` does not step but spreads what comes
    after it: convolutions and pools are dilated then, and give what the network gives of each patch alone (the result
    of the shifts and stitches of Bailer et al. 2018). h = (H - patch) // stride + 1: images come with their margin.
    `field` is the side of what a descriptor depends on, 17, 32 and 60: the pools leave out a patch's last pixels.

    Raises InputError for an unknown patch, and a stride that is no product of the network's pools.
    """

    def __init__(self, *, patch: int, width: int, stride: int):
        super().__init__()
        if patch not in LAYERS:
            raise InputError(f"model.patch={patch}: expected one of {', '.join(map(str, LAYERS))}, sides in pixels")
        pools = sum(layer.pooled for layer in LAYERS[patch])
        strides = [2**power for power in range(pools + 1)]
        if stride not in strides:
            raise InputError(
                f"model.stride={stride}: expected one of {', '.join(map(str, strides))} with model.patch={patch}"
            )
        self.patch, self.stride, self.field = patch, stride, 1
        self.convolutions = nn.ModuleList()
        self.pools: list[tuple[int, int] | None] = []  # stride and dilation of the pool behind each
        before, stepped, rate = 3, 1, 1
        for layer in LAYERS[patch]:
            channels = layer.channels * width // 128
            self.convolutions.append(nn.Conv2d(before, channels, layer.kernel, dilation=rate))
            before = channels
            self.field += (layer.kernel - 1 + layer.pooled) * stepped * rate
            steps = layer.pooled and stepped < stride
            self.pools.append((2 if steps else 1, rate) if layer.pooled else None)
            stepped, rate = stepped * (2 if steps else 1), rate * (2 if layer.pooled and not steps else 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) with their margin -> descriptors (B, width, h, w)."""
        size = [(side - self.patch) // self.stride + 1 for side in image.shape[-2:]]
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            image = convolution(image)
            if convolution is not self.convolutions[-1]:
                image = F.leaky_relu(image, _SLOPE)
            if pool is not None:
                image = F.max_pool2d(image, 2, stride=pool[0], dilation=pool[1])
        return image[..., : size[0], : size[1]]  # there may be more, of patches without their last pixels

    def padded(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) with a mirrored margin, so that the field of a patch lies around every pixel."""
        before = self.field // 2
        return F.pad(image, [before, self.patch - 1 - before] * 2, mode="reflect")


class Students(nn.ModuleList):
    """Networks that are asked together: images (B, 3, H, W) -> (M, B, D, h, w)."""

    def forward(self, image: Tensor) -> Tensor:
        """The descriptors of each of the M networks."""
        return torch.stack([student(image) for student in self])


def crops(image: Tensor, places: Tensor, size: int) -> Tensor:
    """Squares of `size` pixels of images (B, 3, H, W), (B, K, 3, size, size), at `places` (B, K, 2) in [0, 1].

    0 is at the edge of the image, 1 the last place at which a square fits.
    """
    room = torch.tensor(image.shape[-2:], device=image.device) - size + 1
    starts = torch.minimum((places * room).long(), room - 1)  # (B, K, 2)
    span = torch.arange(size, device=image.device)
    rows, columns = starts[..., 0, None] + span, starts[..., 1, None] + span  # (B, K, size)
    which = torch.arange(len(image), device=image.device).view(-1, 1, 1, 1)
    found = image.permute(0, 2, 3, 1)[which, rows[..., :, None], columns[..., None, :]]  # (B, K, size, size, 3)
    return found.movedim(-1, 2)


def triplet_loss(anchor: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Mean of max(0, 1 + d+ - d-) over descriptors (..., D), d- the smaller of the distances of both to `far`.

    The distances are squared (Bergmann et al., metric learning with in-triplet swaps).
    """
    closest = torch.minimum((anchor - far).square().sum(-1), (near - far).square().sum(-1))
    return (1 + (anchor - near).square().sum(-1) - closest).clamp_min(0).mean()


def compactness_loss(descriptors: Tensor) -> Tensor:
    """Mean absolute correlation of two different entries over K descriptors, (B, K, D) -> scalar in [0, 1].

    Of the K of each image, and then their mean: the same for any number of processes. The paper sums over pairs and
    takes all of a batch.
    """
    apart = descriptors - descriptors.mean(dim=1, keepdim=True)
    apart = F.normalize(apart, dim=1)
    correlation = apart.transpose(1, 2) @ apart  # (B, D, D)
    entries = correlation.shape[-1]
    total = correlation.abs().sum(dim=(1, 2)) - correlation.diagonal(dim1=1, dim2=2).abs().sum(dim=1)
    return (total / max(entries * (entries - 1), 1)).mean()


def disagreement(students: Tensor, target: Tensor) -> Tensor:
    """Error of the students' mean, and variance of the students, (B, h, w, 2), each at least 0.

    `students` (M, B, D, h, w), `target` (B, D, h, w), the teacher's standardised descriptors. The mean of |mu|^2 less
    |mean mu|^2 is the mean of |mu - mean mu|^2, which does not lose digits.
    """
    mean = students.mean(dim=0)
    error = (mean - target).square().sum(dim=1)
    return torch.stack([error, (students - mean).square().sum(dim=2).mean(dim=0)], dim=-1)
