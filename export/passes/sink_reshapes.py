"""Move a Reshape past elementwise operators, towards the Reshape that undoes or replaces it."""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import constant, is_op
from cluinfer.export.passes._sink import sink


def run(model: ir.Model) -> int:
    """A target that copies dimensions of its input (0) would mean another shape at another place: left alone."""
    return sum(_plain(node) and sink(node, _plain) for node in list(model.graph))


def _plain(node: ir.Node) -> bool:
    target = constant(node.inputs[1]) if is_op(node, "Reshape") else None
    return target is not None and 0 not in target
