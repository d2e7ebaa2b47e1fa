"""Products and sums over a clustering: what a mask, a weight and a leaf make of one another."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import Axes, Axis, Dim, Dims, Size, flat, shape_of
from cluinfer.export.passes.recognise_clustering._facts import (
    Cluster,
    Fact,
    Index,
    Leaf,
    Mass,
    Mean,
    Picked,
    Product,
    Similarity,
    Sum,
    is_weight,
)
from cluinfer.export.passes.recognise_clustering._masks import label
from cluinfer.export.passes.recognise_clustering._similarity import is_similarity


def multiply(axes: Axes, left: Fact, right: Fact) -> Fact | None:
    """The elementwise product of two facts on one clustering."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Similarity) and isinstance(other, Product):
            # s times the mask is w times the mask
            if not is_similarity(other.cluster, one) or not other.mask or other.power:
                return None
            dims = _union(one.dims, other.dims)
            return None if dims is None else Product(dims, other.cluster, True, 1, other.leaf)
        if isinstance(one, Picked) and is_weight(other) and isinstance(other, Product):
            fits = one.cluster is other.cluster and not one.power and _union(one.dims, other.dims) == one.dims
            return Picked(one.dims, one.cluster, 1, one.leaf) if fits else None
    if not isinstance(left, Product) or not isinstance(right, Product) or left.cluster is not right.cluster:
        return None
    dims = _union(left.dims, right.dims)
    if dims is None or left.power + right.power > 1 or (left.leaf and right.leaf):
        return None
    return Product(dims, left.cluster, left.mask or right.mask, left.power + right.power, left.leaf or right.leaf)


def spread(axes: Axes, fact: Product, value: ir.Value, shape: tuple[Size, ...] | None) -> Product | None:
    """A mask or weight times a value from outside, which must lie on the points or on the centres."""
    if fact.leaf is not None:
        return None
    rank = max(len(fact.dims), len(shape or ()))
    padded: Dims = ((),) * (rank - len(fact.dims)) + fact.dims
    leaf = label(axes, value, shape, padded)
    if leaf is None or not lies(fact.cluster, leaf):
        return None
    dims = _union(padded, leaf.dims)
    return None if dims is None else Product(dims, fact.cluster, fact.mask, fact.power, leaf)


def lies(cluster: Cluster, leaf: Leaf) -> bool:
    """Whether a leaf has the groups, and either the points or the centres."""
    held = set(flat(leaf.dims))
    on_points, on_centers = set(cluster.n) <= held, set(cluster.m) <= held
    return set(cluster.g) <= held and on_points != on_centers


def reduce(axes: Axes, fact: Product, over: Dim, dims: Dims) -> Fact | None:
    """The sum of a product over the points or over the centres; `dims` is what the result has."""
    cluster, leaf = fact.cluster, fact.leaf
    if not fact.mask:
        return None
    held = set(flat(leaf.dims)) if leaf is not None else set()
    if set(over) == set(cluster.n) and len(over) == len(cluster.n):
        if leaf is not None and not set(cluster.n) <= held:
            return None
        return Sum(dims, cluster, fact.power, leaf)
    if set(over) != set(cluster.m) or len(over) != len(cluster.m):
        return None
    if leaf is not None:
        return Picked(dims, cluster, fact.power, leaf) if set(cluster.m) <= held else None
    if not fact.power:
        cluster.note("its mask is summed over the axis of the maximum, where it is one-hot: always 1, not a count")
        return None
    return Product(dims, cluster, mask=False, power=1)


def contract(
    axes: Axes, given: tuple[str, str, str], left: Product, value: ir.Value, other: Fact | None
) -> Fact | None:
    """A product summed over what its two sides share and the output lacks: MatMul or Einsum.

    `given` are the letters of the product's side, of the other side, of the output.
    """
    mine, others, out = given
    names: dict[str, Dim] = dict(zip(mine, left.dims, strict=True))
    if isinstance(other, Product) and not other.mask and other.cluster is left.cluster:
        if any(names.get(c, dim) != dim for c, dim in zip(others, other.dims, strict=True)):
            return None
        if left.power + other.power > 1 or (left.leaf and other.leaf):
            return None
        names.update(zip(others, other.dims, strict=True))
        power, leaf = left.power + other.power, left.leaf or other.leaf
    else:
        shape = shape_of(value)
        named = None if shape is None or left.leaf else _named(axes, names, others, shape)
        if named is None or not lies(left.cluster, Leaf(value, named)):
            return None
        power, leaf = left.power, Leaf(value, named)
    over = flat(names[c] for c in names if c not in out)
    dims = tuple(names[c] for c in out)
    if _duplicated(flat(names.values())):
        return None
    return reduce(axes, Product(dims, left.cluster, left.mask, power, leaf), over, dims)


def add(axes: Axes, fact: Sum, value: ir.Value, shape: tuple[Size, ...] | None) -> Sum | None:
    """A sum and the base of its centres, which must have the same dimensions."""
    if fact.leaf is None or fact.plus is not None or shape != axes.shape(fact.dims):
        return None
    return Sum(fact.dims, fact.cluster, fact.power, fact.leaf, plus=Leaf(value, fact.dims))


def divide(axes: Axes, total: Sum, mass: Fact | None) -> Mean | None:
    """The mean, where both sides belong to one clustering and weigh alike."""
    cluster = total.cluster
    if total.leaf is None:
        return None
    if isinstance(mass, Sum) and mass.leaf is None and mass.cluster is cluster:
        cluster.note("a centre's mean divides by its mass without adding 1")
    if not isinstance(mass, Mass) or mass.cluster is not cluster:
        return None
    if total.plus is None:
        cluster.note("a centre's mean adds 1 to its mass but no base to its sum")
        return None
    if mass.power != total.power:
        cluster.note("a centre's sum and its mass weigh the points differently")
        return None
    if _union(total.dims, mass.dims) != total.dims or not set(flat(mass.dims)) <= {*cluster.g, *cluster.m}:
        return None
    return Mean(total.dims, cluster, total.power, total.leaf, total.plus)


def pick(axes: Axes, index: Index, axis: int, value: ir.Value, shape: tuple[Size, ...] | None) -> Picked | None:
    """GatherElements of a value on centres at the index."""
    cluster = index.cluster
    before, after = cluster.n, cluster.m
    if index.offset:
        before, after = (*cluster.g, *cluster.n), (*cluster.g, *cluster.m)
    content = tuple((axes.new(axes.size(dim)),) if axes.repeated(dim) else dim for dim in index.dims)
    dims = tuple(after if i == axis else dim for i, dim in enumerate(content))
    leaf = Leaf(value, dims)
    if index.dims[axis] != before or shape != axes.shape(dims) or not lies(cluster, leaf):
        return None
    return Picked(content, cluster, 0, leaf)


def _named(axes: Axes, names: dict[str, Dim], others: str, shape: Sequence[Size]) -> Dims | None:
    """Name the other side's dimensions by shared letters; a letter of its own is a new axis, noted in `names`."""
    named: list[Dim] = []
    for c, size in zip(others, shape, strict=True):
        if c not in names:
            names[c] = (axes.new(size),)
        if axes.size(names[c]) != size:
            return None
        named.append(names[c])
    return tuple(named)


def _union(left: Dims, right: Dims) -> Dims | None:
    """The dimensions of a broadcast of two, None where they would put different axes on one dimension."""
    rank = max(len(left), len(right))
    padded = [((),) * (rank - len(dims)) + dims for dims in (left, right)]
    if any(a and b and a != b for a, b in zip(*padded, strict=True)):
        return None
    dims = tuple(a or b for a, b in zip(*padded, strict=True))
    return None if _duplicated(flat(dims)) else dims


def _duplicated(axes: Sequence[Axis]) -> bool:
    return len(set(axes)) != len(axes)
