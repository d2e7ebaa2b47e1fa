from __future__ import annotations

import numpy as np
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal


def test_coordinates_are_stacked_at_export() -> None:
    a, b = normal(64, 64), normal(64, 64)
    body = "p = Unsqueeze (a, axes)\nq = Unsqueeze (b, axes)\npq = Concat <axis = 0> (p, q)\ny = Add (x, pq)"
    model = build("float[B,2,64,64] x", "float[B,2,64,64] y", body, a=a, b=b, axes=ints(0))
    assert assert_exact("fold_constants", model, changes=3) == {"Add": 1}
    np.testing.assert_array_equal(array(node(model, "Add").inputs[1]), np.stack([a, b]))


def test_what_depends_on_the_input_stays() -> None:
    assert_left("fold_constants", build("float[B,4] x", "float[B,4] y", "z = Add (x, c)\ny = Erf (z)", c=normal(4)))
