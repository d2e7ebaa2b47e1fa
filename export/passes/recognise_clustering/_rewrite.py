"""Replace what is needed of a clustering by cluinfer nodes, where that leaves no M x N value behind.

- Only values that something outside the clustering reads are replaced, so that a chain becomes its last term.
- A clustering is rewritten or left as a whole: where its similarity or its mask would still be needed, it would be
  computed twice, and nothing is gained.
- What only reads the index, such as an unknown way of averaging, reads that of ClusterAssign.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._arrange import Step, apply, sources, steps
from cluinfer.export.passes.recognise_clustering._axes import Dim, Dims, to_shape
from cluinfer.export.passes.recognise_clustering._facts import (
    Cluster,
    Fact,
    Index,
    Leaf,
    Mean,
    Picked,
    Product,
    Similarity,
    is_weight,
)
from cluinfer.export.passes.recognise_clustering._layout import layout_of
from cluinfer.export.passes.recognise_clustering._read import Reader
from cluinfer.export.passes.recognise_clustering._similarity import float32, layer_of
from cluinfer.export.translate import LAYER, LAYOUT
from cluinfer.ops.schema import DOMAIN, VERSION

NO_LAYER = "the model"


@dataclass
class Term:
    """A value to be replaced: the operator that makes it, what goes in, what comes out."""

    fact: Fact
    cluster: Cluster
    leaves: list[tuple[Leaf, Dims]]  # what goes in, and the dimensions that it must have
    dims: Dims  # what comes out
    way: list[Step]  # and how that gets to the value's own dimensions


class Rewriter:
    """Decides what to replace, then replaces it."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.reader = Reader(model.graph)
        self.left = list(self.reader.clusters.left)
        self._failed: dict[Cluster, str] = {}
        self._new: dict[ir.Value, ir.Value] = {}  # what replaced values
        self._made: dict[tuple[object, ...], ir.Value] = {}  # an operator's output, by what goes in
        self._assigned: dict[Cluster, ir.Node] = {}

    def run(self) -> int:
        """Rewrite, and give the number of cluinfer nodes made."""
        terms = self._decide()
        order = {value: i for i, value in enumerate(value for node in self.graph for value in node.outputs)}
        made = 0
        for value in sorted(terms, key=lambda v: order[v]):
            made += self._replace(value, terms[value])
        self._remark(terms)
        return made

    # --- what to replace

    def _decide(self) -> dict[ir.Value, Term]:
        """Follow what the outputs need; start again whenever a clustering turns out to be needed in full."""
        while True:
            known = len(self._failed)
            terms = self._needed()
            if len(self._failed) == known:
                return terms

    def _needed(self) -> dict[ir.Value, Term]:
        terms: dict[ir.Value, Term] = {}
        seen: set[ir.Value] = set()
        todo: list[tuple[ir.Value, str]] = [(value, "an output of the model") for value in self.graph.outputs]
        while todo:
            value, reader = todo.pop()
            if value in seen:
                continue
            seen.add(value)
            term = self._term(value)
            if term is not None:
                terms[value] = term
                ways = [*term.leaves, *self._sides(term.cluster)]
                todo += [(leaf.value, "") for leaf, _ in ways]
                continue
            self._check(value, reader)
            node = value.producer()
            if node is not None:
                by = f"{node.op_type} of {layer_of(node)}"
                todo += [(v, by) for v in _read_by(node)]
        return terms

    def _check(self, value: ir.Value, reader: str) -> None:
        """A similarity or mask that is needed itself fails its clusterings."""
        fact = self.reader.fact(value)
        if isinstance(fact, Product) and fact.mask:
            self._failed.setdefault(fact.cluster, f"its mask is also needed by {reader}")
        if isinstance(fact, Similarity):
            for cluster in self.reader.clusters.all:
                if cluster.cosine is fact.cosine:
                    self._failed.setdefault(cluster, f"its similarity is also needed by {reader}")

    def _term(self, value: ir.Value) -> Term | None:
        """How a value is made by an operator, where it is, and its clustering is rewritten."""
        fact = self.reader.fact(value)
        if not (isinstance(fact, (Index, Mean, Picked)) or (isinstance(fact, Product) and is_weight(fact))):
            return None
        cluster = fact.cluster
        if not cluster.assigns or cluster in self._failed or not self.reader.axes.varies(fact.dims):
            return None
        if isinstance(fact, Index) and fact.offset:
            return None
        leaves, dims = _shapes(fact)
        types = {v.dtype for v in (value, *(leaf.value for leaf, _ in leaves)) if v.dtype is not None}
        if not isinstance(fact, Index) and types != {ir.DataType.FLOAT}:
            return None
        way = steps(self.reader.axes, dims, fact.dims)
        ins = [self._way(leaf, wanted) for leaf, wanted in (*leaves, *self._sides(cluster))]
        if way is None or any(found is None for found in ins):
            self._failed[cluster] = "its axes cannot be brought into the operators' order with these dynamic shapes"
            return None
        return Term(fact, cluster, leaves, dims, way)

    def _sides(self, cluster: Cluster) -> list[tuple[Leaf, Dims]]:
        depth = cluster.cosine.depth
        return [(cluster.points, (cluster.g, depth, cluster.n)), (cluster.centers, (cluster.g, depth, cluster.m))]

    def _way(self, leaf: Leaf, wanted: Dims) -> tuple[Leaf, list[Step]] | None:
        """The shortest way to the wanted dimensions, from the leaf or from what it was rearranged from."""
        best: tuple[Leaf, list[Step]] | None = None
        for source in sources(self.reader.axes, Leaf(self._new.get(leaf.value, leaf.value), leaf.dims)):
            way = steps(self.reader.axes, source.dims, wanted)
            if way is not None and (best is None or len(way) < len(best[1])):
                best = source, way
        return best

    # --- replacing

    def _replace(self, value: ir.Value, term: Term) -> int:
        node = value.producer()
        assert node is not None
        made: list[ir.Node] = []
        count = 0
        if term.cluster not in self._assigned:
            self._assign(term.cluster)
            count += 1
        index, weight = self._assigned[term.cluster].outputs
        if isinstance(term.fact, (Mean, Picked)):
            key = (term.cluster, term.fact.power, *term.leaves)
            if key not in self._made:
                self._made[key] = self._operator(node, term, term.fact, index, weight, made)
                count += 1
            result = self._made[key]
        else:
            result = index if isinstance(term.fact, Index) else weight
        result = apply(self.reader.axes, result, term.way, made)
        if isinstance(term.fact, Index) and value.dtype != ir.DataType.INT32:
            made.append(ir.node("Cast", [result], {"to": int(ir.DataType.INT64)}))
            result = made[-1].outputs[0]
            result.dtype, result.shape = ir.DataType.INT64, value.shape
        if value.is_graph_output():
            made.append(ir.node("Identity", [result]))
            result = made[-1].outputs[0]
            result.dtype, result.shape = value.dtype or ir.DataType.FLOAT, value.shape
            result.name, value.name = value.name, None
        self._new[value] = result
        self.graph.insert_before(node, made)
        ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
        return count

    def _operator(
        self, node: ir.Node, term: Term, fact: Mean | Picked, index: ir.Value, weight: ir.Value, made: list[ir.Node]
    ) -> ir.Value:
        """ClusterScatter or ClusterGather."""
        ins = [self._arranged(leaf, wanted, made) for leaf, wanted in term.leaves]
        inputs = [ins[0], index, *ins[1:], *([weight] if fact.power else [])]
        made.append(self._node("ClusterScatter" if isinstance(fact, Mean) else "ClusterGather", inputs, 1))
        _name(made[-1], layer_of(node) if layer_of(node) != NO_LAYER else term.cluster.layer)
        result = made[-1].outputs[0]
        result.dtype, result.shape = ir.DataType.FLOAT, to_shape(self.reader.axes.shape(term.dims))
        return result

    def _assign(self, cluster: Cluster) -> None:
        """ClusterAssign, right after the product of unit vectors that it replaces."""
        made: list[ir.Node] = []
        points, centers = (self._arranged(leaf, wanted, made) for leaf, wanted in self._sides(cluster))
        node = self._node("ClusterAssign", [points, centers], 2)
        node.attributes["alpha"] = ir.AttrFloat32("alpha", float32(cluster.alpha))
        node.attributes["beta"] = ir.AttrFloat32("beta", float32(cluster.beta))
        node.attributes["sigmoid"] = ir.AttrInt64("sigmoid", int(cluster.sigmoid))
        _name(node, cluster.layer)
        layout = layout_of(self.reader, cluster)
        if layout is None:
            self.left.append(
                f"{cluster.layer}: rewritten, but without a cluster map: where its points lie is not plain"
            )
        else:
            node.metadata_props[LAYOUT] = ",".join(map(str, layout))
        shape = to_shape(self.reader.axes.shape((cluster.g, cluster.n)))
        for value, dtype in zip(node.outputs, (ir.DataType.INT32, ir.DataType.FLOAT), strict=True):
            value.dtype, value.shape = dtype, shape
        self.graph.insert_after(cluster.cosine.node, [*made, node])
        self._assigned[cluster] = node

    def _arranged(self, leaf: Leaf, wanted: Dims, made: list[ir.Node]) -> ir.Value:
        found = self._way(leaf, wanted)
        assert found is not None
        value = apply(self.reader.axes, found[0].value, found[1], made)
        if value.shape is None:
            value.shape = to_shape(self.reader.axes.shape(wanted))
        return value

    def _node(self, op: str, inputs: list[ir.Value], outputs: int) -> ir.Node:
        return ir.Node(DOMAIN, op, inputs, num_outputs=outputs, version=VERSION)

    # --- remarks

    def _remark(self, terms: dict[ir.Value, Term]) -> None:
        """Say what was left, and why; the reason found while reading says more than who reads the rest."""
        for cluster in self.reader.clusters.all:
            if cluster in self._assigned:
                self.left += [
                    f"{cluster.layer}: assigned by ClusterAssign, the rest as it is: {n}" for n in cluster.notes
                ]
            elif cluster in self._failed or cluster.notes:
                reason = "; ".join(cluster.notes) or self._failed[cluster]
                if cluster.assigns or cluster.notes:
                    self.left.append(f"{cluster.layer}: left as it is: {reason}")


def _shapes(fact: Fact) -> tuple[list[tuple[Leaf, Dims]], Dims]:
    """What goes into the operator of a fact, with the dimensions wanted there, and what comes out."""
    if isinstance(fact, Mean):
        g, m, n = fact.cluster.g, fact.cluster.m, fact.cluster.n
        values, base = _channels(fact.leaf, (*g, *n)), _channels(fact.base, (*g, *m))
        return [(fact.leaf, (g, values, n)), (fact.base, (g, base, m))], (g, base, m)
    if isinstance(fact, Picked):
        g, m, n = fact.cluster.g, fact.cluster.m, fact.cluster.n
        channels = _channels(fact.leaf, (*g, *m))
        return [(fact.leaf, (g, channels, m))], (g, channels, n)
    assert isinstance(fact, (Index, Product))
    return [], (fact.cluster.g, fact.cluster.n)


def _channels(leaf: Leaf, others: Dim) -> Dim:
    return tuple(axis for dim in leaf.dims for axis in dim if axis not in others)


def _read_by(node: ir.Node) -> list[ir.Value]:
    """What a node needs, with what the graphs inside it take from outside."""
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    inner = [value for graph in graphs for n in graph.all_nodes() for value in n.inputs]
    inner += [value for graph in graphs for value in graph.outputs]
    return [value for value in (*node.inputs, *inner) if value is not None]


def _name(node: ir.Node, layer: str) -> None:
    if layer != NO_LAYER:
        node.metadata_props[LAYER] = layer
