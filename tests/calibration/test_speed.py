"""A frontier timed in OpenVINO: every graph, fp32 beside them, and what bf16 keeps."""

from __future__ import annotations

import calibration_cases as cases
import pytest

from cluinfer.calibration import speed
from cluinfer.calibration.frontier import Bounds, Frontier, Point
from cluinfer.engines import Options, get_engine
from cluinfer.timing import Plan


def test_every_graph_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(speed, "PLAN", Plan(warm_up=0.01, seconds=0.2, runs=5))
    graph, measure = cases.default("fec"), cases.measure("fec")
    point = Point("0 in float", (), 0.5, measure(graph), graph)
    steps: list[str] = []
    found = speed.time_frontier(
        Frontier(Bounds(), (point,), point),
        get_engine("openvino"),
        Options(threads=1),
        cases.subject("fec"),
        measure,
        steps.append,
    )
    assert found.engine == "openvino"
    assert found.points[0].latency is not None and found.points[0].latency.runs >= 5
    assert found.others[0].name == "fp32"
    assert found.others[0].kept.fidelity.overall.agreement == 1
    assert found.speedup is not None and found.verdict().startswith("int8 is ")
    assert steps[:2] == ["compiling for openvino, 0 in float", "compiling for openvino, fp32"]
