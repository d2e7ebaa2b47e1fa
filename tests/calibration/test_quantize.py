"""Q/DQ pairs: where they stand, what they hold, and that the rest of the graph stays as it is."""

from __future__ import annotations

import calibration_cases as cases
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pass_cases
import pytest
from onnx import numpy_helper

from cluinfer.calibration import trt_rules
from cluinfer.calibration.quantize import quantize
from cluinfer.calibration.scales import Scales

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, feeds)  # type: ignore[no-any-return]


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def giver(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = [node for node in proto.graph.node if name in node.output]
    return found


def plain(body: str = "y = Conv(x, w, b)") -> onnx.ModelProto:
    held = {"w": pass_cases.normal(3, 4, 1, 1), "b": pass_cases.normal(3), "v": pass_cases.normal(2, 4, 1, 1)}
    used = {name: array for name, array in held.items() if f" {name}" in body}
    return ir.to_proto(pass_cases.build("float[B, 4, 5, 5] x", "float[B, 3, 5, 5] y", body, **used))


def in_int8(proto: onnx.ModelProto, scales: Scales, *names: str, reads: str = "x") -> onnx.ModelProto:
    return quantize(proto, names or list(cases.layers(proto)), {reads: scales})


def test_a_pair_at_both_inputs_and_the_bias_in_float() -> None:
    before = plain()
    made = in_int8(before, Scales(0.02))
    assert [node.op_type for node in made.graph.node].count(Q) == 2
    (conv,) = cases.nodes(made, "Conv")
    held = constants(made)
    read, weight = (giver(made, name) for name in conv.input[:2])
    for back, scale in ((read, np.float32(0.02)), (weight, np.abs(constants(before)["w"]).max((1, 2, 3)) / 127)):
        to = giver(made, back.input[0])
        assert (to.op_type, back.op_type) == (Q, DQ)
        assert to.input[1:] == back.input[1:]
        np.testing.assert_allclose(held[back.input[1]], scale, rtol=1e-6)
        zero = held[back.input[2]]
        assert zero.dtype == np.int8 and zero.shape == np.shape(scale) and not zero.any()
    np.testing.assert_array_equal(held[conv.input[2]], constants(before)["b"])
    assert [(port.name, port.type) for port in made.graph.output] == [(p.name, p.type) for p in before.graph.output]
    onnx.checker.check_model(made, full_check=True)


@pytest.mark.parametrize(
    ("body", "inputs", "outputs", "shape"),
    [
        ("y = Conv(x, w, b)", "float[B, 4, 5, 5] x", "float[B, 3, 5, 5] y", (3, 4, 1, 1)),
        ("y = Conv(x, w)", "float[B, 4, 5, 5] x", "float[B, 3, 5, 5] y", (3, 4, 1, 1)),
        ("y = Conv<pads = [1, 1, 1, 1]>(x, w, b)", "float[B, 4, 5, 5] x", "float[B, 3, 5, 5] y", (3, 4, 3, 3)),
        ("y = Conv<group = 2>(x, w, b)", "float[B, 4, 5, 5] x", "float[B, 4, 5, 5] y", (4, 2, 1, 1)),
        ("y = Gemm(x, w, b)", "float[B, 4] x", "float[B, 3] y", (4, 3)),
        ("y = Gemm<transB = 1>(x, w, b)", "float[B, 4] x", "float[B, 3] y", (3, 4)),
        ("y = Gemm<transB = 1>(x, w)", "float[B, 4] x", "float[B, 3] y", (3, 4)),
        ("y = MatMul(x, w)", "float[B, 7, 4] x", "float[B, 7, 3] y", (4, 3)),
    ],
)
@pytest.mark.parametrize("balanced", [False, True])
def test_it_gives_nearly_the_same(body: str, inputs: str, outputs: str, shape: tuple[int, ...], balanced: bool) -> None:
    held = {"w": pass_cases.normal(*shape)}
    if ", b" in body:
        held["b"] = pass_cases.normal(shape[0] if "transB" in body or "Conv" in body else shape[-1])
    proto = ir.to_proto(pass_cases.build(inputs, outputs, body, **held))
    (layer,) = cases.layers(proto).values()
    if balanced and not layer.pointwise:
        return
    middle = np.array([3, 0, -2, 0.5]) if "MatMul" not in body else None
    factor = np.array([1, 0.5, 0.25, 1])
    image = pass_cases.normal(*{"C": (3, 4, 5, 5), "G": (3, 4), "M": (3, 7, 4)}[body[4]])
    if balanced:
        broadcast = (4, 1, 1) if "Conv" in body else (4,)
        image = image * factor.astype(np.float32).reshape(broadcast)
        image += 0 if middle is None else middle.astype(np.float32).reshape(broadcast)
    made = in_int8(proto, Scales(4 / 127, *((middle, factor) if balanced else ())))
    assert trt_rules.check(made) == []
    (wanted,), (got,) = run(proto, x=image), run(made, x=image)
    assert 0 < np.abs(got - wanted).mean() < 0.03 * wanted.std()


def test_the_bias_takes_up_the_middle() -> None:
    proto, middle = plain(), np.array([3, -1, 0, 2.0])
    made = in_int8(proto, Scales(0.02, middle))
    (conv,) = cases.nodes(made, "Conv")
    held = constants(proto)
    np.testing.assert_allclose(constants(made)[conv.input[2]], held["b"] + held["w"].reshape(3, 4) @ middle, rtol=1e-6)
    assert [node.op_type for node in made.graph.node if node.op_type in ("Sub", "Mul")] == ["Sub"]
    ends = np.broadcast_to(middle.astype(np.float32).reshape(4, 1, 1), (1, 4, 5, 5))
    np.testing.assert_allclose(run(made, x=ends)[0], run(proto, x=ends)[0], atol=1e-5)  # of zeros nothing is rounded


def test_a_value_that_several_read_has_one_pair() -> None:
    proto = ir.to_proto(
        pass_cases.build(
            "float[B, 4, 5, 5] x",
            "float[B, 3, 5, 5] y, float[B, 2, 5, 5] z, float[B, 4, 5, 5] r",
            "r = Relu(x)\n y = Conv(r, w)\n z = Conv(r, v)",
            w=pass_cases.normal(3, 4, 1, 1),
            v=pass_cases.normal(2, 4, 1, 1),
        )
    )
    made = in_int8(proto, Scales(0.02), reads="r")
    first, second = cases.nodes(made, "Conv")
    assert first.input[0] == second.input[0]
    assert len(cases.nodes(made, Q)) == 3
    one = in_int8(proto, Scales(0.02), next(iter(cases.layers(proto))), reads="r")
    quantized, plain_one = sorted(cases.nodes(one, "Conv"), key=lambda node: node.input[0] == "r")
    assert (giver(one, quantized.input[0]).op_type, plain_one.input[0]) == (DQ, "r")
    image = pass_cases.normal(2, 4, 5, 5)
    np.testing.assert_array_equal(run(one, x=image)[2], np.maximum(image, 0))  # whoever else reads it reads float


def test_two_layers_of_one_weight() -> None:
    proto = ir.to_proto(
        pass_cases.build(
            "float[B, 4] x", "float[B, 4] y", "h = MatMul(x, w)\n y = MatMul(h, w)", w=np.eye(4, dtype=np.float32)
        )
    )
    names = list(cases.layers(proto))
    made = quantize(proto, names, {"x": Scales(1.0), "h": Scales(1.0, None, np.array([1, 0.5, 1, 1]))})
    whole = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_allclose(run(made, x=whole)[0], whole, rtol=1e-6)


def test_nothing_asked_for_changes_nothing() -> None:
    proto = cases.graph("fec")
    made = quantize(proto, [], {})
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in proto.graph.node]
    wanted, got = constants(proto), constants(made)
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(wanted[name], got[name]) for name in wanted)


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_the_rest_of_a_model_stays(family: str) -> None:
    proto, made = cases.graph(family), cases.default(family)
    added = {Q, DQ, "Sub", "Mul"}
    kept = [[n.op_type for n in graph.graph.node if n.op_type not in added] for graph in (proto, made)]
    assert sorted(kept[0]) == sorted(kept[1])
    assert [port.name for port in made.graph.output] == [port.name for port in proto.graph.output]
    assert {e.key: e.value for e in made.metadata_props} == {e.key: e.value for e in proto.metadata_props}
    names = {name for name, layer in cases.layers(proto).items() if layer.role in ("dense", "projection")}
    assert len([node for node in cases.nodes(made, "Conv") if giver_is_pair(made, node)]) == len(names)
    assert trt_rules.check(made) == []


def giver_is_pair(proto: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    return any(node.input[0] in other.output and other.op_type == DQ for other in proto.graph.node)
