"""Fold a BatchNormalization into the Conv before it.

Where the weight is also that of ConvTransposes whose input is multiplied by the same scale, as in the exact adjoint of
the layer (ICASC's inner attention), the scaled weight serves them all, and those Muls go too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    Array,
    float_constant,
    floats,
    graph_of,
    is_op,
    only_user,
    operands,
    per_channel,
    remove_unused,
    replace,
    set_input,
    source,
)

ROUNDING = 1e-6  # two float32 computations of the same scale differ by less, relatively


def run(model: ir.Model) -> tuple[int, list[str]]:
    """In the order of the graph; a weight that others read in other ways stays, with a remark."""
    changes, left = 0, []
    for node in list(model.graph):
        conv = source(node.inputs[0], "Conv") if is_op(node, "BatchNormalization") else None
        if conv is None or only_user(conv.outputs[0]) is not node:
            continue
        numbers = _scale_and_shift(node)
        weight, bias = floats(conv.inputs[1]), conv.inputs[2] if len(conv.inputs) > 2 else None
        if numbers is None or weight is None or (bias is not None and floats(bias) is None):
            continue
        scale, shift = numbers
        adjoints = _adjoints(conv, scale)
        if adjoints is None:
            left.append(f"{node.inputs[0].name if node.inputs[0] else ''}: others read its convolution's weight too")
            continue
        _fold(node, conv, weight, scale, shift, adjoints)
        changes += 1
    return changes, left


def _scale_and_shift(node: ir.Node) -> tuple[Array, Array] | None:
    """What the node does to each channel, if it is in inference mode and constant."""
    if node.attributes.get_int("training_mode", 0) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    arrays = [array for value in node.inputs[1:5] if (array := floats(value)) is not None]
    if len(arrays) < 4:
        return None
    gamma, beta, mean, variance = arrays
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


def _adjoints(conv: ir.Node, scale: Array) -> list[tuple[ir.Node, ir.Value]] | None:
    """The weight's other readers, each with what its Mul by the scale reads; None where one reads it otherwise."""
    found: list[tuple[ir.Node, ir.Value]] = []
    weight = conv.inputs[1]
    for user, place in weight.uses() if weight is not None else ():
        if user is conv and place == 1:
            continue
        mul = source(user.inputs[0], "Mul")
        if not is_op(user, "ConvTranspose") or place != 1 or mul is None or conv.attributes.get_int("group", 1) != 1:
            return None
        if user.attributes.get_int("group", 1) != 1:
            return None
        scaled = [x for x, other in operands(mul) if _is(per_channel(other, x), scale)]
        if not scaled:
            return None
        found.append((user, scaled[0]))
    return found


def _is(values: Array | None, scale: Array) -> bool:
    return values is not None and values.shape == scale.shape and np.allclose(values, scale, rtol=ROUNDING, atol=0)


def _fold(
    node: ir.Node, conv: ir.Node, weight: Array, scale: Array, shift: Array, adjoints: list[tuple[ir.Node, ir.Value]]
) -> None:
    graph, bias = graph_of(node), floats(conv.inputs[2] if len(conv.inputs) > 2 else None)
    scaled = float_constant(graph, conv.inputs[1], weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    set_input(conv, 1, scaled)
    set_input(conv, 2, float_constant(graph, node.inputs[2], shift if bias is None else shift + bias * scale))
    for transposed, before in adjoints:
        mul = source(transposed.inputs[0], "Mul")
        set_input(transposed, 0, before)
        set_input(transposed, 1, scaled)
        remove_unused(mul)
    replace(node, conv.outputs[0])
