"""Drop nodes that hand on their input as it is: casts to the same type, reshapes to the same shape, and the like.

Cast, CastLike      the type is what it was
Identity            always
Reshape, Expand     the shape is what it was, dimension by dimension
Squeeze, Unsqueeze  likewise, or it is again what it was before the Reshape, Squeeze or Unsqueeze in front
Transpose           the order is what it was
"""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import can_replace, is_op, remove_unused, replace, shape, source

RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")


def run(model: ir.Model) -> int:
    """A node between a graph input and a graph output stays: both keep their names."""
    changes = 0
    for node in list(model.graph):
        value = node.inputs[0] if node.inputs else None
        if value is not None and not _does_nothing(node, value):
            value = _undone(node)
        if value is not None and can_replace(node.outputs[0], value):
            before = node.inputs[0].producer() if node.inputs[0] is not None else None
            replace(node, value)
            if before is not value.producer():
                remove_unused(before)
            changes += 1
    return changes


def _undone(node: ir.Node) -> ir.Value | None:
    """What stood before two reshapes, if the second takes back the first."""
    first = source(node.inputs[0], *RESHAPES) if is_op(node, *RESHAPES) else None
    if first is None or shape(first.inputs[0]) is None or shape(first.inputs[0]) != shape(node.outputs[0]):
        return None
    return first.inputs[0]


def _does_nothing(node: ir.Node, value: ir.Value) -> bool:
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Cast"):
        return value.dtype is not None and value.dtype == node.attributes.get_int("to")
    if is_op(node, "CastLike"):
        like = node.inputs[1]
        return value.dtype is not None and like is not None and value.dtype == like.dtype
    if is_op(node, "Reshape", "Expand", "Squeeze", "Unsqueeze"):
        dims = shape(value)
        return dims is not None and dims == shape(node.outputs[0])
    if is_op(node, "Transpose"):
        order = node.attributes.get_ints("perm")
        return order is not None and list(order) == sorted(order)
    return False
