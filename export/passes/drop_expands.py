"""Drop an Expand whose readers broadcast by themselves.

Exact where each reader is an elementwise operator with two inputs and the other one already has the expanded shape.
"""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import BINARY, is_op, replace, shape


def run(model: ir.Model) -> int:
    """Leave an Expand that is a graph output, or that widens its reader's result."""
    changes = 0
    for node in list(model.graph):
        if is_op(node, "Expand") and node.inputs[0] is not None and _broadcast_later(node):
            replace(node, node.inputs[0])
            changes += 1
    return changes


def _broadcast_later(node: ir.Node) -> bool:
    value, wanted = node.outputs[0], shape(node.outputs[0])
    if wanted is None or shape(node.inputs[0]) is None or value.is_graph_output() or not value.uses():
        return False
    return all(
        is_op(user, *BINARY)
        and len(user.inputs) == 2
        and user.inputs[1 - place] is not value
        and shape(user.inputs[1 - place]) == wanted
        for user, place in value.uses()
    )
