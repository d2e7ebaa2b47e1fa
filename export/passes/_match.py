"""What the passes ask of a graph, and how they change it: the guards that all of them need, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Dim = int | str

# operators that work on each element by itself; with two inputs they broadcast
UNARY = frozenset(
    {"Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg"}
    | {"Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh"}
)
BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})


def is_op(node: ir.Node | None, *names: str) -> bool:
    """A standard operator of one of these names."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in names


def source(value: ir.Value | None, *names: str) -> ir.Node | None:
    """The standard operator of one of these names that gives the value."""
    node = None if value is None else value.producer()
    return node if is_op(node, *names) else None


def constant(value: ir.Value | None) -> Array | None:
    """The value's array if nobody can change it: a graph input's default does not count."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def floats(value: ir.Value | None) -> Array | None:
    """A float32 constant as float64, to compute with; other types are left alone, since they round elsewhere."""
    array = constant(value)
    return array.astype(np.float64) if array is not None and array.dtype == np.float32 else None


def shape(value: ir.Value | None) -> list[Dim] | None:
    """The known dimensions, numbers or names; None where the rank or any dimension is unknown."""
    if value is None or value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return None if any(dim is None for dim in dims) else [d for d in dims if d is not None]


def rank(value: ir.Value | None) -> int | None:
    """The number of dimensions, if known."""
    return None if value is None or value.shape is None else len(value.shape)


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, once, if nobody else sees it: no other input and no graph output."""
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def per_channel(value: ir.Value | None, like: ir.Value | None) -> Array | None:
    """A constant with one number a channel of `like` [B, C, ...] and that shape after broadcasting, as [C] float64."""
    array, dims = floats(value), shape(like)
    if array is None or dims is None or len(dims) < 3 or array.ndim not in (len(dims) - 1, len(dims)):
        return None
    wanted = (dims[1], *[1] * (len(dims) - 2))
    return array.reshape(-1) if array.shape in (wanted, (1, *wanted)) else None


def operands(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """The two ways to read a commutative node: (this, with that)."""
    first, second = node.inputs
    return [(first, second), (second, first)] if first is not None and second is not None else []


def unpadded(conv: ir.Node) -> bool:
    """No border is added: each output sees the input only."""
    return conv.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(
        conv.attributes.get_ints("pads") or ()
    )


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initialiser; its name is `name`, with a number if that is taken."""
    free, number = name, 1
    while free in graph.initializers:
        free, number = f"{name}_{number}", number + 1
    value = ir.Value(name=free, const_value=ir.tensor(np.asarray(array, order="C"), name=free))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def float_constant(graph: ir.Graph, near: ir.Value | None, array: Array) -> ir.Value:
    """A new float32 initialiser, named after the one that it takes the place of."""
    return add_constant(graph, (near.name if near is not None else None) or "folded", array.astype(np.float32))


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Set an input that may be absent so far."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def make(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    dtype: ir.DataType | None,
    *shapes: Sequence[Dim] | None,
    attributes: Mapping[str, Any] | None = None,
) -> ir.Node:
    """A node that is in no graph yet, with outputs of these shapes."""
    node = ir.node(op_type, inputs, dict(attributes or {}), num_outputs=len(shapes))
    for value, dims in zip(node.outputs, shapes, strict=True):
        value.shape = None if dims is None else ir.Shape(dims)
        value.type = None if dtype is None else ir.TensorType(dtype)
    return node


def insert_before(place: ir.Node, *nodes: ir.Node) -> None:
    """Put nodes into the graph of `place`, before it."""
    graph_of(place).insert_before(place, nodes)


def insert_after(place: ir.Node, *nodes: ir.Node) -> None:
    """Put nodes into the graph of `place`, after it."""
    graph_of(place).insert_after(place, nodes)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that a node stands in."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"the node {node.name} stands in no graph: passes change graphs only")
    return graph


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether `new` can take the place of `old`: a graph output keeps its name, which `new` must be free to take."""
    if not old.is_graph_output():
        return True
    return new.producer() is not None and not new.is_graph_output()


def replace(node: ir.Node, *values: ir.Value) -> None:
    """Let the values take the place of a node's outputs, and remove the node."""
    for old, new in zip(node.outputs, values, strict=True):
        if old.is_graph_output():
            name = old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name, new.name = f"{name}_before", name
        else:
            old.replace_all_uses_with(new)
        if new.shape is None:
            new.shape = old.shape
        if new.type is None:
            new.type = old.type
    graph_of(node).remove(node, safe=True)


def remove_unused(*nodes: ir.Node | None) -> None:
    """Remove those of the nodes that nothing reads any more; list users before what they use."""
    for node in nodes:
        if node is None or node.graph is None:
            continue
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph_of(node).remove(node, safe=True)
