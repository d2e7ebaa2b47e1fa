"""Move a Transpose past elementwise operators, towards one that undoes it or a Linear that absorbs it."""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import constant, is_op, shape
from cluinfer.export.passes._sink import sink


def run(model: ir.Model) -> int:
    """A GELU between two Linear layers is worked on channel-first as well: only the order of its elements changes."""
    return sum(is_op(node, "Transpose") and sink(node, _welcome) for node in list(model.graph))


def _welcome(user: ir.Node) -> bool:
    if not is_op(user, "MatMul"):
        return is_op(user, "Transpose")
    weight = constant(user.inputs[1])
    return weight is not None and weight.ndim == 2 and shape(user.inputs[0]) is not None
