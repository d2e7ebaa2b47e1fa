"""The layers of a graph that int8 could speed up, and the role that each plays in a model that clusters.

A layer is a Conv, a Gemm or a MatMul whose weight is a constant that multiplies from the right. Roles are recognised by
where values flow, not by names:

    embedding    reads the image
    similarity   what it gives decides which cluster a point belongs to, or how much it weighs in a centre
    projection   reads what a clustering gathered: points that are their centres times a weight
    depthwise    each channel by itself
    head         gives the logits
    shown        neither logits, features nor clusters depend on it: what it gives is only shown
    dense        everything else: MLPs, 3x3 convolutions, the values of a pool
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from cluinfer.engines.openvino_fusion.projection import MANY, WORTH
from cluinfer.export.passes._match import Array, constant, is_op, shape, source
from cluinfer.graph import FEATURES, LOGITS
from cluinfer.ops.schema import DOMAIN

EMBEDDING, SIMILARITY, PROJECTION, DEPTHWISE = "embedding", "similarity", "projection", "depthwise"
HEAD, SHOWN, DENSE = "head", "shown", "dense"

_MOVES = ("Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity", "AveragePool")
_COSINE = (*_MOVES, "ReduceL2", "Clip", "Max", "Div", "Mul", "MatMul")  # to the softmax of a soft aggregation
_BIAS = (*_MOVES, "Add")
_NAME = re.compile(r"(.+)\.(?:weight|bias)(?:_\d+)*")


@dataclass(frozen=True)
class Layer:
    """One of them."""

    name: str  # module path in the checkpoint, as far as the names of weights tell; unique
    role: str
    node: ir.Node
    macs: int  # multiplications for one image
    centres: bool = False  # a projection that engines apply to the centres, which are few, not to the points

    @property
    def input(self) -> ir.Value:
        """What it multiplies."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def reads(self) -> str:
        """The name of its input."""
        return self.input.name or ""

    @property
    def weight(self) -> Array:
        """[outputs, inputs / groups, ...] of a Conv, else as it stands in the graph."""
        value = constant(self.node.inputs[1])
        assert value is not None
        return value

    @property
    def channel_axis(self) -> int:
        """Of the channels in the input."""
        return len(self.input.shape or ()) - 1 if self.node.op_type == "MatMul" else 1

    @property
    def weight_axis(self) -> int:
        """Of the outputs in the weight: each has a scale of its own."""
        if self.node.op_type == "Conv":
            return 0
        return 0 if self.node.attributes.get_int("transB", 0) else self.weight.ndim - 1

    @property
    def pointwise(self) -> bool:
        """Whether it is a matrix product on the channels of each point: a border adds nothing."""
        if self.node.op_type != "Conv":
            return True
        get = self.node.attributes
        padded = any(get.get_ints("pads") or ()) or get.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return set(self.weight.shape[2:]) == {1} and get.get_int("group", 1) == 1 and not padded

    def matrix(self) -> Array:
        """The weight as [outputs, everything else]."""
        moved = self.weight if self.weight_axis == 0 else self.weight.T
        rows: Array = moved.reshape(len(moved), -1)
        return rows


def find_layers(model: ir.Model) -> list[Layer]:
    """In the order of the graph."""
    decisive = _decisive(model.graph)
    found: list[Layer] = []
    taken: set[str] = set()
    for node in model.graph:
        if not _is_layer(node):
            continue
        name = _unique(_name(node), taken)
        centres = _projects(node)
        role = SHOWN if node not in decisive else _role(node, centres is not None)
        found.append(Layer(name, role, node, _macs(node), bool(centres)))
    return found


def _is_layer(node: ir.Node) -> bool:
    if not is_op(node, "Conv", "Gemm", "MatMul") or node.inputs[0] is None or constant(node.inputs[0]) is not None:
        return False
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype != "float32" or shape(node.inputs[0]) is None or shape(node.outputs[0]) is None:
        return False
    if node.op_type == "Conv":
        return weight.ndim == 4
    get = node.attributes
    plain = node.op_type == "MatMul" or (get.get_float("alpha", 1.0) == 1.0 and not get.get_int("transA", 0))
    return weight.ndim == 2 and plain and not _averages(weight)


def _averages(weight: Array) -> bool:
    """Whether this is adaptive pooling, written as a product: each column sums to 1 and nothing is negative."""
    return bool((weight >= 0).all() and np.allclose(weight.sum(0), 1, atol=1e-5))


def _role(node: ir.Node, projects: bool) -> str:
    (value,) = node.outputs
    if node.inputs[0] is not None and node.inputs[0].is_graph_input():
        return EMBEDDING
    if node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1:
        return DEPTHWISE
    if any(_is_assign(user) or is_op(user, "Softmax") for user in _readers(value, _COSINE)):
        return SIMILARITY
    if projects:
        return PROJECTION
    return HEAD if any(each.is_graph_output() for each in _values(value, _BIAS)) else DENSE


def _decisive(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that logits, features or clusters depend on."""
    ends = [value for value in graph.outputs if (value.name or "").partition("/")[0] in (LOGITS, FEATURES)]
    todo = [node for node in graph if _is_assign(node)] + [node for value in ends if (node := value.producer())]
    seen: set[ir.Node] = set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += node.predecessors()
    return seen


def _projects(node: ir.Node) -> bool | None:
    """None where this reads no gathered points; else whether engines apply it to the centres (see projection.py)."""
    value = node.inputs[0]
    while (mover := source(value, *_MOVES)) is not None:
        value = mover.inputs[0]
    gather = None if value is None else value.producer()
    if gather is None or gather.domain != DOMAIN or gather.op_type != "ClusterGather" or node.op_type != "Conv":
        return None
    centers, index, size = shape(gather.inputs[0]), shape(gather.inputs[1]), shape(node.inputs[0])
    sides = [side for dims in (centers, index, size) for side in (dims or ["?"])[-1:]]
    if not all(isinstance(side, int) for side in sides) or centers is None or index is None or size is None:
        return False
    points = math.prod(side for side in size[2:] if isinstance(side, int))
    regions = points // max(int(index[-1]), 1)
    return set(constant(node.inputs[1]).shape[2:]) == {1} and points >= max(WORTH * regions * int(centers[-1]), MANY)  # type: ignore[union-attr]


def _is_assign(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type == "ClusterAssign"


def _values(value: ir.Value, through: Iterable[str]) -> Iterator[ir.Value]:
    """This value and what such operators make of it."""
    todo, seen = [value], {value}
    while todo:
        here = todo.pop()
        yield here
        for node in here.consumers():
            for made in node.outputs:
                if is_op(node, *through) and made not in seen:
                    seen.add(made)
                    todo.append(made)


def _readers(value: ir.Value, through: Iterable[str]) -> Iterator[ir.Node]:
    for each in _values(value, through):
        yield from each.consumers()


def _macs(node: ir.Node) -> int:
    given = constant(node.inputs[1])
    made = [side for side in shape(node.outputs[0]) or [] if isinstance(side, int)]
    assert given is not None
    # a Conv makes each output from a kernel, the others from a row
    each = math.prod(given.shape[1:]) if node.op_type == "Conv" else given.size // max(made[-1], 1)
    return math.prod(made) * each


def _name(node: ir.Node) -> str:
    for value in node.inputs[1:]:
        match = _NAME.fullmatch(value.name or "") if value is not None else None
        if match:
            return match[1]
    return node.outputs[0].name or node.op_type


def _unique(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}#{number}", number + 1
    taken.add(free)
    return free
