"""The search for what to leave in float: within the bounds, and no more than they want."""

from __future__ import annotations

import calibration_cases as cases
import pytest

from cluinfer.calibration.frontier import Bounds, Frontier
from cluinfer.calibration.plan import plan
from cluinfer.calibration.search import rank, search
from cluinfer.errors import CalibrationError


def silent(step: str) -> None:
    """Says nothing."""


def found(family: str, bounds: Bounds, *in_float: str) -> Frontier:
    those = cases.subject(family)
    return search(those, plan(those.layers, those.usable, in_float), bounds, cases.measure(family), silent)


def test_the_bounds_are_reached_with_as_little_in_float_as_was_measured() -> None:
    everything = found("fec", Bounds(0, 1))
    assert everything.taken.in_float == ()
    least = everything.taken.kept.fidelity.overall.agreement
    assert least < 1
    bounds = Bounds((1 + least) / 2, 1)
    some = found("fec", bounds)
    assert bounds.hold(some.taken.kept)
    assert len(some.taken.in_float) > 0
    before = [point for point in some.points if len(point.in_float) == len(some.taken.in_float) - 1]
    assert len(before) == 1 and not bounds.hold(before[0].kept)
    shares = [point.int8_share for point in some.points]
    assert shares == sorted(shares, reverse=True)
    assert len(some.points) < 10  # not each of them


def test_bounds_that_no_layer_keeps() -> None:
    with pytest.raises(CalibrationError, match=r"no layer can run in int8 within the bounds .*: one alone keeps"):
        found("fec", Bounds(1, 0), "network.[12]*", "network.0.0.mlp.*", "network.0.0.token_mixer.proj")  # leaves f


def test_nothing_to_search_in() -> None:
    with pytest.raises(CalibrationError) as error:
        found("fec", Bounds(), "*")
    assert str(error.value) == "the graph has no layer that int8 could speed up; use it in float32, bf16 or fp16"


def test_the_dearest_layers_come_first() -> None:
    those = cases.subject("fec")
    candidates = [choice.layer for choice in plan(those.layers, those.usable) if choice.searchable]
    ranked = rank(those, candidates, silent)
    assert sorted(layer.name for layer in ranked) == sorted(layer.name for layer in candidates)
    assert [layer.name for layer in rank(those, candidates[::-1], silent)][:3] == [layer.name for layer in ranked][:3]
    last = [layer.name for layer in candidates if layer.name.startswith("network.2.1.mlp")]  # after the last clustering
    assert {layer.name for layer in ranked[-2:]} == set(last)
