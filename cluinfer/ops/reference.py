"""The definition of the three operators, in plain NumPy. Every fast path is held against these functions.

Rules, the same on every engine:
- The similarity is computed in float32 (float64 for float64 input); the cosine divides by max(norm, 1e-12).
- `index` is the first maximum of s over the centres, after the sigmoid: where s saturates, the lowest index wins.
- NaN counts as the maximum, as in NumPy and PyTorch: a NaN point gets index 0 and weight NaN.
- An index outside [0, M) adds nothing and gathers zero.
- Sums are exact to rounding (accumulated in float64 here), so their order cannot be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import ShapeError
from cluinfer.ops.schema import EPSILON, OPERATORS

Array = NDArray[Any]


def cluster_assign(
    points: Array, centers: Array, *, alpha: float = 1.0, beta: float = 0.0, sigmoid: bool = True
) -> tuple[Array, Array]:
    """points [G,D,N], centers [G,D,M] -> index int32 [G,N], weight [G,N]."""
    _check("ClusterAssign", points=points, centers=centers)
    dtype = np.result_type(points.dtype, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        cosine = np.matmul(_unit(centers.astype(dtype)).transpose(0, 2, 1), _unit(points.astype(dtype)))  # [G,M,N]
        s = dtype.type(alpha) * cosine + dtype.type(beta)
        if sigmoid:
            s = 1 / (1 + np.exp(-s))
    index = s.argmax(axis=1)
    weight = np.take_along_axis(s, index[:, None], axis=1)[:, 0]
    return index.astype(np.int32), weight.astype(points.dtype)


def cluster_scatter(values: Array, index: Array, base: Array, weight: Array | None = None) -> Array:
    """values [G,C,N], index [G,N], base [G,C,M], weight [G,N] or None -> centers [G,C,M]."""
    _check("ClusterScatter", values=values, index=index, base=base, weight=weight)
    groups, channels, size = base.shape
    total = base.astype(np.float64)
    mass = np.ones((groups, size))
    w = np.ones(index.shape) if weight is None else weight.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for g in range(groups):
            inside = np.flatnonzero((index[g] >= 0) & (index[g] < size))
            to = index[g, inside]
            np.add.at(mass[g], to, w[g, inside])
            for c in range(channels):
                np.add.at(total[g, c], to, w[g, inside] * values[g, c, inside])
        return (total / mass[:, None]).astype(values.dtype)


def cluster_gather(centers: Array, index: Array, weight: Array | None = None) -> Array:
    """centers [G,C,M], index [G,N], weight [G,N] or None -> points [G,C,N]."""
    _check("ClusterGather", centers=centers, index=index, weight=weight)
    inside = ((index >= 0) & (index < centers.shape[2]))[:, None]
    gathered = np.take_along_axis(centers, np.where(inside, index[:, None], 0), axis=2)
    if weight is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            gathered = gathered * weight[:, None]
    return np.where(inside, gathered, 0).astype(centers.dtype)


def _unit(x: Array) -> Array:
    """Vectors along axis 1, divided by max(norm, 1e-12)."""
    norm = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    unit: Array = x / np.maximum(norm, x.dtype.type(EPSILON))
    return unit


def _check(operator: str, **arrays: Array | None) -> None:
    """Refuse arrays whose ranks, sizes or types do not fit the schema."""
    sizes: dict[str, int] = {}
    for tensor in OPERATORS[operator].inputs:
        array = arrays[tensor.name]
        if array is None:
            continue
        wanted = f"{operator}: {tensor.name} must be [{', '.join(tensor.shape)}]"
        if array.ndim != len(tensor.shape):
            raise ShapeError(f"{wanted}, got shape {list(array.shape)}")
        for symbol, size in zip(tensor.shape, array.shape, strict=True):
            if sizes.setdefault(symbol, size) != size:
                raise ShapeError(f"{wanted} with {symbol} = {sizes[symbol]}, got shape {list(array.shape)}")
        kind = np.integer if tensor.dtype == "int32" else np.floating
        if not np.issubdtype(array.dtype, kind):
            raise ShapeError(f"{wanted} of {tensor.dtype if kind is np.integer else 'floats'}, got {array.dtype}")
    if sizes["M"] < 1:
        raise ShapeError(f"{operator}: at least one centre is needed, got {_sizes(sizes)}")


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items())
