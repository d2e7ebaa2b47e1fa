"""Pool a map before its channels are split into heads, not after.

A Reshape that keeps the last two of four dimensions only regroups channels, and neither an AveragePool nor a MatMul
with a constant from either side looks across them. Afterwards one pool can serve all maps that are split alike.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    add_constant,
    constant,
    graph_of,
    insert_before,
    is_op,
    make,
    remove_unused,
    replace,
    set_input,
    shape,
    source,
)


def run(model: ir.Model) -> int:
    """The Reshape stays for the points, which are read in heads."""
    changes = 0
    for node in list(model.graph):
        place = _pooled_input(node)
        split = None if place is None else source(node.inputs[place], "Reshape")
        if place is None or split is None:
            continue
        target, before, after = constant(split.inputs[1]), shape(split.inputs[0]), shape(split.outputs[0])
        pooled = shape(node.outputs[0])
        if target is None or 0 in target or before is None or after is None or pooled is None:
            continue
        if len(before) != 4 or len(after) != 4 or before[2:] != after[2:] or -1 in target[2:] or len(pooled) != 4:
            continue
        if not all(isinstance(dim, int) for dim in (*after[2:], *pooled[2:])):
            continue
        value = node.outputs[0]
        wanted = np.array([*target[:2], *pooled[2:]], np.int64)
        heads = make("Reshape", [value, add_constant(graph_of(node), "heads_shape", wanted)], value.dtype, pooled)
        moved = make(
            node.op_type, list(node.inputs), value.dtype, [*before[:2], *pooled[2:]], attributes=node.attributes
        )
        set_input(moved, place, split.inputs[0])
        set_input(heads, 0, moved.outputs[0])
        insert_before(node, moved, heads)
        replace(node, heads.outputs[0])
        remove_unused(split)
        changes += 1
    return changes


def _pooled_input(node: ir.Node) -> int | None:
    """Which input of a pooling operator is the map."""
    if is_op(node, "AveragePool"):
        return 0
    if is_op(node, "MatMul"):
        known = [constant(value) for value in node.inputs]
        for place, matrix in ((0, known[1]), (1, known[0])):
            if known[place] is None and matrix is not None and matrix.ndim == 2:
                return place
    return None
