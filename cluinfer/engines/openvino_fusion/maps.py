"""A ClusterAssign or ClusterGather that stays by itself reads or writes the channels-last map directly."""

from __future__ import annotations

from typing import Any

from cluinfer.engines.openvino_fusion.edit import Editor, outward, readers, replace
from cluinfer.engines.openvino_fusion.edit import find_map as _find_map
from cluinfer.engines.openvino_fusion.layout import Pair, find_slice
from cluinfer.engines.openvino_fusion.replay import map_shape


def assign_from_map(assign: Any, editor: Editor) -> str:
    """The points must be a slice of a map."""
    points = find_slice(assign.input_value(0))
    if points is None:
        return ""
    for gather in [n for n, at in readers(assign.output(0)) if n.get_type_name() == "ClusterGather" and at == 1]:
        _gather_into_map(gather, points.heads, points.fold, points.size, editor)
    node = editor.create(
        "ClusterMapAssign",
        [editor.channels_last(points.source), assign.input_value(1)],
        **points.attributes(),
        first=points.first,
        **{name: assign.get_attributes()[name] for name in ("alpha", "beta", "sigmoid")},
    )
    for i in range(2):
        replace(assign.output(i), node.output(i))
    return "ClusterMapAssign"


def _gather_into_map(gather: Any, heads: int, fold: Pair, size: Pair, editor: Editor) -> None:
    """The points must become a map, cut as the points of the assignment are."""
    for output in outward(gather.output(0)):
        shape = map_shape(output)
        if shape is None or shape[1:] != size or shape[0] % heads:
            continue
        out = _find_map(gather.output(0), shape, heads, fold)
        if out is not None:
            node = editor.create(
                "ClusterMapGather",
                [port.get_source_output() for port in gather.inputs()],
                heads=heads,
                channels=shape[0] // heads,
                fold=list(fold),
                rows=size[0],
                columns=size[1],
            )
            replace(out, editor.channels_first(node.output(0)))
            return
