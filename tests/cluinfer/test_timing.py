"""Which runs are counted, in which order, and what is said of them. Nothing here depends on how fast the machine is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from cluinfer import timing
from cluinfer.timing import TURN, Plan, Taken, statistics, take_turns

FOREVER = float("inf")


def counted(plan: Plan, *names: str, streams: int = 1) -> tuple[str, dict[str, Taken]]:
    """What ran, in order, and what was counted."""
    calls: list[str] = []
    runs: dict[str, Callable[[], object]] = {name: partial(calls.append, name) for name in names}
    taken = take_turns(runs, plan, streams)
    return "".join(calls), taken


def test_several_take_turns_and_the_first_run_of_each_is_not_counted() -> None:
    calls, taken = counted(Plan(0, FOREVER, 2 * (TURN - 1)), "a", "b")
    assert calls == "aaabbb" + 2 * ("a" * TURN + "b" * TURN)
    assert [len(each.seconds) for each in taken.values()] == [2 * (TURN - 1)] * 2


def test_of_one_alone_every_run_is_counted() -> None:
    calls, taken = counted(Plan(0, FOREVER, 2 * TURN), "a")
    assert calls == "aaa" + "a" * 2 * TURN
    assert len(taken["a"].seconds) == 2 * TURN
    assert taken["a"].wall == pytest.approx(sum(taken["a"].seconds))


def test_time_ends_it_too_and_everyone_has_as_many_turns() -> None:
    calls, taken = counted(Plan(0, 1e-3, 1 << 30), "a", "b")
    assert calls.count("a") == calls.count("b")
    assert all(each.wall >= 1e-3 for each in taken.values())


def test_warm_up_goes_by_time() -> None:
    calls, taken = counted(Plan(0.01, FOREVER, TURN), "a")
    assert len(taken["a"].seconds) == TURN
    assert len(calls) > 3 + TURN


def test_streams_are_callers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run waits for another caller's: alone it would never end."""
    monkeypatch.setattr(timing, "STREAMS_TURN", 0.0)
    meeting = threading.Barrier(3, timeout=60)
    warm = 3

    def run() -> None:
        nonlocal warm
        if warm:
            warm -= 1
        else:
            meeting.wait()

    taken = take_turns({"a": run}, Plan(0, FOREVER, 1), streams=3)["a"]
    assert len(taken.seconds) % 3 == 0
    assert 0 < taken.wall < sum(taken.seconds)


def test_what_a_caller_raises_arrives() -> None:
    def fail() -> None:
        raise KeyError("gone")

    for streams in (1, 2):
        with pytest.raises(KeyError, match="gone"):
            take_turns({"a": fail}, Plan(), streams)


def test_statistics() -> None:
    held = statistics([i / 1000 for i in range(1, 102)])
    assert (held.runs, held.min, held.mean, held.median) == (101, 0.001, pytest.approx(0.051), pytest.approx(0.051))
    assert (held.p90, held.p95, held.p99) == (pytest.approx(0.091), pytest.approx(0.096), pytest.approx(0.1))
    assert held.variation == pytest.approx(np.std(range(1, 102)) / 51)
    assert held.to_dict() == pytest.approx(
        {"runs": 101, "min": 1, "mean": 51, "median": 51, "p90": 91, "p95": 96, "p99": 100, "variation": held.variation}
    )
    assert statistics([0.5]).variation == 0
