"""TensorRT's rules: a good graph breaks none, and each is broken in turn."""

from __future__ import annotations

from collections.abc import Callable

import calibration_cases as cases
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cluinfer.calibration import to_half
from cluinfer.calibration.trt_rules import check, demand
from cluinfer.errors import GraphError

Q, DQ = "QuantizeLinear", "DequantizeLinear"


def copy() -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(cases.default("fec"))
    return made


def conv(proto: onnx.ModelProto) -> onnx.NodeProto:
    """The first that runs in int8."""
    behind = {node.output[0] for node in cases.nodes(proto, DQ)}
    return next(node for node in cases.nodes(proto, "Conv") if node.input[0] in behind)


def giver(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if name in node.output)


def pair(proto: onnx.ModelProto, place: int) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Q and DQ before that input of it."""
    back = giver(proto, conv(proto).input[place])
    return giver(proto, back.input[0]), back


def replace(proto: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    (tensor,) = [each for each in proto.graph.initializer if each.name == name]
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def held(proto: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = [each for each in proto.graph.initializer if each.name == name]
    return numpy_helper.to_array(tensor)


def add(proto: onnx.ModelProto, name: str, array: np.ndarray) -> str:
    proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def scale(value: float) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: replace(proto, pair(proto, 0)[0].input[1], np.float32(value))


def computed_scale(proto: onnx.ModelProto) -> None:
    to, _ = pair(proto, 0)
    at = list(proto.graph.node).index(to)
    proto.graph.node.insert(at, helper.make_node("Abs", [to.input[1]], ["computed"]))
    to = next(node for node in proto.graph.node if node.output[0] == to.output[0])
    to.input[1] = "computed"


def zero_point(array: np.ndarray) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: replace(proto, pair(proto, 0)[0].input[2], array)


def no_zero_point(proto: onnx.ModelProto) -> None:
    for node in pair(proto, 0):
        del node.input[2:]


def scales_of_an_activation(proto: onnx.ModelProto) -> None:
    to, back = pair(proto, 0)
    scales = add(proto, "scales", np.full(16, 0.1, np.float32))
    points = add(proto, "points", np.zeros(16, np.int8))
    for node in (to, back):
        node.input[1], node.input[2] = scales, points


def wrong_axis(proto: onnx.ModelProto) -> None:
    to, back = pair(proto, 1)
    inputs = held(proto, to.input[0]).shape[1]
    scales = add(proto, "scales", np.full(inputs, 0.1, np.float32))
    points = add(proto, "points", np.zeros(inputs, np.int8))
    for node in (to, back):
        node.input[1], node.input[2] = scales, points
        next(each for each in node.attribute if each.name == "axis").i = 1


def another_scale(proto: onnx.ModelProto) -> None:
    pair(proto, 0)[1].input[1] = add(proto, "another", np.float32(0.3))


def another_axis(proto: onnx.ModelProto) -> None:
    next(each for each in pair(proto, 1)[1].attribute if each.name == "axis").i = 1


def read_between(proto: onnx.ModelProto) -> None:
    to, _ = pair(proto, 0)
    proto.graph.node.append(helper.make_node("Abs", [to.output[0]], ["between"]))


def stored_int8(proto: onnx.ModelProto) -> None:
    to, back = pair(proto, 1)
    back.input[0] = add(proto, "stored", np.zeros(held(proto, to.input[0]).shape, np.int8))
    proto.graph.node.remove(to)


def read_by_a_norm(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", [pair(proto, 0)[1].output[0]], ["read"]))


def shown(proto: onnx.ModelProto) -> None:
    name = pair(proto, 0)[1].output[0]
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def one_alone(proto: onnx.ModelProto) -> None:
    to, _ = pair(proto, 1)
    conv(proto).input[1] = to.input[0]


def bias_behind_a_pair(proto: onnx.ModelProto) -> None:
    node = conv(proto)
    bias = node.input[2]
    scales = [add(proto, "bias.scale", np.float32(1)), add(proto, "bias.zero", np.int8(0))]
    node.input[2] = "bias.back"
    at = list(proto.graph.node).index(node)
    proto.graph.node.insert(at, helper.make_node(DQ, ["bias.int8", *scales], ["bias.back"]))
    proto.graph.node.insert(at, helper.make_node(Q, [bias, *scales], ["bias.int8"]))


def clusters_behind_a_pair(proto: onnx.ModelProto) -> None:
    node = cases.nodes(proto, "ClusterAssign")[0]
    scales = [add(proto, "c.scale", np.float32(1)), add(proto, "c.zero", np.int8(0))]
    points, node.input[0] = node.input[0], "c.moved"
    at = list(proto.graph.node).index(node)
    for moved in (
        helper.make_node("Identity", ["c.back"], ["c.moved"]),
        helper.make_node(DQ, ["c.int8", *scales], ["c.back"]),
        helper.make_node(Q, [points, *scales], ["c.int8"]),
    ):
        proto.graph.node.insert(at, moved)


def double(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.DOUBLE))


def mixed(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Cast", ["image"], ["narrow"], to=TensorProto.FLOAT16))
    proto.graph.node.append(helper.make_node("Add", ["image", "narrow"], ["sum"]))


BREAKERS: list[tuple[Callable[[onnx.ModelProto], None], str, str]] = [
    (scale(0), "scale", "that is not positive and finite"),
    (scale(np.inf), "scale", "that is not positive and finite"),
    (scale(np.nan), "scale", "that is not positive and finite"),
    (scale(-1), "scale", "that is not positive and finite"),
    (computed_scale, "scale", "has a scale that is computed; wanted a constant"),
    (zero_point(np.int8(3)), "zero point", "has a zero point of 3; wanted 0"),
    (zero_point(np.uint8(0)), "zero point", "is quantized to uint8; wanted int8"),
    (no_zero_point, "zero point", "has no constant zero point"),
    (scales_of_an_activation, "channels", "has 16 scales for an activation; wanted one"),
    (wrong_axis, "channels", "has weights with a scale for each index of axis 1, wanted 0"),
    (another_scale, "pair", "has another scale than the QuantizeLinear before it"),
    (another_axis, "pair", "has another axis than the QuantizeLinear before it"),
    (read_between, "pair", "is not followed by DequantizeLinear alone"),
    (stored_int8, "pair", "reads int8 numbers as they are stored; wanted a QuantizeLinear before it"),
    (read_by_a_norm, "readers", "but does not run in int8"),
    (shown, "readers", "gives an output of the graph"),
    (one_alone, "both", "has one quantized input; wanted both or none"),
    (bias_behind_a_pair, "bias", "wanted it in float"),
    (clusters_behind_a_pair, "clusters", "wanted it in float"),
    (double, "types", "'wide' is of type DOUBLE; wanted float32 or fp16"),
    (mixed, "types", "its types do not fit together"),
]


@pytest.mark.parametrize(("breaker", "rule", "message"), BREAKERS)
def test_each_rule_broken(breaker: Callable[[onnx.ModelProto], None], rule: str, message: str) -> None:
    proto = copy()
    breaker(proto)
    found = [each for each in check(proto) if each.rule == rule]
    assert any(message in each.message for each in found), check(proto)
    with pytest.raises(GraphError, match="TensorRT would not take the graph: "):
        demand(proto)


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_good_graphs_break_none(family: str) -> None:
    for proto in (cases.graph(family), cases.default(family), to_half(cases.graph(family))):
        assert check(proto) == []
        demand(proto)


def test_how_many_are_broken_is_said() -> None:
    proto = copy()
    scale(0)(proto)
    with pytest.raises(GraphError, match=r"\(and 1 more\)$"):
        demand(proto)
