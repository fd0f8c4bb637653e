"""Memory is pinned for a trainer on a GPU alone, whatever the machine has."""

from types import SimpleNamespace

import pytest
import torch

from uniad_lightning.data.feature_cache import loader


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("cuda:1", True)])
def test_only_a_trainer_on_a_gpu_is_fed_from_pinned_memory(monkeypatch, device, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    assert loader.feeds_gpu(trainer) == expected
