from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal

PAIR = "f = Conv (x, w, b)\nv = Conv (x, u)\np = Softmax <axis = 1> (f)\nq = Softmax <axis = 1> (v)\n"


def test_two_convolutions_of_a_map_become_one() -> None:
    w, b, u = normal(6, 4, 1, 1), normal(6), normal(5, 4, 1, 1)
    model = build("float[B,4,5,6] x", "float[B,6,5,6] p, float[B,5,5,6] q", PAIR, w=w, b=b, u=u)
    assert assert_exact("merge_siblings", model, changes=1) == {"Conv": 1, "Split": 1, "Softmax": 2}
    conv = node(model, "Conv")
    np.testing.assert_array_equal(array(conv.inputs[1]), np.concatenate([w, u]))
    np.testing.assert_array_equal(array(conv.inputs[2]), np.concatenate([b, np.zeros(5, np.float32)]))
    assert array(node(model, "Split").inputs[1]).tolist() == [6, 5]


def test_three_with_borders() -> None:
    convs = "".join(f"c{i} = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w{i})\n" for i in range(3))
    body = convs + "".join(f"p{i} = Softmax <axis = 1> (c{i})\n" for i in range(3))
    outputs = ", ".join(f"float[B,6,3,3] p{i}" for i in range(3))
    model = build("float[B,4,5,6] x", outputs, body, **{f"w{i}": normal(6, 4, 3, 3) for i in range(3)})
    assert assert_exact("merge_siblings", model, changes=1) == {"Conv": 1, "Split": 1, "Softmax": 3}


@pytest.mark.parametrize(
    ("body", "remarks"),
    [
        (PAIR.replace("Conv (x, u)", "Conv (z, u)"), 0),  # of another map
        (PAIR.replace("Conv (x, u)", "Conv (x, s)"), 0),  # not a constant
        (PAIR.replace("Conv (x, u)", "Conv <dilations = [2, 2]> (x, u)"), 0),  # other attributes
        (PAIR.replace("Conv (x, u)", "Conv (x, w)"), 0),  # a weight that both read
        (PAIR.replace("Conv", "Conv <group = 1, pads = [1, 1, 1, 1]>").replace("x, u", "x, k"), 0),  # another kernel
        (PAIR.replace("q = Softmax <axis = 1> (v)", "q = Relu (v)"), 1),  # fused by the engine
    ],
)
def test_others_stay(body: str, remarks: int) -> None:
    given = {"w": normal(6, 4, 1, 1), "b": normal(6), "u": normal(6, 4, 1, 1), "k": normal(6, 4, 3, 3)}
    inputs = "float[B,4,5,6] x, float[B,4,5,6] z, float[6,4,1,1] s"
    left = assert_left("merge_siblings", build(inputs, "float[B,6,P,Q] p, float[B,6,R,S] q", body, **given))
    assert len(left) == remarks


def test_a_graph_output_stays() -> None:
    body = "f = Conv (x, w)\nv = Conv (x, u)"
    model = build(
        "float[B,4,5,6] x", "float[B,6,5,6] f, float[B,6,5,6] v", body, w=normal(6, 4, 1, 1), u=normal(6, 4, 1, 1)
    )
    assert_left("merge_siblings", model)


def test_groups_stay() -> None:
    body = PAIR.replace("Conv", "Conv <group = 2>")
    given = {"w": normal(6, 2, 1, 1), "b": normal(6), "u": normal(6, 2, 1, 1), "unused": ints(1)}
    assert_left("merge_siblings", build("float[B,4,5,6] x", "float[B,6,5,6] p, float[B,6,5,6] q", body, **given))
