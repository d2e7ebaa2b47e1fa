from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal

OVER_BATCH = """
  batch = Shape <start = 0, end = 1> (x)
  target = Concat <axis = 0> (batch, rest)
  repeated = Expand (where, target)
  joined = Concat <axis = 1> (x, repeated)
"""


def given(kernel: int, bias: bool = True) -> dict[str, np.ndarray]:
    return {"where": normal(2, 9, 8), "rest": ints(2, 9, 8), "w": normal(6, 5, kernel, kernel)} | (
        {"b": normal(6)} if bias else {}
    )


@pytest.mark.parametrize(
    ("options", "kernel", "out"),
    [
        ("", 1, "9,8"),
        ("<strides = [4, 4]>", 4, "2,2"),
        ("<pads = [1, 1, 1, 1]>", 3, "9,8"),  # the cifar stem
        ("<pads = [0, 1, 2, 3], strides = [2, 1], dilations = [2, 3]>", 2, "5,9"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_become_a_map(options: str, kernel: int, out: str, bias: bool) -> None:
    body = f"{OVER_BATCH}\ny = Conv {options} (joined, w{', b' if bias else ''})"
    model = build("float[B,3,9,8] x", f"float[B,6,{out}] y", body, **given(kernel, bias))
    assert assert_exact("fold_coordinates", model, changes=1) == {"Conv": 1, "Add": 1}
    conv, total = node(model, "Conv"), node(model, "Add")
    assert array(conv.inputs[1]).shape == (6, 3, kernel, kernel) and len(conv.inputs) == 2
    assert array(total.inputs[1]).shape == (1, 6, *map(int, out.split(",")))


def test_between_two_images_for_two_convolutions() -> None:
    body = "j = Concat <axis = 1> (x, where, z)\na = Conv (j, w)\nc = Conv (j, u, b)\ny = Add (a, c)"
    constants = {"where": normal(2, 2, 9, 8)[:1], "w": normal(6, 6, 1, 1), "u": normal(6, 6, 1, 1), "b": normal(6)}
    model = build("float[1,3,9,8] x, float[1,1,9,8] z", "float[1,6,9,8] y", body, **constants)
    assert assert_exact("fold_coordinates", model, changes=1) == {"Concat": 1, "Conv": 2, "Add": 3}


@pytest.mark.parametrize(
    ("after", "outputs"),
    [
        ("y = Conv <group = 5> (joined, w5)", "float[B,5,9,8] y"),
        ('y = Conv <auto_pad = "SAME_UPPER"> (joined, w3)', "float[B,6,9,8] y"),
        ("y = Conv (joined, v)", "float[B,6,9,8] y"),  # a weight that is no constant
        ("a = Conv (joined, w)\ny = Relu (joined)", "float[B,5,9,8] y, float[B,6,9,8] a"),  # another reader
        ("y = Conv (joined, w)", "float[B,6,9,8] y, float[B,5,9,8] joined"),  # a graph output
    ],
)
def test_other_readers_stay(after: str, outputs: str) -> None:
    constants = {**given(1), "w5": normal(5, 1, 1, 1), "w3": normal(6, 5, 3, 3)}
    model = build("float[B,3,9,8] x, float[6,5,1,1] v", outputs, OVER_BATCH + after, **constants)
    assert_left("fold_coordinates", model)


@pytest.mark.parametrize("axis", [2, 3])
def test_other_axes_stay(axis: int) -> None:
    sides = [9, 8]
    sides[axis - 2] *= 2
    body = f"j = Concat <axis = {axis}> (x, where)\ny = Conv (j, w)"
    size = ",".join(map(str, sides))
    model = build("float[1,3,9,8] x", f"float[1,6,{size}] y", body, where=normal(1, 3, 9, 8), w=normal(6, 3, 1, 1))
    assert_left("fold_coordinates", model)


def test_maps_that_differ_between_images_stay() -> None:
    body = "j = Concat <axis = 1> (x, where)\ny = Conv (j, w)"
    model = build("float[2,3,9,8] x", "float[2,6,9,8] y", body, where=normal(2, 2, 9, 8), w=normal(6, 5, 1, 1))
    assert_left("fold_coordinates", model)


def test_a_size_that_varies_stays() -> None:
    body = "e = Expand (where, target)\nj = Concat <axis = 1> (x, e)\ny = Conv (j, w)"
    inputs = "float[B,3,H,W] x, int64[4] target"
    assert_left(
        "fold_coordinates", build(inputs, "float[B,6,H,W] y", body, where=normal(2, 1, 1), w=normal(6, 5, 1, 1))
    )
