"""What the search found: within which bounds, as a table, a picture and a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import calibration_cases as cases
import numpy as np
import pytest
from PIL import Image

from cluinfer.calibration.agreement import Kept
from cluinfer.calibration.frontier import TOO_MUCH, WITHIN, Bounds, Frontier, Point
from cluinfer.calibration.plan import plan
from cluinfer.errors import CalibrationError
from cluinfer.fidelity import compare
from cluinfer.timing import statistics


def kept(same: int = 100, drop: float | None = 0.0) -> Kept:
    """Of a hundred points so many are in the same cluster."""
    ids = np.zeros((1, 1, 10, 10), np.int32)
    other = ids.copy()
    other.reshape(-1)[same:] = 1
    both = {"logits": np.eye(1, 3, dtype=np.float32)}
    return Kept(compare({**both, "clusters/a": ids}, {**both, "clusters/a": other}), drop)


def point(name: str, same: int, milliseconds: float | None, *in_float: str) -> Point:
    latency = None if milliseconds is None else statistics([milliseconds / 1e3])
    return Point(name, in_float, 0.5, kept(same), latency=latency)


def frontier(int8: float | None, fp32: float | None = 10, bf16: float | None = None) -> Frontier:
    points = (point("0 in float", 95, int8), point("3 in float", 99, int8, "network.0.0.mlp.fc1"))
    others = [point("fp32", 100, fp32)] if fp32 else []
    others += [point("bf16", 97, bf16)] if bf16 else []
    return Frontier(Bounds(0.98), points, points[1], "openvino" if int8 else "", tuple(others))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (frontier(None, None), ""),
        (frontier(5), "int8 is 2.00 times as fast as fp32 in openvino here"),
        (
            frontier(10, 10, 4),
            "int8 is 1.00 times as fast as fp32 in openvino here: it does not pay on this machine; "
            "bf16 is 2.50 times as fast and keeps 97 % of the points: use that",
        ),
        (
            frontier(20, 10, 9.9),
            "int8 is 0.50 times as fast as fp32 in openvino here: it does not pay on this machine, "
            "nor does another precision; use fp32",
        ),
        (
            frontier(20),
            "int8 is 0.50 times as fast as fp32 in openvino here: it does not pay on this machine, "
            "nor does another precision; use fp32",
        ),
    ],
)
def test_the_verdict(found: Frontier, verdict: str) -> None:
    assert found.verdict() == verdict


def test_the_table() -> None:
    header, rows = frontier(5, 10, 4).table()
    assert header == ("layers", "work in int8", "median ms", "points same", "of clear ones", "top-1 same", "")
    assert rows[0] == ("0 in float", "50 %", "5.00", "95 %", "", "1 of 1", "")
    assert rows[1][-1] == "taken"
    assert [row[0] for row in rows] == ["0 in float", "3 in float", "fp32", "bf16"]
    assert frontier(None, None).table()[1][0][2] == ""


def test_as_json() -> None:
    told = json.loads(json.dumps(frontier(5).to_dict()))
    assert (told["taken"], told["min_agreement"], told["engine"]) == ("3 in float", 0.98, "openvino")
    assert [each["name"] for each in told["points"]] == ["0 in float", "3 in float", "fp32"]
    assert told["points"][0]["latency_ms"]["median"] == pytest.approx(5)
    assert told["points"][1]["in_float"] == ["network.0.0.mlp.fc1"]


@pytest.mark.parametrize("found", [frontier(5), frontier(None, None)])
def test_the_plot_is_a_picture(tmp_path: Path, found: Frontier) -> None:
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "found.png")
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.format == "PNG"
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x44, 0x77, 0xAA), (0xCC, 0x66, 0x77)} <= colours  # those that were not taken, and the one that was


def test_what_becomes_of_each_layer() -> None:
    those = cases.subject("fec")
    default = plan(those.layers, those.usable, ["network.2.*"])
    for before, after in zip(default, frontier(5).choices(default), strict=True):
        if not before.searchable:
            assert after == before
        elif after.layer.name == "network.0.0.mlp.fc1":
            assert (after.int8, after.reason) == (False, TOO_MUCH)
        else:
            assert (after.int8, after.reason) == (True, WITHIN)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), 98])
def test_bounds_are_shares(value: float) -> None:
    with pytest.raises(CalibrationError, match="wanted a share from 0 to 1"):
        Bounds(min_agreement=value)
    with pytest.raises(CalibrationError, match=r"max top-1 drop .*: wanted a share from 0 to 1"):
        Bounds(max_top1_drop=value)


def test_what_bounds_hold() -> None:
    bounds = Bounds(0.95, 0.01)
    assert bounds.hold(kept(95, 0.01))
    assert bounds.hold(kept(95, None))
    assert not bounds.hold(kept(94))
    assert not bounds.hold(kept(100, 0.011))
