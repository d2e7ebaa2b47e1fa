"""The graph as TensorRT takes it, held against its parser's rules and, in ONNX Runtime, against the graph it was."""

from __future__ import annotations

import engine_cases
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cluinfer.engines.trt.graph import Call, kernels, standard, types_of_weights, with_plugins
from cluinfer.errors import GraphError, ShapeError
from cluinfer.native.cuda import Shape
from cluinfer.ops import OPERATORS, reference

onnxruntime = pytest.importorskip("onnxruntime")

# docs/operators.md of TensorRT's parser 8.6: what our graphs may hold
PARSER_8_6 = [
    "Add",
    "And",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "Gemm",
    "GlobalAveragePool",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "Less",
    "LessOrEqual",
    "Log",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pad",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
]


def single(operator: str, half: bool, weighted: bool, sides: dict[str, int | str], **attributes: float) -> bytes:
    """A graph of one operator."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    schema = OPERATORS[operator]
    taken = [tensor for tensor in schema.inputs if weighted or not tensor.optional]

    def value(tensor):
        shape = [sides[symbol] for symbol in tensor.shape]
        return helper.make_tensor_value_info(tensor.name, TensorProto.INT32 if tensor.dtype == "int32" else kind, shape)

    outputs = [value(tensor) for tensor in schema.outputs]
    names = [[each.name for each in tensors] for tensors in (taken, schema.outputs)]
    if operator == "ClusterScatter":  # its output is called as an input of others
        names[1], outputs[0].name = ["made"], "made"
    node = helper.make_node(operator, *names, domain="cluinfer", **attributes)
    graph = helper.make_graph([node], "single", [value(tensor) for tensor in taken], outputs)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("cluinfer", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def run(graph: bytes, *feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph)
    return session.run(None, dict(zip((i.name for i in session.get_inputs()), feeds, strict=True)))


SIDES: dict[str, int | str] = {"G": "groups", "D": 5, "C": 5, "N": 40, "M": 7}


def draw(half: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    kind = np.float16 if half else np.float32
    wide, narrow = rng.standard_normal((2, 5, 40)).astype(kind), rng.standard_normal((2, 5, 7)).astype(kind)
    index = rng.integers(-2, 9, (2, 40)).astype(np.int32)
    index[0, :2] = -(2**31), 2**31 - 1
    return {"wide": wide, "narrow": narrow, "index": index, "weight": rng.random((2, 40)).astype(kind)}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("sigmoid", [0, 1])
def test_standard_assign(half: bool, sigmoid: int) -> None:
    drawn = draw(half)
    graph = standard(single("ClusterAssign", half, False, SIDES, alpha=-2.5, beta=0.25, sigmoid=sigmoid))
    drawn["wide"][1, :, 3] = 0
    index, weight = run(graph, drawn["wide"], drawn["narrow"])
    wanted = reference.cluster_assign(drawn["wide"], drawn["narrow"], alpha=-2.5, beta=0.25, sigmoid=bool(sigmoid))
    np.testing.assert_array_equal(index, wanted[0])
    np.testing.assert_allclose(weight, wanted[1], rtol=1e-3 if half else 1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_standard_scatter_and_gather(half: bool, weighted: bool) -> None:
    drawn = draw(half)
    weight = [drawn["weight"]] if weighted else []
    (centers,) = run(
        standard(single("ClusterScatter", half, weighted, SIDES)),
        *(drawn["wide"], drawn["index"], drawn["narrow"], *weight),
    )
    wanted = reference.cluster_scatter(drawn["wide"], drawn["index"], drawn["narrow"], *weight)
    np.testing.assert_allclose(centers, wanted, rtol=2e-3 if half else 1e-5, atol=1e-3 if half else 1e-6)
    (points,) = run(standard(single("ClusterGather", half, weighted, SIDES)), drawn["narrow"], drawn["index"], *weight)
    np.testing.assert_array_equal(points, reference.cluster_gather(drawn["narrow"], drawn["index"], *weight))


@pytest.mark.parametrize("family", ["fec", "coc", "cluenet"])
def test_whole_networks_in_standard_operators(family: str) -> None:
    content = standard(engine_cases.small(family))
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= set(PARSER_8_6)
    assert not model.functions
    assert {each.domain for each in model.opset_import} == {""}
    assert not [node for node in model.graph.node if node.op_type == "ScatterElements"]
    assert {each.version for each in model.opset_import} == {17}
    assert not [node for node in model.graph.node if node.op_type == "Shape"]  # 8.6 ignores its start and end
    told = [attribute.name for node in model.graph.node if node.op_type == "Constant" for attribute in node.attribute]
    assert set(told) == {"value"}  # of a Constant's `value_ints` 8.6 reads nothing
    session = onnxruntime.InferenceSession(content)
    made = session.run(None, {"image": engine_cases.image(3)})
    names = [output.name for output in session.get_outputs()]
    engine_cases.assert_same(dict(zip(names, made, strict=True)), engine_cases.in_onnx_runtime(family, 3))


@pytest.mark.parametrize("family", ["fec", "coc", "cluenet"])
def test_whole_networks_with_plugins(family: str) -> None:
    before = onnx.load_model_from_string(engine_cases.small(family))
    content, calls = with_plugins(engine_cases.small(family))
    model = onnx.load_model_from_string(content)
    assert not [function for function in model.functions if function.domain == "cluinfer"]
    assert model.metadata_props == before.metadata_props
    nodes = [node for node in model.graph.node if node.domain == "cluinfer"]
    assert len(nodes) == len(calls) == sum(node.domain == "cluinfer" for node in before.graph.node) > 3
    for node, call in zip(nodes, calls, strict=True):
        weighted = call.operator != "ClusterAssign" and len(node.input) == len(OPERATORS[call.operator].inputs)
        assert node.op_type == call.operator + ("Weighted" if weighted else "")
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        own = {a.name for a in OPERATORS[call.operator].attributes}
        assert held.keys() == own | {"plugin_namespace", "plugin_version", "aot"}
        assert (held["plugin_namespace"], held["plugin_version"], held["aot"]) == (b"cluinfer", b"1", 1)
        assert not own or (held["alpha"], held["beta"]) == (call.alpha, call.beta)
    assert len(kernels(calls)) == len(set(calls))


def test_attributes_that_a_node_leaves_out() -> None:
    content, (call,) = with_plugins(single("ClusterAssign", False, False, SIDES))
    (node,) = onnx.load_model_from_string(content).graph.node
    held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert (held["alpha"], held["beta"], held["sigmoid"]) == (1.0, 0.0, 1)
    assert call == Call("ClusterAssign", Shape(5, 40, 7), False)


def test_kernels_that_differ_in_attributes_alone_have_names_of_their_own() -> None:
    calls = [Call("ClusterAssign", Shape(8, 9, 4), True, alpha=alpha) for alpha in (1.0, 2.0, 3.0, 1.0)]
    calls.append(Call("ClusterAssign", Shape(8, 9, 44), True))
    assert list(kernels(calls)) == [
        "cluster_assign_d8_n9_m4_fp16",
        "cluster_assign_d8_n9_m4_fp16_2",
        "cluster_assign_d8_n9_m4_fp16_3",
        "cluster_assign_d8_n9_m44_fp16",
    ]


@pytest.mark.parametrize("prepare", [with_plugins, standard])
def test_graphs_that_are_refused(prepare) -> None:
    free = single("ClusterAssign", False, False, {**SIDES, "N": "points"})
    with pytest.raises(ShapeError, match=r"ClusterAssign '': .*leaves one of them free; export it for a fixed size"):
        prepare(free)
    model = onnx.load_model_from_string(single("ClusterGather", False, True, SIDES))
    model.graph.input[2].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(GraphError, match="all float32 or all float16"):
        prepare(model.SerializeToString())
    model.graph.input.pop()
    with pytest.raises(GraphError, match="does not say what shape 'weight' has"):
        prepare(model.SerializeToString())
    model.graph.node[0].op_type = "ClusterSort"
    with pytest.raises(GraphError, match=r"ClusterSort .* is no cluinfer operator"):
        prepare(model.SerializeToString())
    with pytest.raises(GraphError, match="not ONNX"):
        prepare(b"\xff\xff")


def test_what_the_weights_are() -> None:
    sizes = types_of_weights(engine_cases.small("coc"))
    assert sizes["float"] > 10_000
    assert sizes["float16"] == 0
