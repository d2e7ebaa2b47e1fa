from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, node, normal

BODY = "c = Conv <pads = [1, 1, 1, 1]> (x, w, b)\na = Add (z, shift)\ny = Add (c, a)"


def given() -> dict[str, np.ndarray]:
    return {"w": normal(4, 4, 3, 3), "b": normal(4), "shift": normal(4, 1, 1)}


def test_into_the_bias_of_the_other_side() -> None:
    constants = given()
    model = build("float[B,4,5,6] x, float[B,4,5,6] z", "float[B,4,5,6] y", BODY, **constants)
    assert assert_exact("shift_into_sum", model, changes=1) == {"Conv": 1, "Add": 1}
    wanted = constants["b"] + constants["shift"].reshape(-1)
    np.testing.assert_allclose(array(node(model, "Conv").inputs[2]), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (BODY, "float[B,4,5,6] y, float[B,4,5,6] a"),
        (BODY, "float[B,4,5,6] y, float[B,4,5,6] c"),
        (BODY + "\nq = Relu (a)", "float[B,4,5,6] y, float[B,4,5,6] q"),
        ("c = Conv (x, w)\na = Add (z, shift)\ny = Mul (c, a)", "float[B,4,3,4] y"),
        ("a = Add (z, shift)\ny = Add (x, a)", "float[B,4,5,6] y"),
    ],
)
def test_others_stay(body: str, outputs: str) -> None:
    sizes = "float[B,4,3,4]" if "Mul" in body else "float[B,4,5,6]"
    assert_left("shift_into_sum", build(f"float[B,4,5,6] x, {sizes} z", outputs, body, **given()))


def test_a_side_that_broadcasts_stays() -> None:
    model = build("float[B,4,5,6] x, float[1,4,1,1] z", "float[B,4,5,6] y", BODY, **given())
    assert_left("shift_into_sum", model)
