from __future__ import annotations

import pytest
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal

POOL = "AveragePool <kernel_shape = [2, 3], strides = [2, 3]> (h)"


def test_an_average_pool_moves_before_the_reshape() -> None:
    body = f"h = Reshape (x, heads)\ny = {POOL}"
    model = build("float[B,8,6,6] x", "float[C,4,3,2] y", body, heads=ints(-1, 4, 6, 6))
    declare(model)
    assert assert_exact("pool_before_heads", model, changes=1) == {"AveragePool": 1, "Reshape": 1}
    assert node(model, "AveragePool").inputs[0] is model.graph.inputs[0]
    assert array(node(model, "Reshape").inputs[1]).tolist() == [-1, 4, 3, 2]


def test_a_pool_of_two_products_moves_too() -> None:
    body = "h = Reshape (x, heads)\na = MatMul (p, h)\ny = MatMul (a, q)"
    given = {"heads": ints(-1, 4, 6, 7), "p": normal(2, 6), "q": normal(7, 3)}
    model = build("float[B,8,6,7] x", "float[C,4,2,3] y", body, **given)
    declare(model)
    assert assert_exact("pool_before_heads", model, changes=2) == {"MatMul": 2, "Reshape": 1}


def test_the_points_keep_their_reshape() -> None:
    body = f"h = Reshape (x, heads)\nz = Softmax (h)\ny = {POOL}"
    model = build("float[B,8,6,6] x", "float[C,4,3,2] y, float[C,4,6,6] z", body, heads=ints(-1, 4, 6, 6))
    declare(model)
    assert assert_exact("pool_before_heads", model, changes=1) == {"AveragePool": 1, "Reshape": 2, "Softmax": 1}


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("h = Reshape (x, turned)\ny = AveragePool <kernel_shape = [2, 3]> (h)", "float[C,4,P,Q] y"),
        ("h = Reshape (x, copied)\ny = AveragePool <kernel_shape = [2, 3]> (h)", "float[B,8,5,4] y"),
        ("h = Reshape (x, heads)\ny = MatMul (h, h)", "float[C,4,6,6] y"),
        ("h = Reshape (x, heads)\ny = MatMul (h, v)", "float[C,4,6,6] y"),  # not a constant
        ("h = Reshape (x, heads)\ny = MatMul (h, many)", "float[C,4,6,6] y"),  # one matrix a head
        ("h = Reshape (x, heads)\ny = MaxPool <kernel_shape = [2, 3]> (h)", "float[C,4,5,4] y"),
        ("h = Transpose <perm = [0, 1, 3, 2]> (x)\ny = AveragePool <kernel_shape = [2, 3]> (h)", "float[B,8,P,Q] y"),
    ],
)
def test_others_stay(body: str, output: str) -> None:
    given = {"heads": ints(-1, 4, 6, 6), "turned": ints(-1, 4, 4, 9), "copied": ints(0, 8, 6, 6)}
    model = build("float[B,8,6,6] x, float[6,6] v", output, body, many=normal(4, 6, 6), **given)
    assert_left("pool_before_heads", model)


def declare(model):
    """Name the group dimension, as the exporter does: ONNX's own inference has no name for 2 * B."""
    import onnx_ir as ir

    for n in model.graph:
        for value in n.outputs:
            value.shape = ir.Shape(["2*B" if not isinstance(d, int) and d.value is None else d for d in value.shape])
