"""TensorRT's rules for int8 and fp16 graphs, checked without TensorRT: what it would refuse, or run slowly.

scale       a constant, float32 or float16, positive and finite
zero point  given, int8, zeros
channels    one scale for each only on weights, along the outputs: axis 0 of Conv, 1 of ConvTranspose, the last of
            MatMul (of Gemm, the first if transB), as many as there are outputs
pair        every Q is followed by DQs alone, every DQ follows a Q, of the same scale, zero point and axis; weights
            stand in float before theirs
readers     what a pair gives goes to Conv, ConvTranspose, MatMul, Gemm, or to an Add as the residual
both        a layer with one quantized input has two
bias        in float, not behind a pair
clusters    no cluster operator reads a pair, not even by way of operators that only move numbers; all in float32
types       strongly typed: the inputs of an operator are of one float type; no double, no bfloat16
opset       19 or later where fp16 is quantized
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cluinfer.errors import GraphError
from cluinfer.export.onnx_parts import name_of
from cluinfer.ops.schema import DOMAIN

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MOVES = (
    "Reshape",
    "Transpose",
    "Split",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "AveragePool",
    "Concat",
    "Flatten",
)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_STRANGE = (TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Broken:
    """A rule, by the name in the table above, and where and how it is broken."""

    rule: str
    message: str


def demand(graph: onnx.ModelProto) -> None:
    """Refuse a graph that breaks a rule."""
    broken = check(graph)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise GraphError(f"TensorRT would not take the graph: {broken[0].message}{more}")


def check(graph: onnx.ModelProto) -> list[Broken]:
    """Every rule that is broken, in the order of the graph."""
    facts = _Facts(graph)
    broken: list[Broken] = []
    for node in graph.graph.node:
        if node.op_type in (_Q, _DQ):
            broken += _check_scale(node, facts)
            broken += _check_pair(node, facts)
        if node.op_type == _DQ:
            broken += _check_readers(node, facts)
        if node.op_type in _LAYERS:
            broken += _check_layer(node, facts)
        if node.domain == DOMAIN:
            broken += _check_clusters(node, facts)
    return [*broken, *_check_types(graph, facts)]


class _Facts:
    """Who gives and who reads each value, and what is constant."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        self.opset = max((each.version for each in graph.opset_import if each.domain in ("", "ai.onnx")), default=0)
        self.producer = {name: node for node in graph.graph.node for name in node.output}
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.graph.node:
            for place, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, place))
        self.tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
        for node in graph.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = node.attribute[0].t
        self.outputs = {port.name for port in graph.graph.output}

    def array(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        """The constant at this input, if it is one."""
        tensor = self.tensors.get(node.input[place]) if len(node.input) > place else None
        return None if tensor is None else numpy_helper.to_array(tensor)


def _check_scale(node: onnx.NodeProto, facts: _Facts) -> Iterator[Broken]:
    where = _where(node)
    scale, zero = facts.array(node, 1), facts.array(node, 2)
    if scale is None:
        yield Broken("scale", f"{where} has a scale that is computed; wanted a constant")
        return
    if scale.dtype not in (np.float32, np.float16):
        yield Broken("scale", f"{where} has a scale of {scale.dtype}; wanted float32 or float16")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield Broken("scale", f"{where} has a scale that is not positive and finite")
    if zero is None:
        yield Broken("zero point", f"{where} has no constant zero point; without one its numbers are unsigned")
    elif zero.dtype != np.int8:
        yield Broken("zero point", f"{where} is quantized to {zero.dtype}; wanted int8")
    elif zero.any():
        yield Broken("zero point", f"{where} has a zero point of {zero.flat[np.flatnonzero(zero)[0]]}; wanted 0")
    if scale.ndim > 1 or (node.op_type == _Q and scale.size > 1 and facts.array(node, 0) is None):
        yield Broken("channels", f"{where} has {scale.size} scales for an activation; wanted one")


def _check_pair(node: onnx.NodeProto, facts: _Facts) -> Iterator[Broken]:
    where = _where(node)
    if node.op_type == _Q:
        readers = facts.readers.get(node.output[0], [])
        if node.output[0] in facts.outputs or not readers or any(reader.op_type != _DQ for reader, _ in readers):
            yield Broken("pair", f"{where} is not followed by DequantizeLinear alone")
        return
    giver = facts.producer.get(node.input[0])
    if giver is None or giver.op_type != _Q:
        what = "int8 numbers as they are stored" if node.input[0] in facts.tensors else "what is no QuantizeLinear"
        yield Broken("pair", f"{where} reads {what}; wanted a QuantizeLinear before it")
        return
    for place, what in ((1, "scale"), (2, "zero point")):
        mine, its = facts.array(node, place), facts.array(giver, place)
        if mine is not None and its is not None and not np.array_equal(mine, its):
            yield Broken("pair", f"{where} has another {what} than the QuantizeLinear before it")
    scales = facts.array(node, 1)
    if scales is not None and scales.size > 1 and _axis(node) != _axis(giver):
        yield Broken("pair", f"{where} has another axis than the QuantizeLinear before it")


def _check_readers(node: onnx.NodeProto, facts: _Facts) -> Iterator[Broken]:
    where = _where(node)
    if node.output[0] in facts.outputs:
        yield Broken("readers", f"{where} gives an output of the graph")
    for reader, place in facts.readers.get(node.output[0], []):
        if reader.op_type in _LAYERS and place == 2:
            yield Broken("bias", f"{_where(reader)} has a bias behind {where}; wanted it in float")
        elif reader.op_type not in (*_LAYERS, "Add") or reader.domain not in ("", "ai.onnx"):
            yield Broken("readers", f"{_where(reader)} reads {where}, but does not run in int8")


def _check_layer(node: onnx.NodeProto, facts: _Facts) -> Iterator[Broken]:
    pairs = [facts.producer.get(name) for name in node.input[:2]]
    quantized = [pair is not None and pair.op_type == _DQ for pair in pairs]
    if any(quantized) and not all(quantized):
        yield Broken("both", f"{_where(node)} has one quantized input; wanted both or none")
    weight = pairs[1]
    if not all(quantized) or weight is None:
        return
    scale = facts.array(weight, 1)
    giver = facts.producer.get(weight.input[0])
    held = facts.array(giver, 0) if giver is not None and giver.op_type == _Q else None
    if scale is None or held is None or scale.size == 1:
        return
    turned = any(each.name == "transB" and each.i for each in node.attribute)
    wanted = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if turned else held.ndim - 1}.get(node.op_type, held.ndim - 1)
    axis = _axis(weight) % max(held.ndim, 1)
    if axis != wanted:
        yield Broken(
            "channels", f"{_where(node)} has weights with a scale for each index of axis {axis}, wanted {wanted}"
        )
    elif held.shape[axis] != scale.size:
        yield Broken("channels", f"{_where(node)} has {scale.size} scales for {held.shape[axis]} outputs")


def _check_clusters(node: onnx.NodeProto, facts: _Facts) -> Iterator[Broken]:
    todo, seen = list(node.input), set(node.input)
    while todo:
        giver = facts.producer.get(todo.pop())
        if giver is None:
            continue
        if giver.op_type in (_Q, _DQ):
            yield Broken("clusters", f"{_where(node)} reads what {_where(giver)} gives; wanted it in float")
            return
        if giver.op_type in _MOVES:
            todo += [name for name in giver.input if name not in seen]
            seen |= set(giver.input)


def _check_types(graph: onnx.ModelProto, facts: _Facts) -> Iterator[Broken]:
    try:
        inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)
    except Exception as error:  # onnx has no one class for them
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "==>" not in line), lines[-1] if lines else "")
        yield Broken("types", f"its types do not fit together: {said[:200]}")
        return
    ports = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    types = {port.name: port.type.tensor_type.elem_type for port in ports}
    types |= {name: tensor.data_type for name, tensor in facts.tensors.items()}
    for name, kind in types.items():
        if kind in _STRANGE:
            yield Broken(
                "types", f"{name_of(name)} is of type {TensorProto.DataType.Name(kind)}; wanted float32 or fp16"
            )
    for node in graph.graph.node:
        kinds = {types.get(name) for name in node.input if types.get(name) in _FLOATS}
        if node.domain == DOMAIN and TensorProto.FLOAT16 in kinds:
            yield Broken("clusters", f"{_where(node)} computes in fp16; wanted float32")
        if node.op_type in (_Q, _DQ):
            scale = types.get(node.input[1])
            if scale == TensorProto.FLOAT16 and facts.opset < 19:
                yield Broken("opset", f"{_where(node)} has fp16 scales in opset {facts.opset}; wanted 19 or later")


def _axis(node: onnx.NodeProto) -> int:
    held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return int(held.get("axis", 1))


def _where(node: onnx.NodeProto) -> str:
    return f"{node.op_type} of {name_of(node.output[0])}"
