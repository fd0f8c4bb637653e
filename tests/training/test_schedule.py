"""Learning rates over a whole training, for every fraction that may be given."""

import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.training.schedules import drop_after, warm_up_and_decay


def rates(build, steps):
    """The learning rate of each of `steps` steps, and the scheduler after them."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build(optimizer)
    used = []
    for _ in range(steps):
        used.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return used, schedule


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 100])
@pytest.mark.parametrize("fraction", [1e-6, 0.05, 0.1, 0.3, 0.49, 0.5, 0.8, 0.999, 1, 1.0])
def test_the_rate_drops_once_after_the_fraction(fraction, steps):
    used, _ = rates(lambda opt: drop_after(opt, total_steps=steps, fraction=fraction, gamma=0.1), steps)
    before = max(1, round(fraction * steps))
    assert used == pytest.approx([1.0] * before + [0.1] * (steps - before))


@pytest.mark.parametrize("steps", [2, 7, 10, 20, 100])
@pytest.mark.parametrize("fraction", [1e-6, 0.05, 0.1, 0.3, 0.5, 0.999, 1, 1.0])
def test_the_rate_warms_up_and_decays_for_any_fraction(fraction, steps):
    used, _ = rates(lambda opt: warm_up_and_decay(opt, total_steps=steps, fraction=fraction), steps)
    assert max(used) <= 1 + 1e-9
    assert min(used) >= 0
    top = used.index(max(used))
    assert top == pytest.approx(fraction * steps - 1, abs=1)
    assert used[:top] == sorted(used[:top])
    assert used[top:] == sorted(used[top:], reverse=True)
    if fraction * steps < steps - 1:
        assert used[-1] < 1e-4


@pytest.mark.parametrize("build", [warm_up_and_decay, drop_after])
@pytest.mark.parametrize("fraction", [0, -0.1, 1.0001, 30, "0.3", None, True, float("nan"), [0.3]])
def test_another_fraction_is_refused(build, fraction):
    more = {"gamma": 0.1} if build is drop_after else {}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InputError, match=r"schedule\.fraction=.*above 0 and at most 1"):
        build(optimizer, total_steps=10, fraction=fraction, **more)


@pytest.mark.parametrize("gamma", [-0.1, "x", None, True, float("nan")])
def test_a_factor_that_is_none_is_refused(gamma):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(InputError, match=r"schedule\.gamma="):
        drop_after(optimizer, total_steps=10, fraction=0.8, gamma=gamma)


def test_a_schedule_goes_on_from_its_state_and_from_that_of_an_earlier_version(tmp_path):
    def build(optimizer):
        return drop_after(optimizer, total_steps=10, fraction=0.8, gamma=0.1)

    def earlier(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=8, gamma=0.1)

    for first in (build, earlier):
        used, schedule = rates(first, 5)
        torch.save(schedule.state_dict(), tmp_path / "state.pt")
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        again = build(optimizer)
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for _ in range(5):
            used.append(again.get_last_lr()[0])
            optimizer.step()
            again.step()
        assert used == pytest.approx([1.0] * 8 + [0.1] * 2)
