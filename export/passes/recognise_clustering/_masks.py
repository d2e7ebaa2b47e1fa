"""The one-hot mask and the index in their many spellings: scatter, OneHot, Equal, offsets into all groups' centres."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import (
    ONE,
    Axes,
    Dim,
    Dims,
    Size,
    constant,
    flat,
    scalar,
    shape_of,
)
from cluinfer.export.passes.recognise_clustering._facts import Fact, Index, Leaf, Mass, Product, Sum, is_weight


def filled(value: ir.Value | None) -> float | None:
    """The number that a value holds everywhere, None where it varies or is not known."""
    for _ in range(8):
        array = constant(value)
        if array is not None:
            return float(array.flat[0]) if array.size and (array == array.flat[0]).all() else None
        node = None if value is None else value.producer()
        if node is None:
            return None
        if node.op_type == "ConstantOfShape":
            given = node.attributes.get_tensor("value")
            return float(np.asarray(given.numpy()).reshape(())) if given is not None else 0.0
        if node.op_type not in ("Expand", "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Identity"):
            return None
        value = node.inputs[0]
    return None


def label(axes: Axes, value: ir.Value, shape: tuple[Size, ...] | None, dims: Dims) -> Leaf | None:
    """A value from outside under named dimensions: of their sizes, or of size one, or a new axis where they have none.

    It may have fewer dimensions, aligned at the end as in broadcasting.
    """
    if shape is None or len(shape) > len(dims):
        return None
    named: list[Dim] = []
    for size, dim in zip(shape, dims[len(dims) - len(shape) :], strict=True):
        if axes.size(dim) == size:
            named.append(dim)
        elif size == ONE:
            named.append(())
        elif dim == ():
            named.append((axes.new(size),))
        else:
            return None
    return Leaf(value, tuple(named))


def equal(axes: Axes, index: Index, other: ir.Value | None) -> Product | None:
    """index == 0..M-1 along a dimension of its own: the mask."""
    numbers = constant(other)
    if numbers is None or index.offset:
        return None
    cluster, rank = index.cluster, max(numbers.ndim, len(index.dims))
    padded: Dims = ((),) * (rank - len(index.dims)) + index.dims
    shape = (1,) * (rank - numbers.ndim) + numbers.shape
    positions = [i for i, size in enumerate(shape) if size != 1]
    if len(positions) != 1 or padded[positions[0]] != () or axes.size(cluster.m) != (shape[positions[0]], ()):
        return None
    if not np.array_equal(numbers.reshape(-1), np.arange(numbers.size)):
        return None
    dims = tuple(cluster.m if i == positions[0] else dim for i, dim in enumerate(padded))
    return Product(dims, cluster, mask=True, power=0)


def one_hot(axes: Axes, node: ir.Node, index: Index) -> Product | None:
    """OneHot with depth M and values 0, 1."""
    cluster, values = index.cluster, constant(node.inputs[2])
    depth = scalar(node.inputs[1])
    if index.offset or values is None or values.tolist() != [0, 1] or axes.size(cluster.m) != (depth, ()):
        return None
    axis = int(node.attributes.get_int("axis", -1)) % (len(index.dims) + 1)
    return Product((*index.dims[:axis], cluster.m, *index.dims[axis:]), cluster, mask=True, power=0)


def add_offset(axes: Axes, index: Index, other: ir.Value | None) -> Index | None:
    """index + M·group, the groups counted from 0: an index into all groups' centres in one row."""
    cluster = index.cluster
    count, step = axes.size(cluster.m), None
    node = None if other is None else other.producer()
    shape = None if other is None else shape_of(other)
    while node is not None and node.op_type in ("Unsqueeze", "Reshape", "Mul", "Cast", "Identity"):
        value = node.inputs[0]
        if node.op_type == "Mul":
            first, second = (scalar(v) for v in node.inputs)
            value = value if first is None else node.inputs[1]
            step = (1 if step is None else step) * ((second if first is None else first) or 0)
        node = None if value is None else value.producer()
    if node is None or node.op_type != "Range" or shape is None or index.offset or count[1]:
        return None
    named = label(axes, node.outputs[0], shape, index.dims)
    stride = scalar(node.inputs[2])
    if (
        named is None
        or stride is None
        or scalar(node.inputs[0]) != 0
        or stride * (1 if step is None else step) != count[0]
    ):
        return None
    if flat(named.dims) != cluster.g or not axes.varies(index.dims):
        return None
    return Index(index.dims, cluster, offset=True)


def scatter(
    axes: Axes, node: ir.Node, index: Index, rows: Fact | None, row_shape: tuple[Size, ...] | None
) -> Fact | None:
    """ScatterElements: the mask (reduction none into zeros), or sums of rows by centre (reduction add)."""
    axis = int(node.attributes.get_int("axis", 0)) % len(index.dims)
    reduction = node.attributes.get_string("reduction") or "none"
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None and updates is not None
    cluster = index.cluster
    if reduction == "none":
        dims = tuple(cluster.m if i == axis else dim for i, dim in enumerate(index.dims))
        fits = not index.offset and index.dims[axis] == () and shape_of(data) == axes.shape(dims)
        if not fits or filled(data) != 0 or not axes.varies(dims):
            return None
        if filled(updates) == 1:
            return Product(dims, cluster, mask=True, power=0)
        if isinstance(rows, Product) and rows.cluster is cluster and is_weight(rows) and rows.dims == index.dims:
            return Product(dims, cluster, mask=True, power=1)
        return None
    return _sum(axes, index, axis, data, updates, rows, row_shape) if reduction == "add" else None


def scatter_nd(
    axes: Axes, node: ir.Node, index: Index, rows: Fact | None, row_shape: tuple[Size, ...] | None
) -> Fact | None:
    """ScatterND that adds rows of [G·N, ...] to [G·M, ...], the index being [G·N, 1]."""
    data, updates = node.inputs[0], node.inputs[2]
    assert data is not None and updates is not None
    if node.attributes.get_string("reduction") != "add" or len(index.dims) != 2 or index.dims[1] != ():
        return None
    if row_shape is None:
        return None
    spread = tuple((axes.new(size, repeats=True),) for size in row_shape[1:])
    return _sum(axes, Index((index.dims[0], *spread), index.cluster, index.offset), 0, data, updates, rows, row_shape)


def _sum(
    axes: Axes,
    index: Index,
    axis: int,
    data: ir.Value,
    updates: ir.Value,
    rows: Fact | None,
    row_shape: tuple[Size, ...] | None,
) -> Fact | None:
    """Rows added where the index points: a sum, with what the data held before."""
    cluster = index.cluster
    before, after = (cluster.n, cluster.m)
    if index.offset:
        before, after = (*cluster.g, *cluster.n), (*cluster.g, *cluster.m)
    others = [dim for i, dim in enumerate(index.dims) if i != axis]
    named = [axis for dim in others if not axes.repeated(dim) for axis in dim]
    if index.dims[axis] != before or tuple(named) != (() if index.offset else cluster.g):
        return None
    power, leaf = 0, None
    if isinstance(rows, Product) and rows.cluster is cluster and not rows.mask:
        power, leaf, content = rows.power, rows.leaf, rows.dims
        shape_fits = len(content) == len(index.dims) and all(
            row == dim or (axes.repeated(dim) and axes.size(row) == axes.size(dim))
            for row, dim in zip(content, index.dims, strict=True)
        )
    elif filled(updates) == 1:
        shape_fits, content = True, index.dims
    else:
        # each repeat of the index becomes an axis of the rows
        content = tuple((axes.new(axes.size(dim)),) if axes.repeated(dim) else dim for dim in index.dims)
        shape_fits, leaf = row_shape == axes.shape(content), Leaf(updates, content)
    dims = tuple(after if i == axis else dim for i, dim in enumerate(content))
    if not shape_fits or (leaf is None and not axes.varies(dims)):
        return None
    if shape_of(data) != axes.shape(dims):
        return None
    start = filled(data)
    if start == 0:
        return Sum(dims, cluster, power, leaf)
    if leaf is None:
        if start != 1:
            cluster.note(_starts(start))
        return Mass(dims, cluster, power) if start == 1 else None
    return Sum(dims, cluster, power, leaf, plus=Leaf(data, dims))


def plus(fact: Sum, number: float) -> Mass | None:
    """A centre's mass and a number."""
    if fact.leaf is not None or fact.plus is not None:
        return None
    if number != 1:
        fact.cluster.note(_starts(number))
        return None
    return Mass(fact.dims, fact.cluster, fact.power)


def _starts(number: float | None) -> str:
    what = "something else" if number is None else f"{number:g}"
    return f"a centre's mean divides by its mass plus {what}, not plus 1"
