"""Q/DQ pairs around the layers that are to run in int8; the rest of the graph stays as it is, in float32.

What the pairs look like, so that TensorRT, OpenVINO and ONNX Runtime take the same graph (trt_rules.py checks it):
- A pair at both inputs of a layer, nothing at its output, the bias in float.
- Activations have one scale, weights one an output; both are symmetric with zero points of 0, in signed int8.
- A value that several layers read has one pair for all of them. Norms, additions, activations and the cluster operators
  never read from a pair: nothing is quantized twice, and the residual is never rounded.
- The balance of scales.py is a Sub and a Mul before the pair: engines fuse them into what they write in int8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from cluinfer.calibration.layers import Layer, find_layers
from cluinfer.calibration.scales import Scales, weight_steps
from cluinfer.export.passes._match import Array, add_constant, floats, graph_of, insert_before, make, set_input, shape

FLOAT, INT8 = ir.DataType.FLOAT, ir.DataType.INT8


def quantize(graph: onnx.ModelProto, layers: Collection[str], scales: Mapping[str, Scales]) -> onnx.ModelProto:
    """The graph with these layers, by name, in int8; `scales` by the name of the value that a layer reads."""
    model = ir.from_proto(graph)
    pairs: dict[str, ir.Value] = {}
    for layer in find_layers(model):
        if layer.name in layers:
            read = layer.input
            name = read.name or ""
            how = scales[name]
            _quantize_weight(layer, how)
            if name not in pairs:
                pairs[name] = _quantize_input(layer, read, how)
            layer.node.replace_input_with(0, pairs[name])
    RemoveUnusedNodesPass()(model)
    model.graph.sort()  # a pair stands before its first reader in the order of layers
    return ir.to_proto(model)


def _quantize_input(layer: Layer, value: ir.Value, how: Scales) -> ir.Value:
    """The value behind a pair, balanced before."""
    name, dims = value.name or "", shape(value)
    broadcast = [1] * len(dims or ())
    broadcast[layer.channel_axis] = -1
    graph = graph_of(layer.node)
    for kind, op_type, numbers in (("middle", "Sub", how.middle), ("factor", "Mul", _inverse(how.factor))):
        if numbers is not None:
            held = add_constant(graph, f"{name}.{kind}", numbers.reshape(broadcast).astype(np.float32))
            node = make(op_type, [value, held], FLOAT, dims)
            insert_before(layer.node, node)
            value = node.outputs[0]
    return _pair(layer, value, name, np.array(how.step, np.float32))


def _quantize_weight(layer: Layer, how: Scales) -> None:
    """The weight behind a pair, and the bias, both as the balance wants them."""
    node, graph = layer.node, graph_of(layer.node)
    matrix = layer.matrix().astype(np.float64)
    outputs, old = len(matrix), layer.weight
    if how.middle is not None:
        bias = floats(node.inputs[2] if len(node.inputs) > 2 else None)
        moved = matrix @ how.middle + (0 if bias is None else bias.reshape(-1))
        set_input(node, 2, add_constant(graph, f"{layer.name}.bias", moved.astype(np.float32)))
    if how.factor is not None:
        matrix = matrix * how.factor
    array = matrix.reshape(old.shape) if layer.weight_axis == 0 else matrix.T.reshape(old.shape)
    weight = add_constant(graph, f"{layer.name}.weight", array.astype(np.float32))
    steps = weight_steps(matrix).astype(np.float32).reshape(outputs)
    node.replace_input_with(1, _pair(layer, weight, weight.name or "", steps, layer.weight_axis))


def _pair(layer: Layer, value: ir.Value, name: str, scale: Array, axis: int | None = None) -> ir.Value:
    """QuantizeLinear and DequantizeLinear before a layer; with an axis, a scale for each index of it."""
    graph, dims = graph_of(layer.node), shape(value)
    constants = [
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", np.zeros(scale.shape, np.int8)),
    ]
    attributes = {} if axis is None else {"axis": axis}
    to = make("QuantizeLinear", [value, *constants], INT8, dims, attributes=attributes)
    back = make("DequantizeLinear", [to.outputs[0], *constants], FLOAT, dims, attributes=attributes)
    insert_before(layer.node, to, back)
    return back.outputs[0]


def _inverse(factor: Array | None) -> Array | None:
    return None if factor is None else 1 / factor
