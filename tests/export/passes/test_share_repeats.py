from __future__ import annotations

from pass_cases import assert_exact, assert_left, build, normal

ASSIGN = "cluinfer.ClusterAssign <alpha = 1.0, beta = 0.0, sigmoid = 1> (x, c)"


def test_equal_nodes_and_equal_constants() -> None:
    same = normal(4)
    body = "a = Mul (x, s)\nb = Mul (x, t)\nc = Add (a, b)\ny = Erf (c)"
    model = build("float[B,4] x", "float[B,4] y", body, s=same, t=same.copy())
    assert assert_exact("share_repeats", model, changes=2) == {"Mul": 1, "Add": 1, "Erf": 1}
    assert len(model.graph.initializers) == 1


def test_clusterings_stay_one_a_layer() -> None:
    body = f"i, w = {ASSIGN}\nj, v = {ASSIGN}\ny = Add (w, v)"
    model = build("float[B,4,9] x, float[B,4,3] c", "float[B,9] y", body)
    for name, node in zip(("a", "b"), model.graph, strict=False):
        node.metadata_props["cluinfer.layer"] = name
    assert_left("share_repeats", model)


def test_different_nodes_stay() -> None:
    body = "a = Mul (x, s)\nb = Mul (x, t)\nc = Add (a, b)\ny = Erf (c)"
    assert_left("share_repeats", build("float[B,4] x", "float[B,4] y", body, s=normal(4), t=normal(4)))
