"""CutPaste (Li et al. 2021, arXiv 2104.04015): a network tells good images from two kinds of pasted ones.

Three classes: good, patch, scar. What the network has learned is used without its head: a Gaussian of the
embeddings of good images, and the distance to it. Departures: the backbone starts from its weights rather
than anew, images are not shifted, and the map is Grad-CAM of that distance rather than of the classifier, so that no
gradient is needed where images are inspected.

With `patch` it is the paper's model of patches (Sec. 2.4): the classes are told apart in squares of that size, one
Gaussian is that of all patches of good images, and the map is their distance, dense over the image.

An untrained backbone with the same Gaussian is a strong control (Runinho/pytorch-cutpaste, issue 6): each training
measures it first (`control`).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.cached_features import statistics_batches
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.base import add_scored, metrics_for
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.detectors.running_statistics import share_statistics
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.dense_patches import DensePatches
from uniad_lightning.models.gaussian import Gaussian
from uniad_lightning.models.initialization import check_counts
from uniad_lightning.models.projection_head import ProjectionHead
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size

KINDS = ("good", "patch", "scar")


class CutPasteDetector(BackboneFeatures):
    """A trained backbone, and a Gaussian of its features averaged over an image.

    The head has `num_layers` layers of `hidden_dim` and one of `projection_dim`. The anomaly map says what each cell
    adds to the squared Mahalanobis distance, and may be negative; the image score is the distance, the largest of an
    image's tiles. The Gaussian is fitted when the weights change no more, to all train images as they are.

    With `patch` the map is at each pixel the mean distance of the patches that cover it, `stride` pixels apart, those
    around it most; the image score is its maximum. The Gaussian is fitted to train patches half their side apart.
    """

    paper_name = "CutPaste"
    control: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        hidden_dim: int,
        num_layers: int,
        projection_dim: int,
        patch: int | None = None,
        stride: int = 4,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="mean", window=1), standardize=False, seed=seed)
        check_counts({"hidden_dim": hidden_dim, "projection_dim": projection_dim})
        check_counts({"num_layers": num_layers}, least=0)
        check_counts({"stride": stride} | ({} if patch is None else {"patch": patch}))
        if not backbone.trainable:
            raise InputError("backbone.trainable=false: CutPaste trains the backbone; give backbone.trainable=true")
        channels = sum(backbone.channels)
        self.head = ProjectionHead(
            channels=channels, hidden_dim=hidden_dim, num_layers=num_layers, projection_dim=projection_dim,
            num_classes=len(KINDS),
        )  # fmt: skip
        self.gaussian = Gaussian(channels=channels)
        self.register_buffer("control", torch.tensor(float("nan")))
        self.patches = None if patch is None else DensePatches(size=patch, stride=stride)
        self.optimizer, self.schedule = optimizer, schedule

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image, or a patch, of a size that does not fit."""
        super().check(image_size)
        if self.patches is not None:
            self.patches.check(image_size)
            try:
                self.backbone.check((self.patches.size, self.patches.size))
            except InputError as error:
                raise InputError(str(error).replace("data.image_size", "model.patch", 1)) from None

    def facts(self) -> dict[str, dict[str, float]]:
        """The image AUROC of the same Gaussian before the training, where there is one."""
        return {"untrained": {"image_auroc": float(self.control)}} if self.control.isfinite() else {}

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept; InputError where a training has no patches and scars to learn from."""
        data.cache.refuse("CutPaste trains the backbone, on images with synthetic defects")
        views = getattr(data.defects, "views", 0)
        if stage == "fit" and views != len(KINDS) - (self.patches is None):
            raise InputError(
                f"data.defects: makes {views} versions of an image; CutPaste learns from a patch and a scar; give "
                "data/defects=cutpaste"
            )

    def classified(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (3 B, 3) of a batch and its pasted versions, and their kinds (3 B,), an image's own three together.

        Of patches, of a square of each image and its versions.
        """
        images = batch["damaged"]  # (B, 2 or 3, 3, h, w)
        if self.patches is None:
            images = torch.cat([batch["image"][:, None], images], dim=1)  # (B, 3, 3, H, W)
        kinds = torch.arange(len(KINDS), device=images.device).expand(len(images), -1).flatten()
        return self.head(self._embedded(images.flatten(0, 1))).float(), kinds

    def _embedded(self, images: Tensor) -> Tensor:
        """The mean features (B, C) of images, or of patches, which are smaller than what `grid` belongs to."""
        if self.patches is None:
            return self.backbone(images).mean(dim=(2, 3))
        return torch.cat([level.mean(dim=(2, 3)) for level in self.backbone.pyramid(images)], dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The cross entropy of the kinds of image, all of a batch together."""
        logits, kinds = self.classified(batch)
        self.gaussian.fitted.fill_(False)  # a checkpoint from within the training has none of its weights
        accuracy = (logits.argmax(dim=1) == kinds).float().mean()
        loss = F.cross_entropy(logits, kinds)
        return report_loss(self, loss, batch_idx=batch_idx, images=len(batch["image"]), parts={"accuracy": accuracy})

    def on_train_start(self) -> None:
        """Measure the untrained backbone; a resumed training has that in its checkpoint."""
        if self.data.steps.done:
            return
        self.control.fill_(float("nan"))
        if {record.label for record in self.data.splits.test} == {0, 1}:
            self._fit_gaussian()
            self.control.fill_(self._image_auroc())
        self.gaussian.fitted.fill_(False)

    def on_train_end(self) -> None:
        """Fit the Gaussian to what the trained backbone makes of the train images."""
        self._fit_gaussian()

    def on_validation_epoch_start(self) -> None:
        """Fit it for an evaluation while training, too."""
        self._fit_gaussian()
        super().on_test_epoch_start()

    def on_test_epoch_start(self) -> None:
        """Refuse a detector without a Gaussian."""
        self._refuse_unfitted()
        super().on_test_epoch_start()

    def prepare(self) -> None:
        """Refuse a detector without a Gaussian."""
        self._refuse_unfitted()
        super().prepare()

    def _refuse_unfitted(self) -> None:
        if not self.gaussian.fitted:
            raise InputError(
                "ckpt_path: is from within a training of CutPaste, whose Gaussian is fitted at the end; give the last "
                "checkpoint, or continue the training from this one"
            )

    @torch.no_grad()
    def _fit_gaussian(self) -> None:
        """Fit to all train images; each process does so, with the batch norms' statistics of the first."""
        if self.trainer.world_size > 1:
            share_statistics(self)
        training = self.training
        self.eval()
        batches = statistics_batches(self.data, self.device, len(self.data.splits.train))
        self.gaussian.fit(torch.cat([self._good(batch) for batch in batches]))
        self.train(training)

    def _good(self, batch: Batch) -> Tensor:
        """The embeddings (n, C) of train images, or of their patches half a side apart, so that memory suffices."""
        if self.patches is None:
            return self.features(batch).mean(dim=(2, 3))
        rows = self.patches.rows(batch["image"], max(self.patches.size // 2, 1))
        return torch.cat([self._embedded(row.flatten(0, 1)) for row in rows])

    @torch.no_grad()
    def _image_auroc(self) -> float:
        """Mean image AUROC over the categories of the test split, with the weights as they are."""
        metrics = metrics_for(self.data).to(self.device)
        training = self.training
        self.eval()
        for batch in self.data.test_dataloader():
            if len(batch["index"]):
                batch = self.data.transfer_batch_to_device(batch, self.device, 0)
                output = self.inspect(batch, framing=self.data.framing, size=self.data.map_size)
                add_scored(metrics, output, batch)
        self.train(training)
        return metrics.compute().mean.image_auroc

    def anomaly_map(self, batch: Batch) -> Tensor:
        """What each cell adds to the squared distance, (B, h, w); its mean is the square of the score.

        Of patches their distance, spread over the image, (B, H, W), at least 0.
        """
        if self.patches is None:
            return self.gaussian.contributions(self.features(batch))
        scores = []
        for row in self.patches.rows(batch["image"]):  # (B, w, 3, p, p)
            embeddings = self._embedded(row.flatten(0, 1))[:, :, None, None]
            scores.append(self.gaussian(embeddings).unflatten(0, (-1, row.shape[1])))
        return self.patches.spread(torch.stack(scores, dim=1))

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The Mahalanobis distance (B,), the largest of an image's tiles; of patches the maximum of the map."""
        if self.patches is not None:
            return maps.flatten(1).amax(dim=1)
        return self.gaussian(self.features(batch)).unflatten(0, (maps.shape[0], -1)).amax(dim=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over backbone and head."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
