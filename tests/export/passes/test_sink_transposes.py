from __future__ import annotations

import pytest
from pass_cases import assert_exact, assert_left, build, node, normal, scalar

GELU = """
  t = Transpose <perm = [0, 2, 3, 1]> (x)
  scaled = Div (t, root)
  erf = Erf (scaled)
  shifted = Add (erf, one)
  halved = Mul (half, shifted)
  gelu = Mul (t, halved)
"""
NUMBERS = {"root": scalar(2**0.5), "one": scalar(1), "half": scalar(0.5)}


def test_gelu_is_worked_before_the_transpose() -> None:
    model = build("float[B,4,5,6] x", "float[B,5,6,3] y", GELU + "y = MatMul (gelu, w)", w=normal(4, 3), **NUMBERS)
    counts = assert_exact("sink_transposes", model, changes=1)
    assert counts == {"Transpose": 1, "Div": 1, "Erf": 1, "Add": 1, "Mul": 2, "MatMul": 1}
    moved = node(model, "MatMul").inputs[0]
    assert moved is not None and moved.producer() is node(model, "Transpose")


def test_towards_a_transpose_that_undoes_it() -> None:
    body = GELU + "y = Transpose <perm = [0, 3, 1, 2]> (gelu)"
    model = build("float[B,4,5,6] x", "float[B,4,5,6] y", body, **NUMBERS)
    assert_exact("sink_transposes", model, changes=1)
    assert "Transpose" not in assert_exact("merge_transposes", model, changes=1)


@pytest.mark.parametrize(
    "after",
    [
        "y = Softmax (gelu)",  # nothing to gain
        "y = Add (gelu, z)",  # the other side has no such Transpose
        "b = Mul (gelu, c)\ny = Transpose <perm = [0, 1, 2, 3]> (b)",  # one number a channel, not one for all
        "p = MatMul (gelu, w)\nq = MatMul (halved, w)\ny = Add (p, q)",  # two values leave
        "y = MatMul (gelu, v)",  # a weight that is computed
    ],
)
def test_stays_elsewhere(after: str) -> None:
    inputs = "float[B,4,5,6] x, float[B,5,6,4] z, float[4,4] v"
    assert_left(
        "sink_transposes", build(inputs, "float[B,5,6,4] y", GELU + after, c=normal(4), w=normal(4, 4), **NUMBERS)
    )


def test_a_graph_output_between_stays() -> None:
    body = "t = Transpose <perm = [0, 2, 1]> (x)\nz = Relu (t)\ny = Transpose <perm = [0, 2, 1]> (z)"
    assert_left("sink_transposes", build("float[B,4,5] x", "float[B,4,5] y, float[B,5,4] z", body))
