"""PaDiM: their whole program, from images through the fit to the map and the image score, on one category.

Their `main` runs as it is, with ResNet-18 of random weights, random images in the place of MVTec AD's, our random
choice of channels in the place of theirs, and without its pictures. It scales the maps of a category to [0, 1]
together, to find thresholds; ours are scaled alike here.
"""

import io
import pickle
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from public.common import Compared, copy_weights, detector, import_from, package, randomize_batch_norms
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import resnet18

TRAIN, TEST, SIDE = 40, 4, 224


class Images(Dataset):
    """Random images in the form of their data set: image, label and mask."""

    def __init__(self, path: str, class_name: str, is_train: bool):
        generator = torch.Generator().manual_seed(int(is_train))
        count = TRAIN if is_train else TEST
        self.images = torch.randn(count, 3, SIDE, SIDE, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, : SIDE // 2] = index % 2
        return self.images[index], index % 2, mask


def run_program(clone: Path, network: nn.Module, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What their program makes: means (C, P), covariances (C, C, P), and the scaled maps (B, H, W)."""
    import_from(clone)
    package("skimage", morphology=None)
    package("skimage.segmentation", mark_boundaries=None)
    import main as program  # the clone's own module

    maps: list[Tensor] = []
    program.mvtec.CLASS_NAMES, program.mvtec.MVTecDataset = ["random"], Images
    program.resnet18 = lambda **options: network
    program.sample = lambda population, count: channels.tolist()
    program.plot_fig = lambda images, scores, *rest: maps.append(torch.from_numpy(scores))
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(said), redirect_stderr(said):
        sys.argv = ["main.py", "--arch", "resnet18", "--save_path", folder]
        program.main()
        fitted = Path(folder, "temp_resnet18", "train_random.pkl").read_bytes()
    means, covariances = (torch.from_numpy(part) for part in pickle.loads(fitted))
    return means, covariances, maps[0]


def compare(clone: Path) -> Compared:
    ours = detector(
        "model=padim", "model.dim=100", "backbone=resnet18", "backbone.levels=[1,2,3]", "backbone.weights=random"
    )
    network = resnet18()
    randomize_batch_norms(network)
    copy_weights(nn.ModuleList(list(network.children())[:7]), ours.backbone.model)  # up to the third level
    means, covariances, theirs = run_program(clone, network, ours.gaussians.channels)
    for images in Images("", "", is_train=True).images.split(8):
        ours.gaussians.update(ours.features({"image": images}))
    yield "covariances", ours.gaussians.covariance(), covariances.permute(2, 0, 1)
    ours.gaussians.finish()
    yield "means", ours.gaussians.mean, means.T
    maps = ours.anomaly_map({"image": Images("", "", is_train=False).images})
    scaled = (maps - maps.min()) / (maps.max() - maps.min())
    yield "map", scaled, theirs
    yield "image score", ours.image_scores({}, scaled), theirs.amax(dim=(1, 2))
