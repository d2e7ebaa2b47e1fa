from __future__ import annotations

import numpy as np
import pytest
from pass_cases import array, assert_exact, assert_left, build, node, normal, positive

from cluinfer.export.passes import run_pass

NORM = "n = BatchNormalization <epsilon = 0.01> (c, gamma, beta, mean, variance)\n"


def norm() -> dict[str, np.ndarray]:
    return {"gamma": normal(6), "beta": normal(6), "mean": normal(6), "variance": positive(6)}


def scale(of: dict[str, np.ndarray]) -> np.ndarray:
    return (of["gamma"] / np.sqrt(of["variance"] + np.float32(0.01))).astype(np.float32)


@pytest.mark.parametrize("bias", ["", ", b"])
@pytest.mark.parametrize("group", [1, 2])
def test_into_the_convolution(bias: str, group: int) -> None:
    given = norm()
    w = normal(6, 4 // group, 3, 3)
    body = f"c = Conv <group = {group}, pads = [1, 1, 1, 1]> (x, w{bias})\n{NORM}y = Relu (n)"
    model = build("float[B,4,5,6] x", "float[B,6,5,6] y", body, w=w, b=normal(6), **given)
    assert assert_exact("fold_batchnorm", model, changes=1) == {"Conv": 1, "Relu": 1}
    np.testing.assert_allclose(array(node(model, "Conv").inputs[1]), w * scale(given).reshape(-1, 1, 1, 1), rtol=1e-5)


ADJOINT = f"""
  c = Conv <pads = [1, 1, 1, 1]> (x, w)
  {NORM}
  scaled = Mul (n, s)
  back = ConvTranspose <pads = [1, 1, 1, 1]> (scaled, w)
  y = Relu (back)
"""


def test_a_weight_shared_with_the_adjoint_is_scaled_once_for_both() -> None:
    given = norm()
    model = build(
        "float[B,4,5,6] x", "float[B,4,5,6] y", ADJOINT, w=normal(6, 4, 3, 3), s=scale(given).reshape(6, 1, 1), **given
    )
    assert assert_exact("fold_batchnorm", model, changes=1) == {"Conv": 1, "ConvTranspose": 1, "Relu": 1}
    assert node(model, "Conv").inputs[1] is node(model, "ConvTranspose").inputs[1]


@pytest.mark.parametrize(
    "body",
    [
        ADJOINT.replace("(n, s)", "(n, other)"),  # another scale
        ADJOINT.replace("scaled = Mul (n, s)", "scaled = Relu (n)"),
        ADJOINT.replace(
            "ConvTranspose <pads = [1, 1, 1, 1]> (scaled, w)", "ConvTranspose <pads = [1, 1, 1, 1]> (n, w)"
        ),
        f"c = Conv <pads = [1, 1, 1, 1]> (x, w)\n{NORM}d = Conv <pads = [1, 1, 1, 1]> (x, w)\ny = Add (n, d)",
    ],
)
def test_a_weight_shared_otherwise_stays_with_a_remark(body: str) -> None:
    given = norm()
    output = "float[B,6,5,6] y" if "ConvTranspose" not in body else "float[B,4,5,6] y"
    s = scale(given).reshape(6, 1, 1)
    other = s * np.float32(1.00001)
    (remark,) = assert_left(
        "fold_batchnorm", build("float[B,4,5,6] x", output, body, w=normal(6, 4, 3, 3), s=s, other=other, **given)
    )
    assert "weight" in remark


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (f"c = Conv (x, w)\n{NORM}y = Add (n, c)", "float[B,6,3,4] y"),  # the convolution has another reader
        (f"c = Conv (x, w)\n{NORM}y = Relu (n)", "float[B,6,3,4] y, float[B,6,3,4] c"),
        (f"c = Conv (x, v)\n{NORM}y = Relu (n)", "float[B,6,3,4] y"),  # not a constant
        (f"c = Relu (z)\n{NORM}y = Relu (n)", "float[B,6,3,4] y"),
        ("c = Conv (x, w)\ny = BatchNormalization (c, gamma, beta, mean, g)", "float[B,6,3,4] y"),
    ],
)
def test_others_stay(body: str, outputs: str) -> None:
    inputs = "float[B,4,5,6] x, float[6,4,3,3] v, float[B,6,3,4] z, float[6] g"
    assert_left("fold_batchnorm", build(inputs, outputs, body, w=normal(6, 4, 3, 3), **norm()))


def test_training_mode_stays() -> None:
    body = "c = Conv (x, w)\ny, m, v = BatchNormalization <training_mode = 1> (c, gamma, beta, mean, variance)"
    model = build("float[B,4,5,6] x", "float[B,6,3,4] y", body, w=normal(6, 4, 3, 3), **norm())
    assert run_pass(model, "fold_batchnorm").changes == 0
