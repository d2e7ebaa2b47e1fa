"""Fold a per-channel constant that multiplies the result of a Conv into its weight and bias."""

from __future__ import annotations

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
    replace,
    set_input,
    source,
)


def run(model: ir.Model) -> int:
    """The Mul must be the Conv's only reader, the Conv the weight's."""
    return sum(is_op(node, "Mul") and _fold(node) for node in list(model.graph))


def _fold(node: ir.Node) -> bool:
    for x, other in operands(node):
        scale, conv = per_channel(other, x), source(x, "Conv")
        if scale is None or conv is None or only_user(x) is not node:
            continue
        weight, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
        kernel, offset = floats(weight), floats(bias)
        if weight is None or kernel is None or len(weight.uses()) != 1 or (bias is not None and offset is None):
            continue
        graph = graph_of(conv)
        set_input(conv, 1, float_constant(graph, weight, _rows(kernel, scale)))
        if offset is not None:
            set_input(conv, 2, float_constant(graph, bias, offset * scale))
        replace(node, x)
        return True
    return False


def _rows(kernel: Array, scale: Array) -> Array:
    scaled: Array = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return scaled
