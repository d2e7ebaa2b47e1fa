"""Move a per-channel shift of one side of a sum into the bias of the Conv that gives the other side."""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import (
    float_constant,
    floats,
    graph_of,
    is_op,
    only_user,
    operands,
    per_channel,
    replace,
    set_input,
    shape,
    source,
)


def run(model: ir.Model) -> int:
    """Both sides must have the sum's shape and no other reader: broadcasting would count the shift otherwise."""
    changes = 0
    for node in list(model.graph):
        if not is_op(node, "Add"):
            continue
        for x, other in operands(node):
            shift, total = per_channel(other, x), only_user(node.outputs[0])
            if shift is not None and is_op(total, "Add") and total is not None and _moved(node, total, shift):
                replace(node, x)
                changes += 1
                break
    return changes


def _moved(node: ir.Node, total: ir.Node, shift: object) -> bool:
    for mine, theirs in operands(total):
        conv = source(theirs, "Conv")
        if mine is not node.outputs[0] or conv is None or only_user(theirs) is not total:
            continue
        bias = floats(conv.inputs[2] if len(conv.inputs) > 2 else None)
        alike = shape(mine) is not None and shape(mine) == shape(theirs)
        if bias is None or not alike:
            continue
        set_input(conv, 2, float_constant(graph_of(conv), conv.inputs[2], bias + shift))
        return True
    return False
