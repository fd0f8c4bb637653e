"""The weights in the checkpoint of a run, and an object that no checkpoint should hold."""

import torch


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


class Foreign:
    """An object whose making a file should not bring about."""
