"""From two sides of unit vectors to an assignment: product, affine, sigmoid, and the maximum over one side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import Axes, Axis, Dim, Dims, flat, integers, scalar
from cluinfer.export.passes.recognise_clustering._facts import (
    Cluster,
    Cosine,
    Fact,
    Index,
    Leaf,
    Product,
    Similarity,
    Unit,
)
from cluinfer.export.translate import LAYER

Letters = tuple[str, str, str]  # of the left side, the right side, the output


def letters(node: ir.Node, left: int, right: int) -> Letters | None:
    """MatMul and Einsum of operands with these ranks in one notation; None for anything wider."""
    if node.op_type == "Einsum":
        equation = (node.attributes.get_string("equation") or "").replace(" ", "")
        sides, _, out = equation.partition("->")
        first, _, second = sides.partition(",")
        given = (first, second, out)
        plain = all(part.isalpha() and len(set(part)) == len(part) for part in given)
        return given if plain and (len(first), len(second)) == (left, right) else None
    if left != right or left < 2:
        return None
    batch = "abcdefgh"[: left - 2]
    return f"{batch}ik", f"{batch}kj", f"{batch}ij"


def cosine(axes: Axes, node: ir.Node, left: Unit, right: Unit) -> Similarity | None:
    """The product of two sides of unit vectors, where it contracts exactly their depth."""
    given = letters(node, len(left.dims), len(right.dims))
    if given is None:
        return None
    of_left, of_right = (
        dict(zip(part, side.dims, strict=True)) for part, side in ((given[0], left), (given[1], right))
    )
    if any(axes.size(of_left[c]) != axes.size(of_right[c]) for c in of_left.keys() & of_right.keys()):
        return None
    depth = [c for c in of_left if c in of_right and c not in given[2]]
    if [of_left[c] for c in depth] != [left.depth] or [of_right[c] for c in depth] != [right.depth]:
        return None
    if any(c not in given[2] for c in of_left.keys() ^ of_right.keys()) or not axes.varies((*left.dims, *right.dims)):
        return None
    groups = [c for c in given[2] if c in of_left and c in of_right]
    names = _same_axes(axes, [of_left[c] for c in (*groups, *depth)], [of_right[c] for c in (*groups, *depth)])
    if names is None:
        return None
    found = Cosine(
        node,
        groups=flat(of_left[c] for c in groups),
        depth=left.depth,
        rows=flat(of_left[c] for c in given[2] if c in of_left and c not in of_right),
        columns=flat(of_right[c] for c in given[2] if c in of_right and c not in of_left),
        left=left.source,
        right=Leaf(right.source.value, _renamed(right.source.dims, names)),
    )
    dims = tuple(of_left[c] if c in of_left else of_right[c] for c in given[2])
    if not found.rows or not found.columns:
        return None
    return Similarity(dims, found, problem=left.problem or right.problem)


def scaled(node: ir.Node, fact: Similarity, number: float, first: bool) -> Similarity | None:
    """The similarity after one step of arithmetic with a number; `first`: the similarity is the first operand."""
    if fact.sigmoid:
        return None
    if node.op_type == "Mul":
        return replace(fact, alpha=fact.alpha * number, beta=fact.beta * number)
    if node.op_type == "Div" and first and number:
        return replace(fact, alpha=fact.alpha / number, beta=fact.beta / number)
    if node.op_type == "Add":
        return replace(fact, beta=fact.beta + number)
    if node.op_type == "Sub" and first:
        return replace(fact, beta=fact.beta - number)
    return None


class Clusters:
    """The assignments of a graph, and what was found but cannot be one."""

    def __init__(self, axes: Axes) -> None:
        self.all: list[Cluster] = []
        self.left: list[str] = []
        self._axes = axes

    def best(self, node: ir.Node, fact: Similarity) -> list[Fact | None] | None:
        """The facts on the outputs of a maximum over one side: ArgMax, ReduceMax or TopK."""
        axis = _axis(node, len(fact.dims))
        if axis is None or fact.dims[axis] not in (fact.cosine.rows, fact.cosine.columns):
            return None
        if fact.problem is not None:
            self.remark(node, fact.problem)
            return None
        if node.op_type == "TopK" and scalar(node.inputs[1]) != 1:
            self.remark(node, "each point goes to more than one centre (TopK with k other than 1)")
            return None
        if node.attributes.get_int("select_last_index", 0) or not node.attributes.get_int("largest", 1):
            self.remark(node, "each point goes to the last of its best centres, or to the worst, not to the first")
            return None
        cluster = self._cluster(node, fact, fact.dims[axis])
        cluster.assigns = cluster.assigns or node.op_type != "ReduceMax"
        keeps = node.op_type == "TopK" or node.attributes.get_int("keepdims", 1) != 0
        dims = tuple(() if i == axis else dim for i, dim in enumerate(fact.dims) if keeps or i != axis)
        index, weight = Index(dims, cluster), Product(dims, cluster, mask=False, power=1)
        if node.op_type == "TopK":
            return [weight, index]
        return [index if node.op_type == "ArgMax" else weight]

    def softened(self, node: ir.Node, fact: Similarity) -> None:
        """Remark on a softmax over the smaller side, which is an assignment in shares; over the other, attention."""
        axis = node.attributes.get_int("axis", -1)
        one, other = (self._axes.size(side) for side in (fact.cosine.rows, fact.cosine.columns))
        over = self._axes.size(fact.dims[axis])
        if fact.dims[axis] in (fact.cosine.rows, fact.cosine.columns) and over == min(one, other) and one != other:
            self.remark(node, "a soft assignment (softmax over the centres): each point belongs to all of them")

    def remark(self, node: ir.Node, reason: str) -> None:
        """Say why a clustering was left as it is."""
        line = f"{layer_of(node)}: left as it is: {reason}"
        if line not in self.left:
            self.left.append(line)

    def _cluster(self, node: ir.Node, fact: Similarity, m: Dim) -> Cluster:
        for cluster in self.all:
            if cluster.m == m and is_similarity(cluster, fact):
                return cluster
        n = fact.cosine.columns if m == fact.cosine.rows else fact.cosine.rows
        self.all.append(Cluster(fact.cosine, fact.alpha, fact.beta, fact.sigmoid, m, n, layer_of(node)))
        return self.all[-1]


def is_similarity(cluster: Cluster, fact: Similarity) -> bool:
    """Whether a similarity is the one that a cluster assigns by."""
    known = (cluster.cosine, cluster.alpha, cluster.beta, cluster.sigmoid)
    return known == (fact.cosine, fact.alpha, fact.beta, fact.sigmoid)


def layer_of(node: ir.Node) -> str:
    """The module path that a node comes from."""
    return node.metadata_props.get(LAYER) or "the model"


def _axis(node: ir.Node, rank: int) -> int | None:
    if node.op_type == "ReduceMax":
        given = integers(node.inputs[1]) if len(node.inputs) > 1 else None
        return given[0] % rank if given is not None and len(given) == 1 else None
    return int(node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0)) % rank


def _same_axes(axes: Axes, left: list[Dim], right: list[Dim]) -> dict[Axis, Axis] | None:
    """The axes on the right by their names on the left, where both are split alike."""
    one, other = flat(left), flat(right)
    if [axes.size((a,)) for a in one] != [axes.size((a,)) for a in other]:
        return None
    return dict(zip(other, one, strict=True))


def _renamed(dims: Dims, names: dict[Axis, Axis]) -> Dims:
    return tuple(tuple(names.get(axis, axis) for axis in dim) for dim in dims)


def float32(value: float) -> float:
    """A number as the graph holds it."""
    return float(np.float32(value))
