from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, node, normal


@pytest.mark.parametrize("group", [1, 2])
def test_into_weight_and_bias(group: int) -> None:
    w, b, s = normal(6, 4 // group, 3, 3), normal(6), normal(6, 1, 1)
    body = f"c = Conv <group = {group}, pads = [1, 1, 1, 1]> (x, w, b)\ny = Mul (s, c)"
    model = build("float[B,4,5,6] x", "float[B,6,5,6] y", body, w=w, b=b, s=s)
    assert assert_exact("fold_layer_scale", model, changes=1) == {"Conv": 1}
    np.testing.assert_allclose(array(node(model, "Conv").inputs[1]), w * s[..., None], rtol=1e-6)
    np.testing.assert_allclose(array(node(model, "Conv").inputs[2]), b * s[:, 0, 0], rtol=1e-6)


def test_without_bias() -> None:
    model = build(
        "float[B,4,5,6] x",
        "float[B,6,5,6] y",
        "c = Conv (x, w)\ny = Mul (c, s)",
        w=normal(6, 4, 1, 1),
        s=normal(6, 1, 1),
    )
    assert assert_exact("fold_layer_scale", model, changes=1) == {"Conv": 1}
    assert len(node(model, "Conv").inputs) == 2


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Conv (x, w)\nd = Mul (c, s)\ny = Add (c, d)", "float[B,4,5,6] y"),  # another reader
        ("c = Conv (x, w)\ny = Mul (c, s)", "float[B,4,5,6] y, float[B,4,5,6] c"),  # a graph output
        ("c = Conv (x, w)\ny = Mul (c, z)", "float[B,4,5,6] y"),  # not a constant
        ("c = Conv (x, w)\ny = Mul (c, t)", "float[B,4,5,6] y"),  # not one number a channel
        ("c = Conv (x, v)\ny = Mul (c, s)", "float[B,4,5,6] y"),
        ("c = Conv (x, w)\ne = Conv (z, w)\nd = Mul (c, s)\ny = Add (e, d)", "float[B,4,5,6] y"),  # a shared weight
        ("c = Relu (x)\ny = Mul (c, s)", "float[B,4,5,6] y"),
    ],
)
def test_others_stay(body: str, outputs: str) -> None:
    inputs = "float[B,4,5,6] x, float[B,4,5,6] z, float[4,4,1,1] v"
    model = build(inputs, outputs, body, w=normal(4, 4, 1, 1), s=normal(4, 1, 1), t=normal(4, 1, 6))
    assert_left("fold_layer_scale", model)
