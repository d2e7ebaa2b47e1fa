from __future__ import annotations

from pass_cases import assert_exact, assert_left, build, ints


def test_the_last_reshape_decides() -> None:
    body = "a = Reshape (x, first)\ny = Reshape (a, then)"
    model = build("float[B,8,6,6] x", "float[C,4,36] y", body, first=ints(-1, 4, 6, 6), then=ints(-1, 4, 36))
    assert assert_exact("merge_reshapes", model, changes=1) == {"Reshape": 1}


def test_other_readers_keep_the_first() -> None:
    body = "a = Reshape (x, first)\nz = Relu (a)\ny = Reshape (a, then)"
    outputs = "float[C,4,36] y, float[C,4,6,6] z"
    model = build("float[B,8,6,6] x", outputs, body, first=ints(-1, 4, 6, 6), then=ints(-1, 4, 36))
    assert assert_exact("merge_reshapes", model, changes=1) == {"Reshape": 2, "Relu": 1}
    assert all(node.inputs[0] is model.graph.inputs[0] for node in model.graph if node.op_type == "Reshape")


def test_a_target_that_copies_from_its_input_stays() -> None:
    body = "a = Reshape (x, first)\ny = Reshape (a, then)"
    model = build("float[B,8,6,6] x", "float[C,4,36] y", body, first=ints(-1, 4, 6, 6), then=ints(0, 4, -1))
    assert_left("merge_reshapes", model)


def test_a_computed_target_stays() -> None:
    body = "a = Reshape (x, first)\ny = Reshape (a, then)"
    model = build("float[B,8,6,6] x, int64[3] then", "float[P,Q,R] y", body, first=ints(-1, 4, 6, 6))
    assert_left("merge_reshapes", model)
