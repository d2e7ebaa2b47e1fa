from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, ints, node, normal, positive

AFFINE = "a = Mul (x, scale)\nb = Add (shift, a)\n"


def affine() -> dict[str, np.ndarray]:
    return {"scale": positive(4, 1, 1), "shift": normal(4, 1, 1)}


def test_into_all_convolutions_that_read_it() -> None:
    body = AFFINE + "f = Conv (b, w, c)\nv = Conv (b, u)\ny = Concat <axis = 1> (f, v)"
    given = {"w": normal(8, 4, 1, 1), "c": normal(8), "u": normal(6, 4, 1, 1), **affine()}
    model = build("float[B,4,5,6] x", "float[B,14,5,6] y", body, **given)
    assert assert_exact("fold_norm_affine", model, changes=2) == {"Conv": 2, "Concat": 1}
    first = next(n for n in model.graph if n.op_type == "Conv")
    np.testing.assert_allclose(array(first.inputs[1]), given["w"] * given["scale"], rtol=1e-6)
    wanted = given["w"][:, :, 0, 0] @ given["shift"].reshape(-1) + given["c"]
    np.testing.assert_allclose(array(first.inputs[2]), wanted, rtol=1e-5, atol=1e-6)


def test_into_a_grouped_convolution_of_any_size() -> None:
    given = {"w": normal(6, 2, 3, 3), **affine()}
    model = build("float[B,4,5,6] x", "float[B,6,3,4] y", AFFINE + "y = Conv <group = 2> (b, w)", **given)
    assert assert_exact("fold_norm_affine", model, changes=2) == {"Conv": 1}


def test_through_the_mean_into_the_head() -> None:
    body = AFFINE + "m = ReduceMean <keepdims = 0> (b, axes)\ny = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (m, w, c)"
    given = {"w": normal(7, 4), "c": normal(7), "axes": ints(2, 3), **affine()}
    model = build("float[B,4,5,6] x", "float[B,7] y", body, **given)
    assert assert_exact("fold_norm_affine", model, changes=2) == {"ReduceMean": 1, "Gemm": 1}


def test_of_a_layer_norm_past_its_transpose() -> None:
    body = """
      rows = Transpose <perm = [0, 2, 3, 1]> (x)
      normed = LayerNormalization <axis = -1> (rows, scale, shift)
      map = Transpose <perm = [0, 3, 1, 2]> (normed)
      y = Conv (map, w, c)
    """
    given = {"w": normal(8, 4, 1, 1), "c": normal(8), "scale": positive(4), "shift": normal(4)}
    model = build("float[B,4,5,6] x", "float[B,8,5,6] y", body, **given)
    assert_exact("fold_norm_affine", model, changes=1)
    norm = node(model, "LayerNormalization")
    assert len(norm.inputs) == 2 and (array(norm.inputs[1]) == 1).all()


def test_of_an_instance_norm() -> None:
    body = "a = InstanceNormalization (x, scale, shift)\ny = Conv (a, w)"
    given = {"w": normal(8, 4, 1, 1), "scale": positive(4), "shift": normal(4)}
    model = build("float[B,4,5,6] x", "float[B,8,5,6] y", body, **given)
    assert_exact("fold_norm_affine", model, changes=1)
    norm = node(model, "InstanceNormalization")
    assert (array(norm.inputs[1]) == 1).all() and not array(norm.inputs[2]).any()


def test_a_scale_alone_passes_a_border() -> None:
    body = "a = Mul (x, scale)\ny = Conv <pads = [1, 1, 1, 1]> (a, w)"
    model = build("float[B,4,5,6] x", "float[B,8,5,6] y", body, w=normal(8, 4, 3, 3), scale=positive(4, 1, 1))
    assert assert_exact("fold_norm_affine", model, changes=1) == {"Conv": 1}


@pytest.mark.parametrize(
    ("after", "outputs"),
    [
        ("y = Conv <pads = [1, 1, 1, 1]> (b, w3)", "float[B,4,5,6] y"),  # a border has no shift
        ('y = Conv <auto_pad = "SAME_UPPER"> (b, w3)', "float[B,4,5,6] y"),
        ("c = Conv (b, w)\ny = Add (b, c)", "float[B,4,5,6] y"),  # another reader
        ("y = Conv (b, w)", "float[B,4,5,6] y, float[B,4,5,6] b"),  # a graph output
        ("c = Conv (b, w)\nd = Conv (z, w)\ny = Add (c, d)", "float[B,4,5,6] y"),  # a weight that others read
        ("y = Conv (b, v)", "float[B,4,5,6] y"),  # a weight that is no constant
        ("y = Relu (b)", "float[B,4,5,6] y"),
        ("m = ReduceMean (b, channels)\ny = Conv (m, w1)", "float[B,1,5,6] y"),  # a mean over the channels
    ],
)
def test_others_stay(after: str, outputs: str) -> None:
    inputs = "float[B,4,5,6] x, float[B,4,5,6] z, float[4,4,1,1] v"
    given = {"w": normal(4, 4, 1, 1), "w3": normal(4, 4, 3, 3), "w1": normal(1, 1, 1, 1), "channels": ints(1)}
    assert_left("fold_norm_affine", build(inputs, outputs, AFFINE + after, **given, **affine()))


@pytest.mark.parametrize("shape", [(1,), (4, 5, 1), (4, 1, 6), (1, 1, 6), (2, 4, 1, 1)])
def test_what_is_not_one_number_a_channel_stays(shape: tuple[int, ...]) -> None:
    model = build(
        "float[2,4,5,6] x",
        "float[2,8,5,6] y",
        "a = Mul (x, s)\ny = Conv (a, w)",
        s=positive(*shape),
        w=normal(8, 4, 1, 1),
    )
    assert_left("fold_norm_affine", model)


def test_half_precision_stays() -> None:
    given = {"w": normal(8, 4, 1, 1).astype(np.float16), "s": positive(4, 1, 1).astype(np.float16)}
    model = build("float16[B,4,5,6] x", "float16[B,8,5,6] y", "a = Mul (x, s)\ny = Conv (a, w)", **given)
    assert_left("fold_norm_affine", model)
