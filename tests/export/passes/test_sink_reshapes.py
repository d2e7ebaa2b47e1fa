from __future__ import annotations

import pytest
from pass_cases import assert_exact, assert_left, build, ints, scalar


def test_two_around_elementwise_operators_become_one() -> None:
    body = """
      heads = Reshape (x, to_heads)
      a = Erf (heads)
      b = Mul (a, half)
      c = Mul (heads, b)
      y = Reshape (c, back)
    """
    model = build(
        "float[B,8,9] x", "float[B,8,9] y", body, to_heads=ints(-1, 2, 9), back=ints(-1, 8, 9), half=scalar(0.5)
    )
    assert assert_exact("sink_reshapes", model, changes=1) == {"Reshape": 2, "Erf": 1, "Mul": 2}
    assert assert_exact("merge_reshapes", model, changes=1) == {"Reshape": 1, "Erf": 1, "Mul": 2}


@pytest.mark.parametrize(
    "after",
    [
        "a = Relu (heads)\ny = Softmax (a)",
        "a = Relu (heads)\nb = Softmax (heads)\nc = Add (a, b)\ny = Reshape (c, back)",
        "a = Mul (heads, wide)\ny = Reshape (a, back)",  # a number of more dimensions than the input has
        "a = Relu (heads)\ny = Reshape (a, copy)",
    ],
)
def test_stays_elsewhere(after: str) -> None:
    given = {"to_heads": ints(-1, 2, 9), "back": ints(-1, 8, 9), "copy": ints(0, 2, 9)}
    wide = scalar(2).reshape(1, 1, 1, 1)
    body = f"heads = Reshape (x, to_heads)\n{after}"
    assert_left("sink_reshapes", build("float[B,8,9] x", "float[P,Q,R] y", body, wide=wide, **given))
