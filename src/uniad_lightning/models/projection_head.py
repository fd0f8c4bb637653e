"""The head between embeddings and classes of CutPaste (Li et al. 2021), which inspection leaves out."""

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Embeddings (B, C) -> logits (B, num_classes).

    `num_layers` linear layers of `hidden_dim` and one of `projection_dim`, each without bias, with batch norm and
    ReLU; then a linear one. With C = 512 and the paper's sizes there are 2,434,691 parameters.
    """

    def __init__(self, *, channels: int, hidden_dim: int, num_layers: int, projection_dim: int, num_classes: int):
        super().__init__()
        widths = [channels, *[hidden_dim] * num_layers, projection_dim]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(projection_dim, num_classes))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, C) -> (B, num_classes)."""
        return self.layers(embeddings)
