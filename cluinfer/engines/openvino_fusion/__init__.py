"""Fusions on an OpenVINO model: neighbouring cluster operators into one native operator on channels-last maps."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cluinfer.engines.openvino_fusion.aggregation import fuse_aggregation
from cluinfer.engines.openvino_fusion.edit import Editor
from cluinfer.engines.openvino_fusion.gate import fuse_gate
from cluinfer.engines.openvino_fusion.maps import assign_from_map
from cluinfer.engines.openvino_fusion.mixers import fuse_mixer
from cluinfer.engines.openvino_fusion.norms import drop_ones, norm_in_place
from cluinfer.engines.openvino_fusion.projection import PROJECTING, fuse_projection

__all__ = ["fuse"]


def fuse(model: Any, library: str, projections: bool = True) -> Counter[str]:
    """Fuse in place; what was made, by name. The model must have been read with the extension `library`.

    `projections`: whether mixers take the convolutions behind them along.
    """
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
    for kind, change, name in (
        ("ClusterAggregate", fuse_gate, "gates"),
        *(((kind, fuse_projection, "projections") for kind in PROJECTING) if projections else ()),
        ("Multiply", drop_ones, "ones dropped"),
        ("MVN", norm_in_place, "norms in place"),
    ):
        nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == kind]
        made[name] += sum(change(node, editor) for node in nodes)
    model.validate_nodes_and_infer_types()
    return made
