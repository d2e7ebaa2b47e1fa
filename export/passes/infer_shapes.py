"""Note the shape and type of every value that has none, for the passes after this one to rely on."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def run(model: ir.Model) -> int:
    """Infer with ONNX's own rules; values that they do not reach stay as they are."""
    before = _known(model)
    if before == sum(len(node.outputs) for node in model.graph):
        return 0
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # cluinfer nodes have no inference rule, and need none: their shapes are set
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    finally:
        logger.setLevel(level)
    return _known(model) - before


def _known(model: ir.Model) -> int:
    return sum(value.shape is not None and value.type is not None for node in model.graph for value in node.outputs)
