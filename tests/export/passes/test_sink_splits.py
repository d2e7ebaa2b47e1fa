from __future__ import annotations

import pytest
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal

SPLIT = "f, v = Split <axis = 1> (x, halves)\n"
POOL = "AveragePool <kernel_shape = [2, 3]>"
ENDS = "y = Softmax <axis = 1> (p)\nz = Softmax <axis = 1> (q)"


def two(operator: str, more: str = "") -> str:
    return f"{SPLIT}p = {operator} (f{more})\nq = {operator} (v{more})\n{ENDS}"


@pytest.mark.parametrize(
    ("body", "op", "out"),
    [
        (two(POOL), "AveragePool", "4,5,4"),
        (two("MatMul", ", m"), "MatMul", "4,6,2"),
        (two("Transpose <perm = [0, 1, 3, 2]>"), "Transpose", "4,6,6"),
        (two("Reshape", ", flat"), "Reshape", "2,2,36"),
    ],
)
def test_what_both_parts_have_is_done_once(body: str, op: str, out: str) -> None:
    outputs = f"float[B,{out}] y, float[B,{out}] z"
    given = {"halves": ints(4, 4), "m": normal(6, 2), "flat": ints(-1, 2, 2, 36)}
    model = build("float[B,8,6,6] x", outputs, body, **given)
    declare(model, out)
    assert assert_exact("sink_splits", model, changes=1) == {op: 1, "Split": 1, "Softmax": 2}
    first = out.split(",")[0]
    assert array(node(model, "Split").inputs[1]).tolist() == [int(first)] * 2


def test_parts_of_different_size_and_other_readers() -> None:
    body = f"{SPLIT}p = {POOL} (f)\nq = {POOL} (v)\n{ENDS}\nr = Softmax (f)"
    outputs = "float[B,3,5,4] y, float[B,5,5,4] z, float[B,3,6,6] r"
    model = build("float[B,8,6,6] x", outputs, body, halves=ints(3, 5))
    assert assert_exact("sink_splits", model, changes=1) == {"AveragePool": 1, "Split": 2, "Softmax": 3}


@pytest.mark.parametrize(
    "body",
    [
        f"{SPLIT}p = {POOL} (f)\nq = Softmax (v)\ny = Softmax (p)\nz = Softmax (q)",  # one part only
        f"{SPLIT}p = {POOL} (f)\nq = AveragePool <kernel_shape = [3, 2]> (v)\n{ENDS}",
        f"{SPLIT}p = MatMul (f, m)\nq = MatMul (v, n)\n{ENDS}",  # other constants
        f"{SPLIT}p = MatMul (f, c)\nq = MatMul (v, c)\n{ENDS}",  # not a constant
        two("Transpose <perm = [0, 2, 1, 3]>"),  # the channels move
        two("Reshape", ", batch"),  # the groups follow the batch
        f"{SPLIT}y = {POOL} (f)\nz = {POOL} (v)",  # promised outputs
        two(POOL).replace("axis = 1> (x, halves)", "axis = 2> (x, rows)"),  # no Split of channels
    ],
)
def test_others_stay(body: str) -> None:
    given = {"halves": ints(4, 4), "rows": ints(3, 3), "m": normal(6, 2), "n": normal(6, 2), "batch": ints(-1, 2, 6, 6)}
    outputs = "float[B,O,P,Q] y, float[B,R,S,T] z"
    assert_left("sink_splits", build("float[B,8,6,6] x, float[6,2] c", outputs, body, **given))


def declare(model, out: str) -> None:
    """Name the batch after a Reshape, as the exporter does."""
    import onnx_ir as ir

    for n in model.graph:
        if n.op_type in ("Reshape", "Softmax"):
            n.outputs[0].shape = ir.Shape(["B", *map(int, out.split(","))])
