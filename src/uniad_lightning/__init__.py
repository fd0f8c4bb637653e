"""One model that finds defects on every product: UniAD in PyTorch Lightning, composed by Hydra."""

__version__ = "0.1.0"
