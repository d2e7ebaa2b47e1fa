"""Runs timed so that the numbers can be believed: the loop and its statistics.

Rules:
- Warm-up goes by time: caches, clock rates and what is made lazily settle in seconds, not in runs.
- Then each model runs for 10 s or 200 times, whichever is reached first.
- Several models run in turns of a few runs, so that a busy moment of the machine hits all of them. The first run of a
  turn finds the caches full of another's weights: it is not counted.
- With n streams, n callers run at once; the time on the wall is kept beside the times of the single runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np

from cluinfer.errors import CluinferError

TURN = 4  # runs in a row, the first of them not counted
STREAMS_TURN = 0.5  # seconds of a turn where several callers run at once: what is lost at its ends must not show

Run = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How long to measure: each model warms up for `warm_up` seconds, then has its turns."""

    warm_up: float = 1.0
    seconds: float = 10.0
    runs: int = 200

    def __post_init__(self) -> None:
        if self.runs < 1 or not self.seconds > 0:
            raise CluinferError(
                f"a measurement of {self.runs} runs and {self.seconds} s: wanted one run or more, and some time"
            )


@dataclass(frozen=True)
class Statistics:
    """Of the runs of one model, in seconds."""

    runs: int
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    variation: float  # standard deviation over mean

    def to_dict(self) -> dict[str, float]:
        """For JSON: times in milliseconds."""
        held = asdict(self)
        return {name: held[name] * (1 if name in ("runs", "variation") else 1e3) for name in held}


def statistics(seconds: Sequence[float]) -> Statistics:
    """Of at least one run."""
    median, p90, p95, p99 = (float(q) for q in np.percentile(seconds, (50, 90, 95, 99)))
    mean = float(np.mean(seconds))
    variation = float(np.std(seconds)) / mean if mean else 0.0
    return Statistics(len(seconds), min(seconds), mean, median, p90, p95, p99, variation)


@dataclass
class Taken:
    """The counted runs of one model, and the time on the wall that they took together."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0


def take_turns(runs: Mapping[str, Run], plan: Plan, streams: int = 1) -> dict[str, Taken]:
    """Measure these models against each other: each run is of one call, `streams` of them at once."""
    lengths = {name: _warm_up(run, plan.warm_up, streams) for name, run in runs.items()}
    skip = 1 if len(runs) > 1 or streams > 1 else 0
    taken = {name: Taken() for name in runs}
    while any(len(each.seconds) < plan.runs and each.wall < plan.seconds for each in taken.values()):
        for name, run in runs.items():
            spans = _side_by_side(run, lengths[name], skip, streams)
            taken[name].seconds += [end - start for marks in spans for start, end in pairwise(marks)]
            taken[name].wall += max(marks[-1] for marks in spans) - min(marks[0] for marks in spans)
    return taken


def _side_by_side(run: Run, length: int, skip: int, streams: int) -> list[list[float]]:
    """A turn of each of so many callers at once."""
    if streams == 1:
        return [_turn(run, length, skip)]
    with ThreadPoolExecutor(streams) as pool:
        turns = [pool.submit(_turn, run, length, skip) for _ in range(streams)]
        return [turn.result() for turn in turns]


def _turn(run: Run, length: int, skip: int) -> list[float]:
    """The times around the counted runs: before the first, then after each."""
    for _ in range(skip):
        run()
    marks = [time.perf_counter()]
    for _ in range(length - skip):
        run()
        marks.append(time.perf_counter())
    return marks


def _warm_up(run: Run, seconds: float, streams: int) -> int:
    """Run for so long, three times at least; gives how many runs make a turn."""
    start, done = time.perf_counter(), 0
    while done < 3 or time.perf_counter() - start < seconds:
        run()
        done += 1
    if streams == 1:
        return TURN
    each = (time.perf_counter() - start) / done
    return 1 + max(TURN, math.ceil(STREAMS_TURN / max(each, 1e-6)))
