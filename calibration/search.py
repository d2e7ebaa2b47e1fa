"""The search for the layers to leave in float: as many in int8 as bounds on what is lost allow.

1. Each layer that int8 could speed up is put into int8 alone, and the points counted that change their cluster, on some
   of the calibrating images.
2. The layers go back to float in order of the points that each moves for the work that it saves: the dearest first.
3. That makes a row of graphs from all in int8 to none. Some of them, STEPS apart, are measured on the images held back,
   then those between the last that keeps too little and the first that keeps enough, by halving.
4. Of those that keep enough, the one with the most work in int8 is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluinfer.calibration.agreement import Kept, Measure
from cluinfer.calibration.frontier import Bounds, Frontier, Point
from cluinfer.calibration.layers import Layer
from cluinfer.calibration.plan import Choice
from cluinfer.calibration.subject import Progress, Subject
from cluinfer.errors import CalibrationError
from cluinfer.fidelity import percent

PROBED = 8  # images that single layers are tried on
STEPS = 4  # parts that the row is cut into at first


def search(
    subject: Subject, choices: Sequence[Choice], bounds: Bounds, measure: Measure, progress: Progress
) -> Frontier:
    """The frontier, as far as it was measured, and the graph within the bounds."""
    candidates = [choice.layer for choice in choices if choice.searchable]
    row = _Row(subject, rank(subject, candidates, progress), measure, progress)
    least = _least(row, bounds)
    return Frontier(bounds, tuple(row.measured()), row.at(least))


def rank(subject: Subject, candidates: Sequence[Layer], progress: Progress) -> list[Layer]:
    """The layers, those first that move the most points for the work that they save."""
    measure = Measure(subject.graph, subject.images.calibrating, PROBED)
    cost: dict[str, float] = {}
    for done, layer in enumerate(candidates):
        progress(f"trying single layers in int8, {done + 1} of {len(candidates)}")
        cost[layer.name] = _lost(measure(subject.in_int8([layer.name]))) / max(layer.macs, 1)
    return sorted(candidates, key=lambda layer: -cost[layer.name])


def _lost(kept: Kept) -> float:
    """Points that moved; of a model without clusters, how far its numbers are off."""
    overall = kept.fidelity.overall
    if kept.fidelity.maps:
        return overall.points - overall.same
    return max((each.mean_error for each in kept.fidelity.numbers.values()), default=0.0)


class _Row:
    """The graphs with the first k of the ranked layers in float, each measured when it is first asked for."""

    def __init__(self, subject: Subject, ranked: Sequence[Layer], measure: Measure, progress: Progress) -> None:
        self._subject, self._ranked, self._measure, self._progress = subject, ranked, measure, progress
        self._macs = max(sum(layer.macs for layer in subject.layers), 1)
        self._made: dict[int, Point] = {}
        self.end = len(ranked)  # none in int8: what keeps everything

    def at(self, k: int) -> Point:
        """With k layers in float."""
        if k not in self._made:
            self._progress(f"measuring with {k} of {self.end} layers in float")
            floats, rest = self._ranked[:k], self._ranked[k:]
            graph = self._subject.in_int8([layer.name for layer in rest])
            share = sum(layer.macs for layer in rest) / self._macs
            names = tuple(layer.name for layer in floats)
            self._made[k] = Point(f"{k} in float", names, share, self._measure(graph), graph)
        return self._made[k]

    def measured(self) -> list[Point]:
        """All in int8 first."""
        return [self._made[k] for k in sorted(self._made)]


def _least(row: _Row, bounds: Bounds) -> int:
    """The least number of layers in float that keeps enough, as far as more of them keep more."""
    marks = sorted({round(row.end * step / STEPS) for step in range(STEPS)} - {row.end})
    enough = [k for k in marks if bounds.hold(row.at(k).kept)]
    good = min(enough, default=row.end)
    bad = max((k for k in marks if k < good), default=-1)
    while good - bad > 1:
        middle = (good + bad) // 2
        if bounds.hold(row.at(middle).kept):
            good = middle
        else:
            bad = middle
    if not row.end:
        raise CalibrationError("the graph has no layer that int8 could speed up; use it in float32, bf16 or fp16")
    if good == row.end:
        best = row.at(row.end - 1).kept.fidelity.overall.agreement
        raise CalibrationError(
            f"no layer can run in int8 within the bounds ({bounds}): one alone keeps {percent(best)} of the points; "
            "loosen them, or build with bf16 or fp16"
        )
    return good
