from __future__ import annotations

import pytest
from pass_cases import assert_exact, assert_left, build, ints, normal


def test_a_reader_that_broadcasts_reads_the_small_value() -> None:
    body = "n = ReduceL2 (x, axis)\ne = Expand (n, target)\ny = Div (x, e)"
    model = build("float[B,4,6] x", "float[B,4,6] y", body, axis=ints(1), target=ints(1, 4, 6))
    assert assert_exact("drop_expands", model, changes=1) == {"ReduceL2": 1, "Div": 1}


@pytest.mark.parametrize(
    "body",
    [
        "e = Expand (n, target)\ny = Add (n, e)",  # the result would be narrower
        "e = Expand (n, target)\ny = Mul (e, e)",
        "e = Expand (n, target)\ny = Relu (e)",
        "y = Expand (n, target)",
        "e = Expand (n, target)\nz = Softmax (e)\ny = Add (e, z)",
    ],
)
def test_other_readers_keep_it(body: str) -> None:
    assert_left("drop_expands", build("float[B,1,6] n", "float[B,4,6] y", body, target=ints(1, 4, 6), w=normal(1)))
