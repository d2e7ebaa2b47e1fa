"""Let a Reshape read the value before the Reshape, Squeeze, Unsqueeze or Flatten that gives its input.

A reshape only renames positions, so the last one decides alone, if its target does not copy a dimension of its input.
"""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import constant, is_op, remove_unused, set_input, source

RENAMES = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def run(model: ir.Model) -> int:
    """The first one stays for its other readers."""
    changes = 0
    for node in list(model.graph):
        if not is_op(node, "Reshape"):
            continue
        target, before = constant(node.inputs[1]), source(node.inputs[0], *RENAMES)
        if before is None or target is None or 0 in target:
            continue
        set_input(node, 0, before.inputs[0])
        remove_unused(before)
        changes += 1
    return changes
