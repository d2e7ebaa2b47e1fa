from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, node, normal

BODY = """
  rows = Transpose <perm = [0, 2, 3, 1]> (x)
  product = MatMul (rows, w)
  biased = Add (product, b)
  y = Transpose <perm = [0, 3, 1, 2]> (biased)
"""


def test_becomes_a_pointwise_convolution() -> None:
    w, b = normal(8, 5), normal(5)
    model = build("float[B,8,6,7] x", "float[B,5,6,7] y", BODY, w=w, b=b)
    assert assert_exact("linear_to_conv", model, changes=1) == {"Conv": 1, "Transpose": 4}
    conv = node(model, "Conv")
    np.testing.assert_array_equal(array(conv.inputs[1])[:, :, 0, 0], w.T)
    np.testing.assert_array_equal(array(conv.inputs[2]), b)


def test_the_transposes_then_cancel() -> None:
    model = build("float[B,8,6,7] x", "float[B,5,6,7] y", BODY, w=normal(8, 5), b=normal(5))
    assert_exact("linear_to_conv", model, changes=1)
    assert assert_exact("merge_transposes", model, changes=2) == {"Conv": 1}


def test_on_rows_the_weight_moves_to_the_left() -> None:
    body = """
      rows = Transpose <perm = [0, 2, 1]> (x)
      product = MatMul (rows, w)
      biased = Add (b, product)
      y = Transpose <perm = [0, 2, 1]> (biased)
    """
    model = build("float[B,8,9] x", "float[B,5,9] y", body, w=normal(8, 5), b=normal(5))
    assert_exact("linear_to_conv", model, changes=1)
    assert assert_exact("merge_transposes", model, changes=2) == {"MatMul": 1, "Add": 1}


def test_without_bias_the_sum_after_it_stays() -> None:
    body = """
      rows = Transpose <perm = [0, 2, 3, 1]> (x)
      product = MatMul (rows, w)
      y = Add (product, z)
    """
    model = build("float[B,8,6,7] x, float[B,6,7,5] z", "float[B,6,7,5] y", body, w=normal(8, 5))
    assert assert_exact("linear_to_conv", model, changes=1) == {"Conv": 1, "Transpose": 3, "Add": 1}
    assert len(node(model, "Conv").inputs) == 2


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul (x, w)",  # channel-last from end to end
        "t = Transpose <perm = [0, 2, 1, 3]> (x)\ny = MatMul (t, w)",  # another order
        "t = Transpose <perm = [0, 2, 3, 1]> (x)\nv = Mul (w, s)\ny = MatMul (t, v)",  # a weight that is computed
        "t = Transpose <perm = [0, 2, 3, 1]> (x)\na = MatMul (t, w)\nc = MatMul (t, w)\ny = Add (a, c)",  # shared
    ],
)
def test_others_stay(body: str) -> None:
    inputs = "float[B,8,8,8] x, float[1] s" if "s)" in body else "float[B,8,8,8] x"
    assert_left("linear_to_conv", build(inputs, "float[B,8,8,8] y", body, w=normal(8, 8)))


def test_a_weight_of_a_graph_input_stays() -> None:
    body = "t = Transpose <perm = [0, 2, 3, 1]> (x)\ny = MatMul (t, w)"
    assert_left("linear_to_conv", build("float[B,8,6,7] x, float[8,5] w", "float[B,6,7,5] y", body))
