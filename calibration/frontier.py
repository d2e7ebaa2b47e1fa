"""What the search finds: graphs from all layers in int8 to few, what each keeps and how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from cluinfer.calibration.agreement import Kept
from cluinfer.calibration.plan import Choice
from cluinfer.errors import CalibrationError
from cluinfer.fidelity import percent
from cluinfer.timing import Statistics

TOO_MUCH = "moves too many points for the work that it saves"
WITHIN = "within the bounds"
WORTH = 1.05  # times faster than fp32, below which another precision does not pay


@dataclass(frozen=True)
class Bounds:
    """What an int8 graph must keep, of what the float32 graph gives for the images held back."""

    min_agreement: float = 0.98  # of the points of all clusterings together
    max_top1_drop: float = 0.005  # see agreement.Kept

    def __post_init__(self) -> None:
        for name, value in (("min agreement", self.min_agreement), ("max top-1 drop", self.max_top1_drop)):
            if not 0 <= value <= 1:
                raise CalibrationError(f"{name} {value}: wanted a share from 0 to 1")

    def __str__(self) -> str:
        return f"{percent(self.min_agreement)} of the points, top-1 down by at most {100 * self.max_top1_drop:.2f} %"

    def hold(self, kept: Kept) -> bool:
        """Whether this is enough."""
        drop = kept.top1_drop or 0.0
        return kept.fidelity.overall.agreement >= self.min_agreement and drop <= self.max_top1_drop


@dataclass(frozen=True)
class Point:
    """One graph, or another precision beside them."""

    name: str
    in_float: tuple[str, ...]  # of the layers that int8 could speed up
    int8_share: float  # of the multiplications
    kept: Kept
    graph: onnx.ModelProto | None = None
    latency: Statistics | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        overall = self.kept.fidelity.overall
        return {
            "name": self.name,
            "in_float": list(self.in_float),
            "int8_share": self.int8_share,
            "agreement": overall.agreement,
            "clear_agreement": overall.clear_agreement,
            "top1_same": self.kept.fidelity.top1_same,
            "top1_drop": self.kept.top1_drop,
            "images": self.kept.fidelity.images,
            "latency_ms": self.latency and self.latency.to_dict(),
        }


@dataclass(frozen=True)
class Frontier:
    """The graphs, all in int8 first; which one was taken; what they are compared with."""

    bounds: Bounds
    points: tuple[Point, ...]
    taken: Point
    engine: str = ""  # that timed them; empty for none
    others: tuple[Point, ...] = ()  # fp32, bf16

    def choices(self, default: Sequence[Choice]) -> list[Choice]:
        """What becomes of each layer: the search decides about those that int8 could speed up."""
        floats = set(self.taken.in_float)
        return [
            choice
            if not choice.searchable
            else replace(choice, int8=choice.layer.name not in floats, reason=self._reason(choice, floats))
            for choice in default
        ]

    @staticmethod
    def _reason(choice: Choice, floats: set[str]) -> str:
        return TOO_MUCH if choice.layer.name in floats else WITHIN

    @property
    def speedup(self) -> float | None:
        """Of the graph that was taken, over fp32; None where it was not timed."""
        mine = next((each.latency for each in self.points if each.name == self.taken.name), None)
        plain = next((each.latency for each in self.others if each.name == "fp32"), None)
        return plain.median / mine.median if mine and plain else None

    def verdict(self) -> str:
        """Whether int8 pays here, and what does otherwise; empty where nothing was timed."""
        if self.speedup is None:
            return ""
        said = f"int8 is {self.speedup:.2f} times as fast as fp32 in {self.engine} here"
        if self.speedup >= WORTH:
            return said
        plain = next(each for each in self.others if each.name == "fp32")
        best = min(self.others, key=lambda each: each.latency.median if each.latency else float("inf"))
        assert best.latency is not None and plain.latency is not None
        if best.name == "fp32" or best.latency.median * WORTH > plain.latency.median:
            return f"{said}: it does not pay on this machine, nor does another precision; use fp32"
        kept = best.kept.fidelity
        points = f" and keeps {percent(kept.overall.agreement)} of the points" if kept.maps else ""
        times = plain.latency.median / best.latency.median
        return f"{said}: it does not pay on this machine; {best.name} is {times:.2f} times as fast{points}: use that"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """A header, and a row for each point."""
        rows: list[tuple[str, ...]] = []
        for each in (*self.points, *self.others):
            overall, fidelity = each.kept.fidelity.overall, each.kept.fidelity
            clear = overall.clear_agreement if fidelity.maps else None
            rows.append(
                (
                    each.name,
                    percent(each.int8_share),
                    f"{each.latency.median * 1e3:.2f}" if each.latency else "",
                    percent(overall.agreement) if fidelity.maps else "",
                    percent(clear) if clear is not None else "",
                    "" if fidelity.top1_same is None else f"{fidelity.top1_same} of {fidelity.images}",
                    "taken" if each.name == self.taken.name else "",
                )
            )
        return ("layers", "work in int8", "median ms", "points same", "of clear ones", "top-1 same", ""), rows

    def plot(self, path: str | Path) -> None:
        """Speed against agreement; where nothing was timed, the work in int8."""
        from cluinfer.plot import draw_dots

        timed = any(each.latency for each in self.points)
        dots = [
            _dot(each, each.name == self.taken.name)
            for each in (*self.points, *self.others)
            if timed <= bool(each.latency)
        ]
        spread = "thin lines: from the least to the 95th percentile"
        across = f"median latency in {self.engine}, ms ({spread})" if timed else "work in int8, %"
        draw_dots(path, dots, across, "points in the same cluster, %", level=self.bounds.min_agreement * 100)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "min_agreement": self.bounds.min_agreement,
            "max_top1_drop": self.bounds.max_top1_drop,
            "engine": self.engine,
            "taken": self.taken.name,
            "points": [each.to_dict() for each in (*self.points, *self.others)],
            "verdict": self.verdict(),
        }


def _dot(point: Point, taken: bool) -> Any:
    """As plot.draw_dots takes it."""
    from cluinfer.plot import Dot

    share = point.int8_share * 100
    across = [share] * 3
    if point.latency:
        across = [seconds * 1e3 for seconds in (point.latency.median, point.latency.min, point.latency.p95)]
    return Dot(point.name, across[0], point.kept.fidelity.overall.agreement * 100, across[1], across[2], taken)
