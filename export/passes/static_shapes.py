"""Turn Reshape and Expand targets that are computed from the batch into constants.

A target is known where the output's shape is: the numbers as they are and, for the one dimension that follows the
batch, -1 in a Reshape (what is left over) and 1 in an Expand whose input has that dimension already (keep it). A
constant target that copies dimensions of its input (0) is spelled out too, so that it no longer depends on the input.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import Dim, add_constant, constant, graph_of, is_op, set_input, shape


def run(model: ir.Model) -> int:
    """Leave targets with two dimensions that may vary, and empty ones: there 0 and -1 have other meanings."""
    changes = 0
    for node in model.graph:
        if not is_op(node, "Reshape", "Expand"):
            continue
        given = constant(node.inputs[1])
        if given is not None and (node.op_type == "Expand" or 0 not in given):
            continue
        before, after = shape(node.inputs[0]), shape(node.outputs[0])
        if before is None or after is None or 0 in (*before, *after):
            continue
        target = _reshape(after) if node.op_type == "Reshape" else _expand(before, after)
        if target is not None:
            name = f"{node.outputs[0].name}_shape"
            set_input(node, 1, add_constant(graph_of(node), name, np.array(target, np.int64)))
            changes += 1
    return changes


def _reshape(after: list[Dim]) -> list[int] | None:
    target = [dim if isinstance(dim, int) else -1 for dim in after]
    return target if target.count(-1) <= 1 else None


def _expand(before: list[Dim], after: list[Dim]) -> list[int] | None:
    aligned = [1] * (len(after) - len(before)) + before
    target = [1 if have == want and isinstance(want, str) else want for have, want in zip(aligned, after, strict=True)]
    return [dim for dim in target if isinstance(dim, int)] if all(isinstance(dim, int) for dim in target) else None
