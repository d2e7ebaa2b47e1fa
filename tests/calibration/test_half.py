"""fp16: which layers, which types, what stays in float32."""

from __future__ import annotations

import calibration_cases as cases
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pass_cases
import pytest
from onnx import TensorProto

from cluinfer.calibration import to_half
from cluinfer.errors import CalibrationError

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def types(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    ports = (*inferred.value_info, *inferred.input, *inferred.output)
    return {port.name: port.type.tensor_type.elem_type for port in ports} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


def run(proto: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_islands_stay_in_float32(family: str) -> None:
    made = to_half(cases.graph(family))
    kinds = types(made)
    floats = (
        "ClusterAssign",
        "ClusterScatter",
        "ClusterGather",
        "Softmax",
        "ReduceL2",
        "ReduceMean",
        "LayerNormalization",
    )
    for node in made.graph.node:
        given = {kinds[name] for name in (*node.input, *node.output) if kinds.get(name) in (HALF, FLOAT)}
        assert node.op_type == "Cast" or len(given) <= 1, node
        if node.op_type in floats:
            assert given <= {FLOAT}, node
    for port in (*made.graph.input, *made.graph.output):
        assert port.type.tensor_type.elem_type != HALF
    products = [node for node in made.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert {kinds[node.output[0]] for node in products} == {HALF, FLOAT}
    assert kinds[cases.nodes(made, "Conv")[0].output[0]] == FLOAT  # the embedding, before the first similarity


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_it_gives_nearly_the_same(family: str) -> None:
    images = cases.images()[:8]
    wanted, got = run(cases.graph(family), images), run(to_half(cases.graph(family)), images)
    assert wanted.keys() == got.keys()
    for name, array in wanted.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        if name == "logits":
            assert 0 < np.abs(got[name] - array).mean() < 0.01 * array.std()
        else:
            assert (got[name] == array).mean() > 0.99


def test_int8_stays_int8() -> None:
    proto = cases.default("fec")
    made = to_half(proto)
    assert len(cases.nodes(made, "QuantizeLinear")) == len(cases.nodes(proto, "QuantizeLinear"))
    images = cases.images()[:8]
    wanted, got = run(proto, images)["logits"], run(made, images)["logits"]
    assert np.abs(got - wanted).mean() < 0.05 * wanted.std()


def test_a_constant_too_large_keeps_its_node_in_float32() -> None:
    def model(weight: np.ndarray) -> onnx.ModelProto:
        body = "h = Conv(image, a)\n r = Relu(h)\n logits = Conv(r, b)"
        return ir.to_proto(
            pass_cases.build(
                "float[B, 4, 2, 2] image", "float[B, 4, 2, 2] logits", body, a=pass_cases.normal(4, 4, 1, 1), b=weight
            )
        )

    weight = pass_cases.normal(4, 4, 1, 1)
    assert all(types(to_half(model(weight)))[name] == HALF for name in ("h", "r"))
    weight[0, 0] = 70_000
    made = to_half(model(weight))
    kinds = types(made)
    assert kinds["h"] == HALF
    assert kinds[cases.nodes(made, "Conv")[1].input[1]] == FLOAT


def test_what_has_no_layer() -> None:
    proto = ir.to_proto(pass_cases.build("float[B, 4] x", "float[B, 4] y", "y = Relu(x)"))
    with pytest.raises(CalibrationError, match="no layer of the graph can run in fp16; use it in float32"):
        to_half(proto)
