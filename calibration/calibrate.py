"""From a float32 graph and images to one in int8 that keeps the clusters, and what it keeps, measured.

data.py       images, some of them held back          layers.py     what int8 could speed up, and its role
observe.py    what the layers read                    plan.py       which of them run in int8
scales.py     how that becomes int8                   quantize.py   the pairs in the graph
agreement.py  what is left of what the model saw      search.py     fewer layers, until enough is left
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from cluinfer.calibration.agreement import Kept, Measure
from cluinfer.calibration.data import Given
from cluinfer.calibration.frontier import Bounds, Frontier
from cluinfer.calibration.plan import Choice, plan
from cluinfer.calibration.search import search
from cluinfer.calibration.speed import time_frontier
from cluinfer.calibration.subject import Progress, Settings, Subject
from cluinfer.engines import Engine, Options
from cluinfer.errors import CalibrationError, CluinferWarning


@dataclass(frozen=True)
class Calibrated:
    """An int8 graph, and what is known of it."""

    graph: onnx.ModelProto
    choices: tuple[Choice, ...]
    kept: Kept  # on the images of `measured_on`, in ONNX Runtime
    settings: Settings
    calibrating: int  # images
    measured_on: str
    skipped: str = ""
    frontier: Frontier | None = None

    @property
    def int8_share(self) -> float:
        """Of the multiplications."""
        done = sum(choice.layer.macs for choice in self.choices if choice.int8)
        return done / max(sum(choice.layer.macs for choice in self.choices), 1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON and the manifest; the choices are in the graph."""
        return {
            "method": self.settings.method,
            "seed": self.settings.seed,
            "balance": self.settings.balance,
            "calibrating": self.calibrating,
            "skipped": self.skipped,
            "layers": len(self.choices),
            "int8_layers": sum(choice.int8 for choice in self.choices),
            "int8_share": self.int8_share,
            "measured_on": self.measured_on,
            "top1_drop": self.kept.top1_drop,
            **self.kept.fidelity.to_dict(),
            "search": self.frontier and self.frontier.to_dict(),
        }


def calibrate(
    graph: onnx.ModelProto,
    images: Sequence[Given],
    settings: Settings | None = None,
    *,
    bounds: Bounds | None = None,
    engine: Engine | None = None,
    options: Options | None = None,
    saved: Path | None = None,
    progress: Progress = lambda step: None,
) -> Calibrated:
    """The graph in int8, calibrated on these images (see data.py).

    By default the layers far from the clusters are in int8; with `bounds`, as many as keep them, and with an `engine`
    the search times what it finds. `saved`: the file of an interrupted run's state, to go on from; it is removed.
    """
    subject = Subject(graph, images, settings or Settings(), saved, progress)
    progress("running the float32 graph on images held back")
    held = subject.images
    apart = not held.shared and held.held_back.usable
    measure = Measure(graph, held.held_back if apart else held.calibrating)
    choices, frontier = plan(subject.layers, subject.usable, subject.settings.in_float), None
    if bounds is not None:
        frontier = search(subject, choices, bounds, measure, progress)
        if engine is not None:
            frontier = time_frontier(frontier, engine, options or Options(), subject, measure, progress)
        choices = frontier.choices(choices)
    if not any(choice.int8 for choice in choices):
        raise CalibrationError("no layer is left to run in int8; use the float32 graph as it is")
    made = subject.in_int8([choice.layer.name for choice in choices if choice.int8])
    progress("comparing int8 with the float32 graph")
    kept = measure(made)
    which = "images held back" if apart else "of the calibrating images, since none could be held back"
    if saved is not None:
        saved.unlink(missing_ok=True)
    if held.skipped():
        warnings.warn(held.skipped(), CluinferWarning, stacklevel=2)
    return Calibrated(
        graph=made,
        choices=tuple(choices),
        kept=kept,
        settings=subject.settings,
        calibrating=len(held.calibrating) - len(held.calibrating.skipped),
        measured_on=f"{kept.fidelity.images} {which}",
        skipped=held.skipped(),
        frontier=frontier and replace(frontier, points=tuple(replace(each, graph=None) for each in frontier.points)),
    )
