"""Let one Transpose do the work of two in a row, and none where the second undoes the first."""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import can_replace, is_op, remove_unused, replace, set_input, source


def run(model: ir.Model) -> int:
    """The first one stays for its other readers."""
    changes = 0
    for node in list(model.graph):
        first = source(node.inputs[0], "Transpose") if is_op(node, "Transpose") else None
        if first is None or first.inputs[0] is None:
            continue
        inner, outer = first.attributes.get_ints("perm"), node.attributes.get_ints("perm")
        if inner is None or outer is None:
            continue
        order = [inner[axis] for axis in outer]
        if order == sorted(order) and can_replace(node.outputs[0], first.inputs[0]):
            replace(node, first.inputs[0])
        else:
            node.attributes["perm"] = ir.AttrInt64s("perm", order)
            set_input(node, 0, first.inputs[0])
        remove_unused(first)
        changes += 1
    return changes
