from __future__ import annotations

from pass_cases import assert_exact, assert_left, build, normal

from cluinfer.export.passes._match import shape


def model():
    return build("float[B,4,6,6] x", "float[B,8,4,4] y", "a = Conv(x, w)\ny = Relu(a)", w=normal(8, 4, 3, 3))


def test_notes_what_is_missing() -> None:
    graph = model()
    between = graph.graph[0].outputs[0]
    between.shape = between.type = None
    assert_exact("infer_shapes", graph, changes=1)
    assert shape(graph.graph[0].outputs[0]) == ["B", 8, 4, 4]


def test_leaves_what_is_known() -> None:
    assert_left("infer_shapes", model())
