"""Vectors divided by their own length: x / max(norm(x), 1e-12), in the ways in which exporters write it.

The length is ReduceL2, or the root of a sum of squares; its bound a Clip or a Max, before the root (squared) or after.
Anything that divides by a length but is bounded otherwise is returned with the reason why it is not the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from cluinfer.export.passes.recognise_clustering._axes import integers, scalar, shape_of
from cluinfer.ops.schema import EPSILON


@dataclass
class _Length:
    """What is gathered on the way back from a divisor to the vectors whose length it may be."""

    bound: float | None = None
    inserted: list[int] = field(default_factory=list)  # axes put in again after the reduction
    source: ir.Value | None = None
    axis: int = 0
    keeps: bool = True

    def raise_bound(self, bound: float) -> None:
        self.bound = bound if self.bound is None else max(self.bound, bound)


def unit(node: ir.Node) -> tuple[ir.Value, int, str | None] | None:
    """For x / length(x): x, its axis from the front, and what is wrong with it."""
    if node.op_type != "Div" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    source, shape, length = node.inputs[0], shape_of(node.inputs[0]), _Length()
    _root(_strip(node.inputs[1], length), length)
    if length.source is not source or shape is None or shape_of(node.outputs[0]) != shape:
        return None
    inserted = [axis % len(shape) for axis in length.inserted]
    if inserted != ([] if length.keeps else [length.axis]):
        return None  # divided along another axis than the length was taken
    problem = None
    if length.bound is None:
        problem = f"vectors are divided by their norm without its lower bound of {EPSILON:g}"
    elif abs(length.bound - EPSILON) > 1e-6 * EPSILON:  # equal but for float32 and a root
        problem = f"norms are bounded at {length.bound:g}, not at {EPSILON:g}"
    return source, length.axis, problem


def _root(value: ir.Value, length: _Length) -> None:
    """Read ReduceL2, or the root of a sum of squares, with a bound under the root."""
    node = value.producer()
    if node is None or node.inputs[0] is None:
        return
    if node.op_type == "ReduceL2":
        _reduction(node, node.inputs[0], length)
    elif node.op_type == "Sqrt" or (node.op_type == "Pow" and scalar(node.inputs[1]) == 0.5):
        squared = _Length()
        node = _strip(node.inputs[0], squared).producer()
        if squared.bound is not None:
            length.raise_bound(squared.bound**0.5)
        length.inserted += squared.inserted
        if node is not None and node.op_type == "ReduceSumSquare":
            _reduction(node, node.inputs[0], length)
        elif node is not None and node.op_type == "ReduceSum":
            _reduction(node, _squared(node.inputs[0]), length)


def _reduction(node: ir.Node, source: ir.Value | None, length: _Length) -> None:
    """Read the one axis that a reduction runs along."""
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is not None and source.shape is not None and axes is not None and len(axes) == 1:
        length.source, length.axis = source, axes[0] % len(source.shape)
        length.keeps = bool(node.attributes.get_int("keepdims", 1))


def _squared(value: ir.Value | None) -> ir.Value | None:
    """The x of x · x or x ** 2."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return node.inputs[0] if node.op_type == "Pow" and scalar(node.inputs[1]) == 2 else None


def _strip(value: ir.Value, length: _Length) -> ir.Value:
    """Go back through bounds, and through what only brings the length to the vectors' shape."""
    while (node := value.producer()) is not None and node.inputs[0] is not None:
        if node.op_type in ("Clip", "Max"):
            bounded, bound = _bounded(node)
            if bounded is None or bound is None:
                break
            length.raise_bound(bound)
            value = bounded
            continue
        if node.op_type not in ("Expand", "Unsqueeze", "Identity"):
            break
        if node.op_type == "Unsqueeze":
            length.inserted += integers(node.inputs[1]) or []
        value = node.inputs[0]
    return value


def _bounded(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """The value and the number of a lower bound."""
    inputs = list(node.inputs)
    if node.op_type == "Clip":
        upper = inputs[2] if len(inputs) > 2 else None
        return (None, None) if upper is not None or len(inputs) < 2 else (inputs[0], scalar(inputs[1]))
    if len(inputs) != 2:
        return None, None
    return (inputs[0], scalar(inputs[1])) if scalar(inputs[1]) is not None else (inputs[1], scalar(inputs[0]))
