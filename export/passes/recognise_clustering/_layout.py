"""Where the points and centres of a clustering lie on the map: `heads, fold, region, grid` of `export.nn.layout`.

The points' way from the map is replayed on a map of numbered elements, and must give what `Layout.split` gives for
some heads and fold. The grid comes from the centres' own map, or, where the centres are computed from pooled maps
(CLUENet), from the pools before them, if all with that many cells agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from cluinfer.export.passes.recognise_clustering._axes import Size, flat, shape_of
from cluinfer.export.passes.recognise_clustering._facts import Cluster, Leaf
from cluinfer.export.passes.recognise_clustering._read import Reader

BATCH = 2  # in the replay
REACH = 400  # nodes before the centres to look for pools in

Pair = tuple[int, int]
Numbers = NDArray[np.int64]


def layout_of(reader: Reader, cluster: Cluster) -> list[int] | None:
    """The layout as a list, None where it cannot be told."""
    found = _points(reader, cluster)
    if found is None:
        return None
    heads, fold, region = found
    grid = _grid(reader, cluster, heads)
    return None if grid is None else [heads, *fold, *region, *grid]


def _points(reader: Reader, cluster: Cluster) -> tuple[int, Pair, Pair] | None:
    """Heads, fold and region, by replaying the points' way from each map that they may come from."""
    g, d, n = cluster.g, cluster.cosine.depth, cluster.n
    wanted = (g, d, n)
    chain = _chain(cluster.points.value)
    depth, count = reader.axes.size(d), reader.axes.size(n)
    if depth[1] or count[1]:
        return None
    for start in range(len(chain) - 1, -1, -1):
        shape = shape_of(chain[start])
        if shape is None or len(shape) != 4:
            continue
        numbers = _numbers(shape)
        replayed = None if numbers is None else _replay(numbers, chain[:start][::-1])
        if numbers is None or replayed is None:
            continue
        order = _ordered(replayed, cluster.points, wanted)
        for candidate in (numbers, numbers.transpose(0, 3, 1, 2)):
            found = None if order is None else _split_like(candidate, order)
            if found is not None:
                return found
    return None


def _chain(value: ir.Value) -> list[ir.Value]:
    """A value and all that it was rearranged from, back to what was computed."""
    chain = [value]
    while (node := value.producer()) is not None and node.op_type in ("Reshape", "Transpose", "Unsqueeze", "Squeeze"):
        if node.inputs[0] is None or len(chain) > 20:
            break
        value = node.inputs[0]
        chain.append(value)
    return chain


def _numbers(shape: tuple[Size, ...]) -> Numbers | None:
    """A map of numbered elements."""
    sizes = _fixed(shape)
    return None if sizes is None else np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)


def _fixed(shape: tuple[Size, ...]) -> list[int] | None:
    """A shape at the replay's batch; None with more than one symbol in a size."""
    if any(len(symbols) > 1 for _, symbols in shape):
        return None
    return [number * BATCH ** len(symbols) for number, symbols in shape]


def _replay(numbers: Numbers, values: list[ir.Value]) -> Numbers | None:
    """The numbered map after the nodes that make each of these values in turn."""
    for value in values:
        node, shape = value.producer(), shape_of(value)
        sizes = None if shape is None else _fixed(shape)
        if node is None or sizes is None or math.prod(sizes) != numbers.size:
            return None
        if node.op_type == "Transpose":
            given = node.attributes.get_ints("perm")
            numbers = numbers.transpose(given if given is not None else range(numbers.ndim)[::-1])
        numbers = numbers.reshape(sizes)
    return numbers


def _ordered(numbers: Numbers, leaf: Leaf, wanted: tuple[tuple[int, ...], ...]) -> Numbers | None:
    """The numbers of a leaf with one axis a dimension, as [G, D, N]."""
    if any(len(dim) != 1 for dim in leaf.dims) or len(leaf.dims) != numbers.ndim:
        return None
    own = flat(leaf.dims)
    moved = numbers.transpose([own.index(axis) for axis in flat(wanted)])
    sizes = [math.prod([numbers.shape[own.index(axis)] for axis in dim]) for dim in wanted]
    result: Numbers = moved.reshape(sizes)
    return result


def _split_like(numbers: Numbers, points: Numbers) -> tuple[int, Pair, Pair] | None:
    """The heads and fold that split a map [B, C, H, W] into these points [G, D, N]."""
    batch, channels, rows, columns = numbers.shape
    groups, depth, count = points.shape
    if channels % depth or batch * channels * rows * columns != points.size or groups % batch:
        return None
    heads = channels // depth
    regions = groups // (batch * heads)
    for first in (f for f in range(1, regions + 1) if regions % f == 0):
        fold = (first, regions // first)
        if rows % fold[0] or columns % fold[1] or (min(fold) == 1 and regions > 1):
            continue
        region = (rows // fold[0], columns // fold[1])
        split = numbers.reshape(batch, heads, depth, fold[0], region[0], fold[1], region[1])
        split = split.transpose(0, 1, 3, 5, 2, 4, 6).reshape(points.shape)
        if region[0] * region[1] == count and np.array_equal(split, points):
            return heads, fold, region
    return None


def _grid(reader: Reader, cluster: Cluster, heads: int) -> Pair | None:
    """Rows and columns of the centres of one region."""
    count = reader.axes.size(cluster.m)
    depth = reader.axes.size(cluster.cosine.depth)
    if count[1]:
        return None
    for value in _chain(cluster.centers.value):
        shape = shape_of(value)
        if shape is not None and len(shape) == 4 and shape[1] == depth and not shape[2][1] and not shape[3][1]:
            grid = shape[2][0], shape[3][0]
            if grid[0] * grid[1] == count[0] and _flattens(reader, cluster, value):
                return grid
    grids = set(_pools(cluster.centers.value, heads * depth[0], count[0]))
    return grids.pop() if len(grids) == 1 else None


def _flattens(reader: Reader, cluster: Cluster, value: ir.Value) -> bool:
    """Whether the centres are a map [G, D, rows, columns] with the positions flattened in order."""
    chain = _chain(cluster.centers.value)
    shape = shape_of(value)
    numbers = None if shape is None else _numbers(shape)
    replayed = None if numbers is None else _replay(numbers, chain[: chain.index(value)][::-1])
    if numbers is None or replayed is None:
        return False
    order = _ordered(replayed, cluster.centers, (cluster.g, cluster.cosine.depth, cluster.m))
    return order is not None and np.array_equal(order.reshape(-1), numbers.reshape(-1))


def _pools(value: ir.Value, channels: int, cells: int) -> Iterator[Pair]:
    """The sizes of the nearest maps [B, channels, rows, columns] with that many cells, over all ways back."""
    todo, seen = [value], {value}
    for _ in range(REACH):
        if not todo:
            return
        value = todo.pop(0)
        node, shape = value.producer(), shape_of(value)
        if shape is not None and len(shape) == 4 and shape[1] == (channels, ()) and shape[2][0] * shape[3][0] == cells:
            yield shape[2][0], shape[3][0]
        elif node is not None:
            new = [source for source in node.inputs if source is not None and source not in seen]
            seen.update(new)
            todo += new
