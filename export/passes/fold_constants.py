"""Compute at export what depends on constants only, such as coordinate maps."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnxscript import optimizer

from cluinfer.export.passes import count_nodes

LIMIT = 16 * 1024 * 1024  # bytes of one folded result: coordinates of a 1024 x 1024 image are 8 MiB


def run(model: ir.Model) -> int:
    """Count the nodes that are gone; the folding is onnxscript's."""
    before = count_nodes(model)
    logger = logging.getLogger("onnxscript")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        optimizer.fold_constants(model, onnx_shape_inference=False, input_size_limit=LIMIT, output_size_limit=LIMIT)
    finally:
        logger.setLevel(level)
    return before - count_nodes(model)
