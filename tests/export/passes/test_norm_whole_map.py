from __future__ import annotations

import pytest
from pass_cases import assert_exact, assert_left, build, ints, node, scalar

BODY = """
  flat = Reshape (x, one_channel)
  normed = InstanceNormalization <epsilon = 0.001> (flat, scale, shift)
  y = Reshape (normed, back)
"""
GIVEN = {"scale": scalar(1).reshape(1), "shift": scalar(0).reshape(1), "back": ints(-1, 4, 5, 6)}


def test_becomes_one_node() -> None:
    model = build("float[B,4,5,6] x", "float[B,4,5,6] y", BODY, one_channel=ints(0, 1, -1), **GIVEN)
    assert assert_exact("norm_whole_map", model, changes=1) == {"LayerNormalization": 1, "Reshape": 1}
    assert node(model, "LayerNormalization").attributes.get_float("epsilon") == pytest.approx(0.001)


def test_the_map_may_have_another_shape_before() -> None:
    model = build("float[B,4,30] x", "float[B,4,5,6] y", BODY, one_channel=ints(0, 1, -1), **GIVEN)
    assert assert_exact("norm_whole_map", model, changes=1) == {"LayerNormalization": 1, "Reshape": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"one_channel": ints(-1, 1, 60)},  # half a map at a time
        {"scale": scalar(2).reshape(1)},
        {"shift": scalar(2).reshape(1)},
        {"back": ints(0, 4, 5, 6)},
    ],
)
def test_another_norm_stays(other: dict) -> None:
    constants = {"one_channel": ints(0, 1, -1), **GIVEN, **other}
    assert_left("norm_whole_map", build("float[B,4,5,6] x", "float[B,4,5,6] y", BODY, **constants))


def test_a_norm_that_others_read_stays() -> None:
    outputs = "float[B,4,5,6] y, float[B,1,120] normed"
    assert_left("norm_whole_map", build("float[B,4,5,6] x", outputs, BODY, one_channel=ints(0, 1, -1), **GIVEN))


def test_a_large_map_stays() -> None:
    constants = {**GIVEN, "one_channel": ints(-1, 1, 2 << 20), "back": ints(-1, 2, 1 << 10, 1 << 10)}
    size = "float[B,2,1024,1024]"
    assert_left("norm_whole_map", build(f"{size} x", f"{size} y", BODY, **constants))
