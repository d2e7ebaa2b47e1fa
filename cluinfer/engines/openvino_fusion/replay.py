"""Recompute a stretch of an OpenVINO graph in NumPy, to see what it does rather than how it is spelled.

The fusions recognise their patterns by value: a stretch is replayed on numbers, and what comes out is compared with
the definition. Any chain of reshapes, splits and pools that does the same is the same pattern.

MOVES        only move numbers: replaying them on 0, 1, 2, ... shows where each one goes
MEANS        and those that average neighbours
SOFTMAX      and those of an attention
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BATCH = 2  # so that a mistaken batch axis shows

MOVES = frozenset({"Reshape", "Transpose", "Split", "VariadicSplit", "Squeeze", "Unsqueeze"})
MEANS = MOVES | {"AvgPool", "MatMul"}
SOFTMAX = MEANS | {"ReduceL2", "Clamp", "Maximum", "Minimum", "Divide", "Multiply", "Softmax", "NormalizeL2"}


def key(output: Any) -> tuple[str, int]:
    """What tells an output from all others of its model."""
    return output.get_node().get_name(), output.get_index()


def constant(output: Any) -> Array | None:
    """The value of a constant, else None."""
    node = output.get_node()
    return np.asarray(node.data) if node.get_type_name() == "Constant" else None


def root(output: Any, through: frozenset[str], limit: int = 64) -> Any | None:
    """The one output that is not a constant from which `output` is computed by these operators, else None."""
    found: dict[tuple[str, int], Any] = {}
    todo, seen = [output], {key(output)}
    while todo:
        here = todo.pop()
        node = here.get_node()
        if node.get_type_name() == "Constant":
            continue
        if node.get_type_name() not in through:
            found[key(here)] = here
            continue
        for port in node.inputs():
            source = port.get_source_output()
            if key(source) not in seen:
                seen.add(key(source))
                todo.append(source)
        if len(seen) > limit or len(found) > 1:
            return None
    return next(iter(found.values())) if len(found) == 1 else None


def map_shape(output: Any) -> tuple[int, int, int] | None:
    """Channels, rows and columns of a map [B,C,H,W]; None where it is something else or not fixed."""
    shape = output.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 4 or any(side.is_dynamic for side in list(shape)[1:]):
        return None
    channels, rows, columns = (int(side.get_length()) for side in list(shape)[1:])
    return channels, rows, columns


class Replay:
    """The values of outputs, given one output's value; None where an operator is not known here."""

    def __init__(self, start: Any, value: Array) -> None:
        self._values: dict[tuple[str, int], Array | None] = {key(start): value}

    def give(self, output: Any, value: Array) -> None:
        """The value of one more output."""
        self._values[key(output)] = value

    def __call__(self, output: Any) -> Array | None:
        """The value of `output`, whose root must be the start."""
        at = key(output)
        if at not in self._values:
            node = output.get_node()
            if (known := constant(output)) is not None:
                self._values[at] = known
                return known
            rule = _RULES.get(node.get_type_name())
            inputs = [self(port.get_source_output()) for port in node.inputs()] if rule else [None]
            if rule is None or any(value is None for value in inputs):
                return None
            for i, value in enumerate(rule(node.get_attributes(), *inputs)):
                self._values[node.get_name(), i] = value
        return self._values.get(at)


def _reshape(attributes: dict[str, Any], x: Array, target: Array) -> list[Array]:
    sizes = [int(size) for size in target]
    if attributes["special_zero"]:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return [x.reshape(sizes)]


def _split(attributes: dict[str, Any], x: Array, axis: Array) -> list[Array]:
    return np.split(x, attributes["num_splits"], int(axis))


def _variadic_split(attributes: dict[str, Any], x: Array, axis: Array, sizes: Array) -> list[Array]:
    return np.split(x, np.cumsum(sizes)[:-1].astype(int), int(axis))


def _avg_pool(attributes: dict[str, Any], x: Array) -> list[Array]:
    """Windows side by side without padding; any other pooling gives nothing that matches."""
    kernel, strides = list(attributes["kernel"]), list(attributes["strides"])
    pads = [*attributes["pads_begin"], *attributes["pads_end"]]
    if x.ndim != 4 or len(kernel) != 2 or strides != kernel or any(pads) or str(attributes["auto_pad"]) == "same_upper":
        return []
    rows, columns = x.shape[2] // kernel[0], x.shape[3] // kernel[1]
    if (rows * kernel[0], columns * kernel[1]) != x.shape[2:]:
        return []
    return [x.reshape(*x.shape[:2], rows, kernel[0], columns, kernel[1]).mean((3, 5))]


def _matmul(attributes: dict[str, Any], a: Array, b: Array) -> list[Array]:
    a = a.swapaxes(-1, -2) if attributes["transpose_a"] else a
    b = b.swapaxes(-1, -2) if attributes["transpose_b"] else b
    return [np.matmul(a, b)]


def _reduce_l2(attributes: dict[str, Any], x: Array, axes: Array) -> list[Array]:
    return [np.sqrt(np.square(x).sum(tuple(np.atleast_1d(axes)), keepdims=attributes["keep_dims"]))]


def _softmax(attributes: dict[str, Any], x: Array) -> list[Array]:
    power = np.exp(x - x.max(attributes["axis"], keepdims=True))
    return [power / power.sum(attributes["axis"], keepdims=True)]


def _normalize(attributes: dict[str, Any], x: Array, axes: Array) -> list[Array]:
    squares = np.square(x).sum(tuple(np.atleast_1d(axes)), keepdims=True)
    mode = str(attributes["eps_mode"])
    return [x / np.sqrt(np.maximum(squares, attributes["eps"]) if mode == "max" else squares + attributes["eps"])]


def erf(x: Array) -> Array:
    """The error function of each number; slow, for the few numbers of a replay."""
    values: Array = np.vectorize(math.erf, otypes=[np.float64])(x)
    return values


_RULES: dict[str, Callable[..., list[Array]]] = {
    "Reshape": _reshape,
    "Transpose": lambda attributes, x, order: [x.transpose([int(axis) for axis in order])],
    "Squeeze": lambda attributes, x, axes: [np.squeeze(x, tuple(int(a) for a in np.atleast_1d(axes)))],
    "Unsqueeze": lambda attributes, x, axes: [np.expand_dims(x, tuple(int(a) for a in np.atleast_1d(axes)))],
    "Split": _split,
    "VariadicSplit": _variadic_split,
    "AvgPool": _avg_pool,
    "MatMul": _matmul,
    "ReduceL2": _reduce_l2,
    "NormalizeL2": _normalize,
    "Clamp": lambda attributes, x: [np.clip(x, attributes["min"], attributes["max"])],
    "Maximum": lambda attributes, x, y: [np.maximum(x, y)],
    "Minimum": lambda attributes, x, y: [np.minimum(x, y)],
    "Divide": lambda attributes, x, y: [x / y],
    "Multiply": lambda attributes, x, y: [x * y],
    "Add": lambda attributes, x, y: [x + y],
    "Subtract": lambda attributes, x, y: [x - y],
    "Concat": lambda attributes, *parts: [np.concatenate(parts, attributes["axis"])],
    "Erf": lambda attributes, x: [erf(x)],
    "Sigmoid": lambda attributes, x: [1 / (1 + np.exp(-x))],
    "Convert": lambda attributes, x: [x],
    "Softmax": _softmax,
}


def numbered(shape: tuple[int, int, int]) -> Array:
    """A batch of maps in which every element is its own number."""
    return np.arange(BATCH * math.prod(shape)).reshape(BATCH, *shape)


def random(shape: tuple[int, ...]) -> Array:
    """Numbers in which no two averages agree by accident."""
    values: Array = np.random.default_rng(0).standard_normal((BATCH, *shape))
    return values
