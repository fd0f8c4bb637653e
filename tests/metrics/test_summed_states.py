"""What `SummedStates` relies on in torchmetrics: where a release changes it, these tests name the part that broke."""

import inspect

import pytest
import torch
import torchmetrics
from torchmetrics import Metric

from uniad_lightning.metrics.summed_states import SummedStates

OVERRIDDEN = {
    "_copy_state_dict": ["self"],  # called by `sync`; copies each state
    "_sync_dist": ["self", "dist_sync_fn", "process_group"],  # called by `sync`; sums over the ranks
    "_apply": ["self", "fn", "exclude_state"],  # called by `to`, `half`, ...; moves the states
}


class Tally(SummedStates):
    def __init__(self):
        super().__init__()
        self.add_summed("bins", (2, 1000), torch.int64)
        self.add_summed("total", (3,), torch.float64)

    def update(self):
        self.bins[:, 5] += 1
        self.total += 0.1

    def compute(self):
        return self.bins.sum().item(), self.total.sum().item()


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_torchmetrics_still_has_what_is_overridden(name):
    method = getattr(Metric, name, None)
    where = f"torchmetrics {torchmetrics.__version__}: Metric.{name}, which SummedStates overrides,"
    assert method is not None, f"{where} is gone"
    found = list(inspect.signature(method).parameters)
    assert found == OVERRIDDEN[name], f"{where} takes {found}; expected {OVERRIDDEN[name]}"


@pytest.mark.parametrize("name", ["_defaults", "_is_synced"])
def test_torchmetrics_still_has_what_is_read(name):
    assert name in vars(Tally()), f"torchmetrics {torchmetrics.__version__}: Metric.{name}, read here, is gone"


def test_sync_takes_references_and_sums_by_the_overridden_methods(monkeypatch):
    calls = []
    monkeypatch.setattr(Tally, "_sync_dist", lambda self, *_, **__: calls.append("_sync_dist"))
    metric = Tally()
    metric.update()
    before = metric.bins
    assert not metric.is_synced
    metric.sync(distributed_available=lambda: True)
    assert calls == ["_sync_dist"], "Metric.sync does not call _sync_dist any more: whole states would be gathered"
    assert metric.is_synced, "Metric.sync does not set _is_synced any more"
    assert metric._cache["bins"] is before, "Metric.sync does not call _copy_state_dict: every state would be cloned"
    metric.unsync()
    assert not metric.is_synced
    assert metric.bins is before


def test_reset_takes_the_one_zero_as_default():
    metric = Tally()
    metric.update()
    stored = {name: default.untyped_storage().nbytes() for name, default in metric._defaults.items()}
    assert stored == {"bins": 8, "total": 8}, "a second copy of each state is kept: see SummedStates.add_summed"
    with torch.inference_mode():
        metric.reset()
    metric.update()  # would fail for states made in inference mode
    assert metric.compute() == (2, pytest.approx(0.3))
    assert metric.bins.untyped_storage().nbytes() == 8 * metric.bins.numel(), "states must not share one number"


def test_a_move_neither_casts_nor_loses_states():
    metric = Tally()
    metric.update()
    module = torch.nn.ModuleDict({"metric": metric}).to(torch.bfloat16).half().double()
    assert (metric.bins.dtype, metric.total.dtype) == (torch.int64, torch.float64), "see SummedStates._apply"
    assert metric.compute() == (2, 3 * 0.1)
    assert module.to("meta")["metric"].bins.is_meta, "states do not follow their module: see SummedStates._apply"
