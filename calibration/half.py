"""A graph in fp16 for TensorRT, whose networks are strongly typed: the types stand in the graph, with casts between.

Rules:
- In fp16: the layers that multiply by weights, except those that decide clusters, and what stands between such layers
  (activations, biases). Everything else stays in float32: norms, the cluster operators and all that leads from a
  similarity to them, softmaxes.
- So does all that comes before the first similarity: every later layer would see its rounding. (In a random CLUENet
  it moves 0.5 % of the points, all other layers together 0.2 %.) The residual, which starts there, is float32, too.
- The input and the outputs keep their types. A constant too large for fp16 keeps its node in float32.
- A layer in int8 keeps its float32 types: what it multiplies are integers, whatever stands around its pairs.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from cluinfer.calibration import trt_rules
from cluinfer.calibration.layers import SHOWN, SIMILARITY, find_layers
from cluinfer.errors import CalibrationError
from cluinfer.export.passes._match import BINARY, UNARY, add_constant, constant, is_op, make, shape

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
LARGEST = 65504.0
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_BETWEEN = (*UNARY, *BINARY, "Clip", "PRelu", "Gelu")


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with those layers in fp16; it obeys TensorRT's rules."""
    model = ir.from_proto(graph)
    chosen = _choose(model)
    if not chosen and any(is_op(node, *_PAIR) for node in model.graph):
        return graph
    if not chosen:
        raise CalibrationError("no layer of the graph can run in fp16; use it in float32")
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in list(model.graph):
        wanted = HALF if node in chosen else FLOAT
        for place, value in enumerate(node.inputs):
            if value is not None and value.dtype in (HALF, FLOAT) and value.dtype != wanted:
                node.replace_input_with(place, _cast(model.graph, value, wanted, casts))
        if node in chosen:
            for value in node.outputs:
                value.type = ir.TensorType(HALF) if value.dtype == FLOAT else value.type
    _keep_outputs(model.graph)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    made = ir.to_proto(model)
    trt_rules.demand(made)
    return made


def _choose(model: ir.Model) -> set[ir.Node]:
    """The nodes that run in fp16."""
    layers = find_layers(model)
    first = next((i for i, layer in enumerate(layers) if layer.role == SIMILARITY), 0)
    wanted = [layer.node for layer in layers[first:] if layer.role not in (SIMILARITY, SHOWN)]
    chosen = {node for node in wanted if _fits(node)}
    for node in model.graph:  # in order, so that what stands between grows from layer to layer
        if is_op(node, *_BETWEEN) and node not in chosen and _fits(node):
            givers = [value.producer() for value in node.inputs if value is not None and constant(value) is None]
            if givers and all(giver in chosen for giver in givers):
                chosen.add(node)
    return chosen


def _fits(node: ir.Node) -> bool:
    arrays = [array for value in node.inputs if (array := constant(value)) is not None and array.dtype == np.float32]
    return all(bool((np.abs(array) <= LARGEST).all()) for array in arrays)


def _cast(
    graph: ir.Graph, value: ir.Value, wanted: ir.DataType, casts: dict[tuple[ir.Value, ir.DataType], ir.Value]
) -> ir.Value:
    """The value in this type, once for all who read it so."""
    if (value, wanted) not in casts:
        array = constant(value)
        if array is not None:
            casts[value, wanted] = add_constant(graph, f"{value.name}.half", array.astype(wanted.numpy()))
        else:
            node = make("Cast", [value], wanted, shape(value), attributes={"to": int(wanted)})
            giver = value.producer()
            if giver is None:
                graph.insert_before(graph[0], node)
            else:
                graph.insert_after(giver, node)
            casts[value, wanted] = node.outputs[0]
    return casts[value, wanted]


def _keep_outputs(graph: ir.Graph) -> None:
    for place, value in enumerate(graph.outputs):
        if value.dtype == HALF:
            node = make("Cast", [value], FLOAT, shape(value), attributes={"to": int(FLOAT)})
            graph.append(node)
            made, name = node.outputs[0], value.name
            graph.outputs[place] = made
            value.name, made.name = f"{name}.half", name
