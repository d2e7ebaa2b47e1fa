"""Bring a value into another order and grouping of its axes, in as few nodes as can be.

A step is an operator, its list (the perm of Transpose, the axes of Unsqueeze, the shape of Reshape), and the dimensions
that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import Axes, Dim, Dims, flat, to_shape, unview
from cluinfer.export.passes.recognise_clustering._facts import Leaf

Step = tuple[str, tuple[int, ...], Dims]
REACH = 12  # how many rearranging nodes back a better starting point is looked for


def sources(axes: Axes, leaf: Leaf) -> Iterator[Leaf]:
    """A leaf, then what it was rearranged from, as far back as its axes can be followed."""
    for _ in range(REACH):
        yield leaf
        node = leaf.value.producer()
        if node is None or node.domain != "" or not node.inputs or node.inputs[0] is None:
            return
        dims = unview(axes, node, leaf.dims)
        if dims is None:
            return
        leaf = Leaf(node.inputs[0], dims)


def steps(axes: Axes, dims: Dims, wanted: Dims) -> list[Step] | None:
    """How to get from `dims` to `wanted`; None where no known shape says it."""
    if dims == wanted:
        return []
    if set(flat(dims)) != set(flat(wanted)) or not axes.varies(dims):
        return None
    if flat(dims) == flat(wanted):
        return _reshaped(axes, dims, wanted)
    apart = _apart(dims, wanted)
    if apart is None:
        return None
    order: Dims = tuple(sorted(apart, key=lambda dim: flat(wanted).index(dim[0]) if dim else -1))
    first, last = _reshaped(axes, dims, apart), _reshaped(axes, order, wanted)
    if first is None or last is None:
        return None
    return [*first, ("Transpose", tuple(apart.index(dim) for dim in order), order), *last]


def _apart(dims: Dims, wanted: Dims) -> Dims | None:
    """`dims` without those of size one, split so that each can be moved whole to its place in `wanted`."""
    apart: list[Dim] = []
    target = flat(wanted)
    for dim in dims:
        rest = dim
        while rest:
            length = 1
            start = target.index(rest[0])
            while length < len(rest) and rest[: length + 1] == target[start : start + length + 1]:
                length += 1
            apart.append(rest[:length])
            rest = rest[length:]
    return tuple(apart)


def _reshaped(axes: Axes, dims: Dims, wanted: Dims) -> list[Step] | None:
    """A regrouping that keeps the order."""
    if dims == wanted:
        return []
    if tuple(dim for dim in wanted if dim) == dims:
        return [("Unsqueeze", tuple(i for i, dim in enumerate(wanted) if not dim), wanted)]
    shape: list[int] = []
    for i, dim in enumerate(wanted):
        number, symbols = axes.size(dim)
        if symbols and i < len(dims) and dims[i] == dim and dims[:i] == wanted[:i] and -1 in shape:
            shape.append(0)  # copied from the same place
        else:
            shape.append(-1 if symbols else number)
    return [("Reshape", tuple(shape), wanted)] if shape.count(-1) <= 1 else None


def apply(axes: Axes, value: ir.Value, way: list[Step], made: list[ir.Node]) -> ir.Value:
    """The value after the steps; the nodes are appended to `made`."""
    for op, numbers, dims in way:
        if op == "Transpose":
            node = ir.node(op, [value], {"perm": list(numbers)})
        else:
            given = ir.tensor(list(numbers), dtype=ir.DataType.INT64)
            constant = ir.node("Constant", [], {"value": given})
            constant.outputs[0].dtype, constant.outputs[0].shape = ir.DataType.INT64, ir.Shape([len(numbers)])
            constant.outputs[0].const_value = given
            made.append(constant)
            node = ir.node(op, [value, constant.outputs[0]])
        made.append(node)
        node.outputs[0].shape = to_shape(axes.shape(dims))
        if value.dtype is not None:
            node.outputs[0].dtype = value.dtype
        value = node.outputs[0]
    return value
