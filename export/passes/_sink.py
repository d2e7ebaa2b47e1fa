"""Move a Transpose or Reshape past the elementwise operators that read it."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from cluinfer.export.passes._match import (
    BINARY,
    UNARY,
    constant,
    insert_after,
    is_op,
    make,
    rank,
    remove_unused,
    shape,
)


def sink(node: ir.Node, welcome: Callable[[ir.Node], bool]) -> bool:
    """Do it if all readers are elementwise with scalars, and one value leaves them, to `welcome` readers only.

    Where the other side of a residual sum has no such Transpose, or two values leave, it would have to be doubled.
    """
    value, before = node.outputs[0], node.inputs[0]
    if before is None or value.is_graph_output():
        return False
    inside, values = _region(value, rank(before))
    leaving = [v for v in values if v.is_graph_output() or any(user not in inside for user in v.consumers())]
    if not inside or len(leaving) != 1 or leaving[0] is value or leaving[0].is_graph_output():
        return False
    last = leaving[0]
    outside = [(user, place) for user, place in last.uses() if user not in inside]
    if not all(welcome(user) for user, _ in outside):
        return False
    for user, place in value.uses():
        user.replace_input_with(place, before)
    for v in values[1:]:
        v.shape = None if before.shape is None else before.shape.copy()
    moved = make(node.op_type, [last, *node.inputs[1:]], value.dtype, shape(value), attributes=node.attributes)
    producer = last.producer()
    if producer is not None:
        insert_after(producer, moved)
    for user, place in outside:
        user.replace_input_with(place, moved.outputs[0])
    remove_unused(node)
    return True


def _region(entry: ir.Value, most: int | None) -> tuple[set[ir.Node], list[ir.Value]]:
    """The elementwise nodes that follow from the value and scalars alone, and their values, the entry first."""
    inside: set[ir.Node] = set()
    values, known = [entry], {entry}
    for value in values:  # grows while we walk it
        for user in value.consumers():
            if user not in inside and _elementwise(user, known, most):
                inside.add(user)
                values.append(user.outputs[0])
                known.add(user.outputs[0])
    return inside, values


def _elementwise(node: ir.Node, known: set[ir.Value], most: int | None) -> bool:
    if is_op(node, *UNARY):
        return True
    return is_op(node, *BINARY) and all(v in known or (v is not None and _scalar(v, most)) for v in node.inputs)


def _scalar(value: ir.Value, most: int | None) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and (array.ndim == 0 or (most is not None and array.ndim <= most))
