"""Assignment and scatter with centres that are cell means: one ClusterBlock, or one ClusterPool without a gather.

    points, centres = a map, its cell means     ClusterAssign
    values, base    = a map, its cell means     ClusterScatter
    gathered with the weights                   ClusterGather    (a mixer; a pool has none)

The map of ids, if asked for, comes from the fused node too. Whatever else reads the index keeps the single operators in
place; what else reads the weight, a map of similarities, keeps the assignment beside the fused node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluinfer.engines.openvino_fusion.edit import Editor, find_ids, find_map, readers, replace
from cluinfer.engines.openvino_fusion.layout import Pair, Slice, find_grid, find_slice
from cluinfer.engines.openvino_fusion.replay import MEANS, Replay, key, random, root


@dataclass
class _Parts:
    """The nodes around one ClusterAssign."""

    scatter: Any
    gather: Any | None
    ids: list[Any]  # outputs that are the map of ids
    features: Slice
    values: Slice
    grid: Pair


def fuse_mixer(assign: Any, editor: Editor) -> str:
    """The name of the operator that took the place of this ClusterAssign and its neighbours, or nothing."""
    parts = _find(assign)
    if parts is None:
        return ""
    features, values = parts.features, parts.values
    attributes = {
        **features.attributes(),
        "grid": list(parts.grid),
        "first_feature": features.first,
        "first_value": values.first,
        "clusters": int(bool(parts.ids)),
    }
    maps = [editor.channels_last(features.source), editor.channels_last(values.source)]
    if parts.gather is None:
        node = _pool(editor, maps, attributes, parts)
    else:
        node = _block(editor, maps, attributes, parts, assign)
    if node is None:
        return ""
    for output in parts.ids:
        replace(output, node.output(1))
    return str(node.get_type_name())


def _block(editor: Editor, maps: list[Any], attributes: dict[str, Any], parts: _Parts, assign: Any) -> Any | None:
    similarity, features = assign.get_attributes(), parts.features
    if not similarity["sigmoid"] or parts.values.channels != features.channels:
        return None
    assert parts.gather is not None
    shape = (features.heads * features.channels, *features.size)
    out = find_map(parts.gather.output(0), shape, features.heads, features.fold)
    if out is None:
        return None
    weighted = int(len(parts.scatter.inputs()) == 4)
    node = editor.create(
        "ClusterBlock", maps, **attributes, alpha=similarity["alpha"], beta=similarity["beta"], weighted=weighted
    )
    replace(out, editor.channels_first(node.output(0)))
    return node


def _pool(editor: Editor, maps: list[Any], attributes: dict[str, Any], parts: _Parts) -> Any | None:
    features, values = parts.features, parts.values
    if len(parts.scatter.inputs()) == 4:
        return None
    width, fold, grid = values.heads * values.channels, features.fold, parts.grid
    sides = (fold[0] * grid[0], fold[1] * grid[1])
    out = find_map(parts.scatter.output(0), (width, *sides), features.heads, fold)
    if out is None and fold != (1, 1):
        return None
    node = editor.create("ClusterPool", maps, **attributes, value_channels=values.channels)
    made = editor.channels_first(node.output(0))
    if out is not None:
        replace(out, made)
    else:
        replace(parts.scatter.output(0), editor.reshape(made, [-1, values.channels, grid[0] * grid[1]]))
    return node


def _find(assign: Any) -> _Parts | None:
    index, weight = assign.output(0), assign.output(1)
    scatters = [node for node, at in readers(index) if node.get_type_name() == "ClusterScatter" and at == 1]
    gathers = [node for node, at in readers(index) if node.get_type_name() == "ClusterGather" and at == 1]
    if len(scatters) != 1 or len(gathers) > 1:
        return None
    scatter, gather = scatters[0], gathers[0] if gathers else None
    if gather is not None and not (_comes_from(gather, 0, scatter.output(0)) and _comes_from(gather, 2, weight)):
        return None
    if len(scatter.inputs()) == 4 and not _comes_from(scatter, 3, weight):
        return None
    ours = {node.get_name() for node in (scatter, gather) if node is not None}
    if gather is not None and len(readers(scatter.output(0))) != 1:
        return None
    features = find_slice(assign.input_value(0))
    values = find_slice(scatter.input_value(0))
    if features is None or values is None or (features.heads, features.fold) != (values.heads, values.fold):
        return None
    grid = _grid(assign.input_value(1), features)
    if grid is None or features.size != values.size or grid != _grid(scatter.input_value(2), values):
        return None
    ids: list[Any] = []
    for node, _ in readers(index):
        if node.get_name() not in ours:
            found = find_ids(index, node, features.heads, features.fold, features.size, grid[0] * grid[1])
            if found is None:
                return None
            ids.append(found)
    return _Parts(scatter, gather, ids, features, values, grid)


def _comes_from(node: Any, place: int, output: Any) -> bool:
    return len(node.inputs()) > place and key(node.input_value(place)) == key(output)


def _grid(centres: Any, points: Slice) -> Pair | None:
    """The grid by which `centres` are the cell means of these points."""
    if (source := root(centres, MEANS)) is None or key(source) != key(points.source):
        return None
    size = points.source.get_partial_shape()
    whole = random((int(size[1].get_length()), *points.size))
    got = Replay(source, whole)(centres)
    if got is None or got.ndim != 3:
        return None
    region = points.size[0] // points.fold[0], points.size[1] // points.fold[1]
    return find_grid(got, points.points(whole), region)
