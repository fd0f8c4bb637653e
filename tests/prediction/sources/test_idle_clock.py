"""Watching ends when nothing comes, but not because the process itself was held up."""

import pytest

from uniad_lightning.prediction.sources import idle_clock
from uniad_lightning.prediction.sources.idle_clock import IdleClock


class Time:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(idle_clock.time, "monotonic", lambda: self.now)

    def looks(self, clock, *, seconds, every):
        found = []
        for _ in range(round(seconds / every)):
            self.now += every
            found.append(clock.is_over())
        return found


@pytest.fixture
def time(monkeypatch):
    return Time(monkeypatch)


def test_it_is_over_after_the_limit_and_starts_again(time):
    clock = IdleClock(2.0)
    found = time.looks(clock, seconds=3, every=0.25)
    assert found == [False] * 7 + [True] * 5
    clock.start_again()
    assert time.looks(clock, seconds=1.75, every=0.25) == [False] * 7


def test_a_pause_of_the_process_counts_for_a_second_at_most(time):
    clock = IdleClock(2.0)
    time.now += 600
    assert not clock.is_over()
    assert time.looks(clock, seconds=1, every=0.25)[-2:] == [False, True]


def test_without_a_limit_it_is_never_over(time):
    clock = IdleClock(None)
    assert not any(time.looks(clock, seconds=100, every=0.5))
