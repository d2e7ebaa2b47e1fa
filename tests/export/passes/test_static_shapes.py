from __future__ import annotations

from pass_cases import array, assert_exact, assert_left, build, ints, node, normal

from cluinfer.export.passes import run_pass

RESHAPE = """
  batch = Shape <start = 0, end = 1> (x)
  target = Concat <axis = 0> (batch, rest)
  y = Reshape (x, target)
"""


def test_a_target_that_follows_the_batch_becomes_minus_one() -> None:
    model = build("float[B,4,6,6] x", "float[B,2,72] y", RESHAPE, rest=ints(2, 72))
    assert assert_exact("static_shapes", model, changes=1) == {"Reshape": 1}
    assert array(node(model, "Reshape").inputs[1]).tolist() == [-1, 2, 72]


def test_a_copied_dimension_is_spelled_out() -> None:
    model = build("float[B,4,6,6] x", "float[B,1,144] y", "y = Reshape (x, target)", target=ints(0, 1, -1))
    assert_exact("static_shapes", model, changes=1)
    assert array(node(model, "Reshape").inputs[1]).tolist() == [-1, 1, 144]


def test_an_expand_keeps_the_batch_that_its_input_has() -> None:
    body = "batch = Shape <start = 0, end = 1> (x)\ntarget = Concat <axis = 0> (batch, rest)\ny = Expand (x, target)"
    model = build("float[B,1,6] x", "float[B,5,6] y", body, rest=ints(5, 6))
    assert assert_exact("static_shapes", model, changes=1) == {"Expand": 1}
    assert array(node(model, "Expand").inputs[1]).tolist() == [1, 5, 6]


def test_an_expand_over_the_batch_stays() -> None:
    body = "batch = Shape <start = 0, end = 1> (x)\ntarget = Concat <axis = 0> (batch, rest)\ny = Expand (w, target)"
    assert_left("static_shapes", build("float[B,2] x", "float[B,5] y", body, rest=ints(5), w=normal(1, 5)))


def test_two_dimensions_that_vary_stay() -> None:
    body = "sizes = Shape <start = 0, end = 2> (x)\ntarget = Concat <axis = 0> (sizes, rest)\ny = Reshape (x, target)"
    assert_left("static_shapes", build("float[B,N,6] x", "float[B,N,2,3] y", body, rest=ints(2, 3)))


def test_empty_maps_stay() -> None:
    assert_left("static_shapes", build("float[B,0,6] x", "float[B,0,2,3] y", RESHAPE, rest=ints(0, 2, 3)))


def test_an_unknown_shape_stays() -> None:
    model = build("float[B,4,6,6] x, int64[3] target", "float[P,Q,R] y", "y = Reshape (x, target)")
    assert run_pass(model, "static_shapes").changes == 0
