"""Fusions on an OpenVINO model: neighbouring cluster operators into one native operator on channels-last maps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.aggregation import fuse_aggregation
from cluinfer.engines.openvino_fusion.edit import Editor, replace
from cluinfer.engines.openvino_fusion.maps import assign_from_map
from cluinfer.engines.openvino_fusion.mixers import fuse_mixer
from cluinfer.engines.openvino_fusion.replay import constant

__all__ = ["fuse"]


def fuse(model: Any, library: str) -> Counter[str]:
    """Fuse in place; what was made, by name. The model must have been read with the extension `library`."""
    editor, made = Editor(library), Counter[str]()
    for kind, fusion in (
        ("ClusterAssign", fuse_mixer),
        ("Softmax", fuse_aggregation),
        ("ClusterAssign", assign_from_map),
    ):
        for node in list(model.get_ordered_ops()):
            if node.get_type_name() == kind and any(output.get_target_inputs() for output in node.outputs()):
                made[fusion(node, editor)] += 1
    del made[""]
    made["ones dropped"] += _drop_ones(model)
    model.validate_nodes_and_infer_types()
    return made


def _drop_ones(model: Any) -> int:
    """ONNX's LayerNormalization must have a scale, one number a point; one of ones costs a pass over the map."""
    dropped = 0
    for node in list(model.get_ordered_ops()):
        if node.get_type_name() != "Multiply":
            continue
        for place in (0, 1):
            ones, value = constant(node.input_value(place)), node.input_value(1 - place)
            if ones is None or value.get_node().get_type_name() != "MVN" or not np.all(ones == 1):
                continue
            if value.get_partial_shape() == node.get_output_partial_shape(0):
                replace(node.output(0), value)
                dropped += 1
                break
    return dropped
