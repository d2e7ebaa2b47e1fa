"""Axes by name: which part of a clustering (group, centre, point, channel) each dimension of a value runs over.

- An axis has a size; a dimension is a product of axes, slowest first, and the empty product has size one.
- A size is a number times symbols, as torch.export writes it: `4*s40` is four times the batch.
- A repeated axis comes from Expand: the value does not vary along it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Axis = int
Dim = tuple[Axis, ...]
Dims = tuple[Dim, ...]
Size = tuple[int, tuple[str, ...]]

ONE: Size = (1, ())


class Axes:
    """The axes of one graph: their sizes, and which of them are repeats."""

    def __init__(self) -> None:
        self._sizes: list[Size] = []
        self._repeats: set[Axis] = set()

    def new(self, size: Size, repeats: bool = False) -> Axis:
        """Another axis."""
        self._sizes.append(size)
        if repeats:
            self._repeats.add(len(self._sizes) - 1)
        return len(self._sizes) - 1

    def size(self, dim: Dim) -> Size:
        """The size of a dimension."""
        return product(self._sizes[axis] for axis in dim)

    def shape(self, dims: Dims) -> tuple[Size, ...]:
        """The sizes of all dimensions."""
        return tuple(self.size(dim) for dim in dims)

    def repeated(self, dim: Dim) -> bool:
        """Whether a value does not vary along a dimension, although it has one."""
        return bool(dim) and all(axis in self._repeats for axis in dim)

    def varies(self, dims: Dims) -> bool:
        """Whether no dimension repeats its value."""
        return not any(axis in self._repeats for axis in flat(dims))

    def regroup(self, dims: Dims, shape: Sequence[Size]) -> Dims | None:
        """The dimensions after a reshape, or None where it would split an axis.

        An axis of size one that has no dimension to itself goes with the one before, as one head does with the batch.
        """
        rest, result = list(flat(dims)), list[Dim]()
        for size in shape:
            dim: Dim = ()
            while size != ONE and result and rest and self._sizes[rest[0]] == ONE:
                result[-1] = (*result[-1], rest.pop(0))
            if size == ONE and rest and self._sizes[rest[0]] == ONE:
                dim = (rest.pop(0),)
            while self.size(dim) != size:
                if not rest:
                    return None
                dim = (*dim, rest.pop(0))
            result.append(dim)
        if result and all(self._sizes[axis] == ONE for axis in rest):
            result[-1], rest = (*result[-1], *rest), []
        return tuple(result) if not rest else None


def flat(dims: Iterable[Dim]) -> Dim:
    """All axes of the dimensions in order."""
    return tuple(axis for dim in dims for axis in dim)


def product(sizes: Iterable[Size]) -> Size:
    """The size of a dimension that runs over all of these."""
    number, symbols = 1, list[str]()
    for size in sizes:
        number *= size[0]
        symbols += size[1]
    return number, tuple(sorted(symbols))


def shape_of(value: ir.Value) -> tuple[Size, ...] | None:
    """The sizes that the graph gives for a value, None where it does not say."""
    if value.shape is None:
        return None
    sizes = [_size(dim) for dim in value.shape]
    return None if any(size is None for size in sizes) else tuple(size for size in sizes if size is not None)


def to_shape(sizes: Iterable[Size]) -> ir.Shape:
    """Sizes as a graph writes them."""
    written: list[int | str] = []
    for number, symbols in sizes:
        factors = ([str(number)] if number != 1 else []) + list(symbols)
        written.append("*".join(factors) if symbols else number)
    return ir.Shape(written)


def _size(dim: int | ir.SymbolicDim) -> Size | None:
    if isinstance(dim, int):
        return dim, ()
    if dim.value is None:
        return None
    match = re.fullmatch(r"(?:(\d+)\*)?(.+)", str(dim.value))
    assert match is not None
    return int(match[1] or 1), (match[2],)


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """What a value is, where the graph fixes it."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The one number that a value holds, None for anything else."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def integers(value: ir.Value | None) -> list[int] | None:
    """A constant list, as in `axes`."""
    array = constant(value)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def view(axes: Axes, node: ir.Node, dims: Dims) -> Dims | None:
    """The dimensions of a node's output where it only rearranges its first input, which has `dims`; else None."""
    op, rank = node.op_type, len(dims)
    if op == "Identity" or (op == "Max" and len(node.inputs) == 1):
        return dims
    if op == "Transpose":
        return tuple(dims[i] for i in _perm(node, rank))
    if op == "Unsqueeze":
        longer = rank + len(integers(node.inputs[1]) or ())
        positions, rest = _positions(node, longer), iter(dims)
        return None if positions is None else tuple(() if i in positions else next(rest) for i in range(longer))
    if op == "Squeeze":
        positions = _positions(node, rank)
        if positions is None or any(dims[i] for i in positions):
            return None
        return tuple(dim for i, dim in enumerate(dims) if i not in positions)
    if op == "Reshape":
        shape = shape_of(node.outputs[0])
        return None if shape is None else axes.regroup(dims, shape)
    if op == "Expand":
        shape = shape_of(node.outputs[0])
        return None if shape is None else _expand(axes, dims, shape)
    return None


def unview(axes: Axes, node: ir.Node, dims: Dims) -> Dims | None:
    """The dimensions of a node's first input where its output, a mere rearrangement, has `dims`; else None."""
    op, source = node.op_type, node.inputs[0]
    shape = None if source is None else shape_of(source)
    if op == "Identity":
        return dims
    if op == "Transpose":
        perm = _perm(node, len(dims))
        return tuple(dims[perm.index(i)] for i in range(len(dims)))
    if op == "Unsqueeze":
        positions = _positions(node, len(dims))
        if positions is None or any(dims[i] for i in positions):
            return None
        return tuple(dim for i, dim in enumerate(dims) if i not in positions)
    if op == "Squeeze" or op == "Reshape":
        return None if shape is None else axes.regroup(dims, shape)
    if op == "Expand":
        return dims if shape == axes.shape(dims) else None
    return None


def _perm(node: ir.Node, rank: int) -> list[int]:
    given = node.attributes.get_ints("perm")
    return list(given) if given is not None else list(range(rank))[::-1]


def _positions(node: ir.Node, rank: int) -> set[int] | None:
    """The axes of an Unsqueeze or Squeeze, counted from the front of the longer shape, which has this rank."""
    given = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if given is None else {i % rank for i in given}


def _expand(axes: Axes, dims: Dims, shape: tuple[Size, ...]) -> Dims | None:
    padded: Dims = ((),) * (len(shape) - len(dims)) + dims
    result: list[Dim] = []
    for dim, size in zip(padded, shape, strict=True):
        if axes.size(dim) == size:
            result.append(dim)
        elif dim == ():
            result.append((axes.new(size, repeats=True),))
        else:
            return None
    return tuple(result)
