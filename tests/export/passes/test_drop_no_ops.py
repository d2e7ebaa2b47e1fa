from __future__ import annotations

import pytest
from pass_cases import assert_exact, assert_left, build, ints, normal


@pytest.mark.parametrize(
    "nothing",
    [
        "b = Cast <to = 1> (a)",
        "b = CastLike (a, x)",
        "b = Identity (a)",
        "b = Reshape (a, same)",
        "b = Expand (a, ones)",
        "b = Transpose <perm = [0, 1, 2]> (a)",
        "c = Unsqueeze (a, axis)\nb = Squeeze (c, axis)",
        "c = Reshape (a, flat)\nb = Reshape (c, same)",
    ],
)
def test_what_does_nothing_goes(nothing: str) -> None:
    model = build(
        "float[B,4,6] x",
        "float[B,4,6] y",
        f"a = Relu (x)\n{nothing}\ny = Erf (b)",
        same=ints(0, 4, 6),
        ones=ints(1, 1, 1),
        axis=ints(1),
        flat=ints(0, -1),
    )
    assert assert_exact("drop_no_ops", model, changes=1) == {"Relu": 1, "Erf": 1}


def test_a_graph_output_keeps_its_name() -> None:
    model = build("float[B,4] x", "float[B,4] y", "a = Relu (x)\ny = Identity (a)")
    assert assert_exact("drop_no_ops", model, changes=1) == {"Relu": 1}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("y = Cast <to = 7> (x)", "int64[B,4,6]"),
        ("y = Reshape (x, other)", "float[B,6,4]"),
        ("y = Expand (x, more)", "float[B,4,6]"),  # the batch may be 1 here, and then the output has 2 images
        ("y = Transpose <perm = [0, 2, 1]> (x)", "float[B,6,4]"),
        ("y = Identity (x)", "float[B,4,6]"),  # two names of the graph, both promised
        ("y = Relu (x)\nz = Identity (y)", "float[B,4,6]"),
    ],
)
def test_what_does_something_stays(body: str, output: str) -> None:
    outputs = f"{output} y" + (f", {output} z" if "z =" in body else "")
    if "more" in body:
        outputs = "float[C,4,6] y"
    model = build("float[B,4,6] x", outputs, body, other=ints(-1, 6, 4), more=ints(2, 1, 1))
    assert_left("drop_no_ops", model)


def test_a_cast_of_an_unknown_type_stays() -> None:
    model = build("float[B,4] x", "float[B,4] y", "a = Add (x, c)\nb = Cast <to = 1> (a)\ny = Relu (b)", c=normal(4))
    model.graph[0].outputs[0].type = None
    assert_left("drop_no_ops", model)
