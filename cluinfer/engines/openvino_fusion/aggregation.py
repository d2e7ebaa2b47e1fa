"""CLUENet's soft aggregation: centres from the keys, a softmax over all points, and the values so weighted.

softmax(scale * cosine(centres, keys)) @ values    and the cell means of the values    ->  ClusterAggregate
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.edit import Editor, readers, replace
from cluinfer.engines.openvino_fusion.layout import Slice, cell_means, find_slice, pairs
from cluinfer.engines.openvino_fusion.replay import MEANS, MOVES, SOFTMAX, Array, Replay, key, map_shape, random, root


def fuse_aggregation(softmax: Any, editor: Editor) -> str:
    """The name of the operator that took the place of this Softmax and its neighbours, or nothing."""
    product = _product(softmax)
    source = None if product is None else root(product, SOFTMAX)
    size = None if source is None else map_shape(source)
    if product is None or source is None or size is None:
        return ""
    values = next((s for port in product.get_node().inputs() if (s := find_slice(port.get_source_output()))), None)
    if values is None or key(values.source) != key(source):
        return ""
    whole = random(size)
    replay = Replay(source, whole)
    got, logits = replay(product), replay(softmax.input_value(0))
    if got is None or logits is None or got.ndim != 3:
        return ""
    region = values.size[0] // values.fold[0], values.size[1] // values.fold[1]
    width = values.heads * values.channels
    for first in range(0, size[0] - width + 1, width):
        keys = Slice(source, first, values.heads, values.channels, values.fold, values.size)
        for grid in pairs(got.shape[2], *region):
            points = keys.points(whole)
            cosine = _unit(cell_means(points, region, grid)).swapaxes(1, 2) @ _unit(points)
            if cosine.shape != logits.shape:
                continue
            scale = float((cosine * logits).sum() / np.square(cosine).sum())
            if not (scale >= 0 and np.allclose(scale * cosine, logits, atol=1e-4)):
                continue
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            if not np.allclose(values.points(whole) @ weights.swapaxes(1, 2), got, atol=1e-4):
                continue
            maps = [editor.channels_last(source)] * 2
            node = editor.create(
                "ClusterAggregate",
                maps,
                **values.attributes(),
                grid=list(grid),
                first_key=first,
                first_value=values.first,
                scale=scale,
            )
            means = cell_means(values.points(whole), region, grid)
            pooled = _equal_to(means, source, replay)
            replace(product, node.output(0))
            for output in pooled:
                replace(output, node.output(1))
            return "ClusterAggregate"
    return ""


def _product(softmax: Any) -> Any | None:
    """The one product that reads the softmax, perhaps transposed."""
    output = softmax.output(0)
    while len(users := readers(output)) == 1:
        node = users[0][0]
        if node.get_type_name() == "MatMul":
            return node.output(0)
        if node.get_type_name() != "Transpose":
            return None
        output = node.output(0)
    return None


def _equal_to(wanted: Array, source: Any, replay: Replay) -> list[Any]:
    """The outputs that are this, among those made from the map by moving and averaging."""
    found: list[Any] = []
    todo, seen = [source], set()
    while todo:
        for node, _ in readers(todo.pop()):
            if node.get_type_name() not in MEANS or node.get_name() in seen:
                continue
            seen.add(node.get_name())
            for output in node.outputs():
                if root(output, MEANS) is None:
                    continue
                value = replay(output)
                if value is not None and value.shape == wanted.shape and np.allclose(value, wanted, atol=1e-5):
                    found.append(output)
                elif node.get_type_name() in MOVES | {"AvgPool", "MatMul"}:
                    todo.append(output)
    return found


def _unit(x: Array) -> Array:
    unit: Array = x / np.maximum(np.sqrt(np.square(x).sum(1, keepdims=True)), 1e-12)
    return unit
