"""Layers and their roles, told by where values flow."""

from __future__ import annotations

import calibration_cases as cases
import numpy as np
import onnx_ir as ir
import pass_cases
import pytest

from cluinfer.calibration.layers import find_layers


def roles(family: str) -> dict[str, str]:
    return {name: layer.role for name, layer in cases.layers(cases.graph(family)).items()}


def test_of_a_fec() -> None:
    assert roles("fec") == {
        "patch_embed.proj": "embedding",
        "network.0.0.token_mixer.f": "similarity",
        "network.0.0.token_mixer.proj": "projection",
        "network.0.0.mlp.fc1": "dense",
        "network.0.0.mlp.fc2": "dense",
        "network.1.conv_f": "similarity",
        "network.1.conv_skip": "dense",
        **{
            f"network.2.{block}.{name}": role
            for block in (0, 1)
            for name, role in (
                ("token_mixer.f", "similarity"),
                ("token_mixer.proj", "projection"),
                ("mlp.fc1", "dense"),
                ("mlp.fc2", "dense"),
            )
        },
        "head": "head",
    }


def test_of_a_cluenet() -> None:
    found = roles("cluenet")
    assert found["pos_embed.proj.0"] == found["network.0.blocks.0.mlp.dwconv.dwconv"] == "depthwise"
    assert found["network.0.blocks.0.token_mixer.k"] == "similarity"
    assert found["network.0.blocks.1.token_mixer.k"] == "similarity"  # of its soft aggregation alone
    assert found["network.0.blocks.1.token_mixer.proj"] == "projection"
    assert found["network.1.conv_v.0"] == "dense"
    assert not any(name.endswith(".q") for name in found)  # multiplies from the left, and few numbers


def test_what_an_engine_applies_to_the_centres() -> None:
    found = cases.layers(cases.graph("fec"))
    assert not found["network.0.0.token_mixer.proj"].centres  # 96 points are too few
    body = """
        p = Reshape(x, flat)
        c0 = AveragePool<kernel_shape = [14, 14], strides = [14, 14]>(x)
        c = Reshape(c0, few)
        i, w = cluinfer.ClusterAssign<alpha = 1.0, beta = 0.0, sigmoid = 1>(p, c)
        g = cluinfer.ClusterGather(c, i, w)
        m = Reshape(g, map)
        logits = Conv(m, kernel)
    """
    model = pass_cases.build(
        "float[2, 8, 28, 28] x",
        "float[2, 3, 28, 28] logits",
        body,
        flat=pass_cases.ints(2, 8, 784),
        few=pass_cases.ints(-1, 8, 4),
        map=pass_cases.ints(2, 8, 28, 28),
        kernel=pass_cases.normal(3, 8, 1, 1),
    )
    shapes = {"i": [2, 784], "w": [2, 784], "g": [2, 8, 784], "m": [2, 8, 28, 28]}
    for node in model.graph:
        for value in node.outputs:
            if value.name in shapes:
                value.shape = ir.Shape(shapes[value.name])
    (layer,) = find_layers(model)
    assert (layer.role, layer.centres) == ("projection", True)


def test_work_is_counted_as_multiplications() -> None:
    found = cases.layers(cases.graph("fec"))
    assert found["patch_embed.proj"].macs == 8 * 12 * 16 * 3 * 16  # points, outputs, kernel
    assert found["network.1.conv_skip"].macs == 4 * 6 * 24 * 16 * 9
    assert found["head"].macs == 24 * 5
    assert cases.layers(cases.graph("cluenet"))["pos_embed.proj.0"].macs == 8 * 12 * 16 * 9


def test_what_is_only_shown() -> None:
    proto = pass_cases.build(
        "float[B, 4, 2, 2] image",
        "float[B, 4, 2, 2] logits, float[B, 4, 2, 2] evidence",
        "h = Conv(image, a)\n logits = Conv(h, b)\n evidence = Conv(h, c)",
        **{name: pass_cases.normal(4, 4, 1, 1) for name in "abc"},
    )
    assert [layer.role for layer in find_layers(proto)] == ["embedding", "head", "shown"]


@pytest.mark.parametrize("turned", [0, 1])
def test_matrices_have_outputs_first(turned: int) -> None:
    weight = pass_cases.normal(3, 5)
    model = pass_cases.build(
        "float[B, 5] x",
        "float[B, 3] y",
        f"y = Gemm<transB = {turned}>(x, w)",
        w=weight if turned else weight.T.copy(),
    )
    (layer,) = find_layers(model)
    np.testing.assert_array_equal(layer.matrix(), weight)
    assert (layer.weight_axis, layer.channel_axis, layer.pointwise) == (0 if turned else 1, 1, True)


def test_a_product_of_tokens_has_its_channels_last() -> None:
    model = pass_cases.build("float[B, 7, 5] x", "float[B, 7, 3] y", "y = MatMul(x, w)", w=pass_cases.normal(5, 3))
    (layer,) = find_layers(model)
    assert (layer.weight_axis, layer.channel_axis, layer.macs) == (1, 2, 7 * 15)


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = MatMul(x, mean)", {"mean": np.full((4, 2), 0.25, np.float32)}),  # adaptive pooling
        ("y = MatMul(w, x)", {"w": pass_cases.normal(2, 4)}),
        ("t = Transpose<perm = [0, 2, 1]>(x)\n y = MatMul(x, t)", {}),
        ("y = MatMul(x, w)", {"w": pass_cases.normal(1, 4, 2)}),
    ],
)
def test_what_is_no_layer(body: str, constants: dict[str, np.ndarray]) -> None:
    assert find_layers(pass_cases.build("float[B, 4, 4] x", "float[B, ?, ?] y", body, **constants)) == []


def test_names_are_told_apart() -> None:
    model = pass_cases.build(
        "float[B, 4] x",
        "float[B, 4] y",
        "h = MatMul(x, a)\n y = MatMul(h, a)",
        a=pass_cases.normal(4, 4),
    )
    model.graph.initializers["a"].name = "block.fc.weight_1"
    assert [layer.name for layer in find_layers(model)] == ["block.fc", "block.fc#2"]


def test_what_pads_is_not_pointwise() -> None:
    found = cases.layers(cases.graph("cluenet"))
    assert not found["pos_embed.proj.0"].pointwise
    assert not found["network.1.conv_skip"].pointwise
    assert found["network.0.blocks.0.mlp.fc1"].pointwise
    assert found["head"].pointwise
