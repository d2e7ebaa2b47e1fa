"""Read a graph in order, and note on each value what it is in a clustering, operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering import _masks, _products
from cluinfer.export.passes.recognise_clustering._axes import (
    Axes,
    Dims,
    Size,
    constant,
    flat,
    integers,
    scalar,
    shape_of,
    view,
)
from cluinfer.export.passes.recognise_clustering._facts import (
    Cluster,
    Fact,
    Index,
    Leaf,
    Mass,
    Product,
    Similarity,
    Sum,
    Unit,
    is_weight,
)
from cluinfer.export.passes.recognise_clustering._similarity import (
    Clusters,
    cosine,
    is_similarity,
    letters,
    scaled,
)
from cluinfer.export.passes.recognise_clustering._unit import unit

COUNTING = (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64)  # exact for as many points as maps have
Rule = Callable[["Reader", ir.Node], "Fact | list[Fact | None] | None"]


class Reader:
    """The facts of a graph, its clusterings, and remarks on what cannot be one."""

    def __init__(self, graph: ir.Graph) -> None:
        self.axes = Axes()
        self.clusters = Clusters(self.axes)
        self.facts: dict[ir.Value, Fact] = {}
        for node in graph:
            if node.domain == "" and node.inputs:
                found = self._read(node)
                for value, fact in zip(node.outputs, found if isinstance(found, list) else [found], strict=False):
                    shape = shape_of(value)
                    # whatever a rule overlooked, such as a broadcast by its other operand, shows in the shape
                    if fact is not None and (shape is None or shape == self.axes.shape(fact.dims)):
                        self.facts[value] = fact

    def fact(self, value: ir.Value | None) -> Fact | None:
        """What is known of a value."""
        return None if value is None else self.facts.get(value)

    def shape(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """A value's sizes, from the graph or from what is known of it."""
        if value is None:
            return None
        fact = self.facts.get(value)
        return shape_of(value) or (self.axes.shape(fact.dims) if fact is not None else None)

    def _read(self, node: ir.Node) -> Fact | list[Fact | None] | None:
        rule = RULES.get(node.op_type)
        if rule is not None and (found := rule(self, node)) is not None:
            return found
        fact = self.fact(node.inputs[0])
        if fact is None:
            return None
        dims = view(self.axes, node, fact.dims)
        return self._expanded_alike(node, fact) if dims is None else replace(fact, dims=dims)

    def _expanded_alike(self, node: ir.Node, fact: Fact) -> Fact | None:
        """Expand to the shape of a value with the same dimensions: nothing happens."""
        shape = node.inputs[1].producer() if node.op_type == "Expand" and node.inputs[1] is not None else None
        like = self.fact(shape.inputs[0]) if shape is not None and shape.op_type == "Shape" else None
        return fact if like is not None and like.dims == fact.dims else None


def _cast(reader: Reader, node: ir.Node) -> Fact | None:
    """Counts, masks and indices stay what they are in types that hold them; rounding of anything else would be lost."""
    fact = reader.fact(node.inputs[0])
    source, result = (None if v is None else v.dtype for v in (node.inputs[0], node.outputs[0]))
    if result is None or (source == result and fact is not None):
        return fact if result is not None else None
    if isinstance(fact, Index):
        return fact if result in (ir.DataType.INT32, ir.DataType.INT64) else None
    mask = isinstance(fact, Product) and fact.mask and not fact.power and not fact.leaf
    counted = isinstance(fact, (Mass, Sum)) and not fact.power and (isinstance(fact, Mass) or fact.leaf is None)
    if mask and result == ir.DataType.BOOL:
        return fact
    return fact if (mask or counted) and result in COUNTING else None


def _div(reader: Reader, node: ir.Node) -> Fact | None:
    found = unit(node)
    if found is not None:
        source, axis, problem = found
        shape = shape_of(source)
        assert shape is not None
        if source.dtype != ir.DataType.FLOAT:
            problem = f"it is computed in {source.dtype}, not in float32"
        dims: Dims = tuple((reader.axes.new(size),) for size in shape)
        return Unit(dims, Leaf(source, dims), dims[axis], problem)
    fact = reader.fact(node.inputs[0])
    if isinstance(fact, Similarity):
        return _scale(reader, node, fact, node.inputs[1], first=True)
    return _products.divide(reader.axes, fact, reader.fact(node.inputs[1])) if isinstance(fact, Sum) else None


def _scale(reader: Reader, node: ir.Node, fact: Similarity, other: ir.Value | None, first: bool) -> Similarity | None:
    """A similarity and a constant; where that is not one number, it is no ClusterAssign."""
    array = constant(other)
    if array is None or array.ndim > len(fact.dims):
        return None
    if array.size != 1:
        reason = "its scale or shift is not one number for all groups, centres and points"
        return replace(fact, problem=fact.problem or reason)
    return scaled(node, fact, float(array.reshape(())), first)


def _mul(reader: Reader, node: ir.Node) -> Fact | None:
    pairs = [(v, w) for v, w in (node.inputs, node.inputs[::-1])]
    for value, other in pairs:
        fact = reader.fact(value)
        if isinstance(fact, Similarity) and constant(other) is not None:
            return _scale(reader, node, fact, other, first=True)
    left, right = (reader.fact(v) for v in node.inputs)
    if left is not None and right is not None:
        found = _products.multiply(reader.axes, left, right)
        if found is not None:
            return found
    for value, other in pairs:
        fact = reader.fact(value)
        if isinstance(fact, Product) and other is not None and not _shares(reader.fact(other), fact.cluster):
            return _products.spread(reader.axes, fact, other, reader.shape(other))
    return None


def _shares(fact: Fact | None, cluster: Cluster) -> bool:
    """Whether a fact is part of a clustering's own arithmetic, so that it can be no leaf of it."""
    own = isinstance(fact, Similarity) and is_similarity(cluster, fact)
    return own or (isinstance(fact, (Product, Sum)) and fact.cluster is cluster)


def _add(reader: Reader, node: ir.Node) -> Fact | None:
    for value, other in (node.inputs, node.inputs[::-1]):
        fact = reader.fact(value)
        if isinstance(fact, Similarity):
            return _scale(reader, node, fact, other, first=True)
        if isinstance(fact, Index):
            return _masks.add_offset(reader.axes, fact, other)
        if isinstance(fact, Sum) and other is not None:
            number = scalar(other)
            if number is not None and fact.leaf is None:
                return _masks.plus(fact, number)
            return _products.add(reader.axes, fact, other, reader.shape(other))
    return None


def _sub(reader: Reader, node: ir.Node) -> Fact | None:
    fact = reader.fact(node.inputs[0])
    return _scale(reader, node, fact, node.inputs[1], first=True) if isinstance(fact, Similarity) else None


def _sigmoid(reader: Reader, node: ir.Node) -> Fact | None:
    fact = reader.fact(node.inputs[0])
    return replace(fact, sigmoid=True) if isinstance(fact, Similarity) and not fact.sigmoid else None


def _softmax(reader: Reader, node: ir.Node) -> None:
    fact = reader.fact(node.inputs[0])
    if isinstance(fact, Similarity):
        reader.clusters.softened(node, fact)


def _best(reader: Reader, node: ir.Node) -> list[Fact | None] | None:
    fact = reader.fact(node.inputs[0])
    return reader.clusters.best(node, fact) if isinstance(fact, Similarity) else None


def _contract(reader: Reader, node: ir.Node) -> Fact | None:
    if len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    shapes = [reader.shape(v) for v in node.inputs]
    if shapes[0] is None or shapes[1] is None:
        return None
    given = letters(node, len(shapes[0]), len(shapes[1]))
    left, right = (reader.fact(v) for v in node.inputs)
    if given is None:
        return None
    if isinstance(left, Unit) and isinstance(right, Unit):
        return cosine(reader.axes, node, left, right)
    if isinstance(left, Product) and left.mask:
        return _products.contract(reader.axes, given, left, node.inputs[1], right)
    if isinstance(right, Product) and right.mask:
        turned = (given[1], given[0], given[2])
        return _products.contract(reader.axes, turned, right, node.inputs[0], left)
    return None


def _reduce_sum(reader: Reader, node: ir.Node) -> Fact | None:
    fact = reader.fact(node.inputs[0])
    given = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if not isinstance(fact, Product) or not given:
        return None
    over = {axis % len(fact.dims) for axis in given}
    keeps = node.attributes.get_int("keepdims", 1) != 0
    dims = tuple(() if i in over else dim for i, dim in enumerate(fact.dims) if keeps or i not in over)
    return _products.reduce(reader.axes, fact, flat(fact.dims[i] for i in sorted(over)), dims)


def _equal(reader: Reader, node: ir.Node) -> Fact | None:
    for value, other in (node.inputs, node.inputs[::-1]):
        fact, best = reader.fact(value), reader.fact(other)
        if isinstance(fact, Index) and node.op_type == "Equal":
            return _masks.equal(reader.axes, fact, other)
        if isinstance(fact, Similarity) and isinstance(best, Product) and is_weight(best):
            best.cluster.note("its mask compares the similarity with its maximum: on a tie it marks several centres")
    return None


def _where(reader: Reader, node: ir.Node) -> Fact | None:
    mask, chosen = reader.fact(node.inputs[0]), node.inputs[1]
    if not isinstance(mask, Product) or chosen is None or _masks.filled(node.inputs[2]) != 0:
        return None
    if mask.power or mask.leaf or not mask.mask:
        return None
    if _masks.filled(chosen) == 1:
        fits = len(reader.shape(chosen) or ()) <= len(mask.dims)
        return mask if fits and scalar(chosen) is not None else None
    fact = reader.fact(chosen)
    if fact is not None and (found := _products.multiply(reader.axes, mask, fact)) is not None:
        return found
    return None if _shares(fact, mask.cluster) else _products.spread(reader.axes, mask, chosen, reader.shape(chosen))


def _one_hot(reader: Reader, node: ir.Node) -> Fact | None:
    fact = reader.fact(node.inputs[0])
    return _masks.one_hot(reader.axes, node, fact) if isinstance(fact, Index) else None


def _scatter(reader: Reader, node: ir.Node) -> Fact | None:
    index = reader.fact(node.inputs[1])
    if not isinstance(index, Index):
        return None
    rule = _masks.scatter if node.op_type == "ScatterElements" else _masks.scatter_nd
    return rule(reader.axes, node, index, reader.fact(node.inputs[2]), reader.shape(node.inputs[2]))


def _gather(reader: Reader, node: ir.Node) -> Fact | None:
    """A value on centres at the index; the similarity there is the weight."""
    index, data = reader.fact(node.inputs[1]), node.inputs[0]
    if not isinstance(index, Index) or data is None:
        return None
    axis = int(node.attributes.get_int("axis", 0)) % len(index.dims)
    fact = reader.fact(data)
    if isinstance(fact, Similarity) and is_similarity(index.cluster, fact):
        at = tuple(index.cluster.m if i == axis else dim for i, dim in enumerate(index.dims))
        fits = index.dims[axis] == () and at == fact.dims and not index.offset
        return Product(index.dims, index.cluster, mask=False, power=1) if fits else None
    return _products.pick(reader.axes, index, axis, data, reader.shape(data))


def _gather_nd(reader: Reader, node: ir.Node) -> Fact | None:
    """Rows of [G·M, ...] at an index [G·N, 1]."""
    index, data = reader.fact(node.inputs[1]), node.inputs[0]
    shape = reader.shape(data)
    if not isinstance(index, Index) or data is None or shape is None or node.attributes.get_int("batch_dims", 0) != 0:
        return None
    if len(index.dims) != 2 or index.dims[1] != ():
        return None
    spread = tuple((reader.axes.new(size, repeats=True),) for size in shape[1:])
    return _products.pick(reader.axes, replace(index, dims=(index.dims[0], *spread)), 0, data, shape)


RULES: dict[str, Rule] = {
    "Add": _add,
    "ArgMax": _best,
    "Cast": _cast,
    "CastLike": _cast,
    "Div": _div,
    "Einsum": _contract,
    "Equal": _equal,
    "GatherElements": _gather,
    "GatherND": _gather_nd,
    "GreaterOrEqual": _equal,
    "MatMul": _contract,
    "Mul": _mul,
    "OneHot": _one_hot,
    "ReduceMax": _best,
    "ReduceSum": _reduce_sum,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Sub": _sub,
    "TopK": _best,
    "Where": _where,
}
