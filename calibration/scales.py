"""From what was observed of a value to how it becomes int8: one step for all numbers, and a balance of its channels.

Rules:
- int8 is symmetric and signed, with one step for the whole value, as TensorRT wants it: number = round(value / step).
- Balance, where one layer alone reads the value and multiplies each point by a matrix: each channel is first moved by
  its middle and divided by a factor, so that all fill the range; the matrix is multiplied by the factors and the bias
  takes up the middles, so that nothing changes but the rounding. (On the trained FEC it spares a third of the flips.)
  How far the factors go, from not at all to each channel's reach, is what leaves the least error in the layer's output.
- The largest number kept is found by the method: METHODS says how. Percentile and entropy are onnxruntime's own.
- A value that never changes, or is too small for a step in float32, has none: its layers stay in float.
- Errors are measured on numbers brought to about one, by powers of two: squares neither overflow nor vanish.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.calibration.layers import Layer
from cluinfer.calibration.observe import Observation

METHODS = {
    "error": "what leaves the least error in what the layer gives",
    "minmax": "the largest number seen",
    "percentile": "the 99.99th percentile",
    "entropy": "the least loss of information (Kullback-Leibler)",
}
LEVELS = 127
TINY = float(np.finfo(np.float32).tiny)  # the least step: engines take what is smaller for zero
PERCENTILE = 99.99
_BINS = 512  # of the entropy method's histogram: onnxruntime's loop takes seconds a layer for more
_PROBED = 512  # points that errors are measured on
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the balance
_KEPT = np.linspace(1.0, 0.3, 15)  # shares of the largest number, until the error has risen RISES times in a row
_RISES = 2
_LEAST = 1e-3  # reach of a channel, as a share of the widest one's, below which the balance takes it for that

Array = NDArray[Any]


@dataclass(frozen=True)
class Scales:
    """How a value becomes int8: (value - middle) / factor / step, rounded; middle and factor are of each channel."""

    step: float
    middle: Array | None = None
    factor: Array | None = None


def choose_scales(readers: Sequence[Layer], seen: Observation, method: str, balance: bool = True) -> Scales | None:
    """For the value that these layers read; None where it has none."""
    extent = float(max(seen.high.max(), -seen.low.min()))
    if not (seen.high > seen.low).any() or extent < LEVELS * TINY:
        return None
    unit = _power_of_two(extent)
    points, low, high = (_divided(array, unit) for array in (seen.points, seen.low, seen.high))
    found = _choose(readers, points, low, high, method, balance)
    middle = None if found.middle is None else found.middle * unit
    return Scales(max(found.step * unit, TINY), middle, found.factor)


def _choose(readers: Sequence[Layer], points: Array, low: Array, high: Array, method: str, balance: bool) -> Scales:
    """Of numbers of about one."""
    only = readers[0] if len(readers) == 1 and readers[0].pointwise else None
    if only is None or not balance:
        largest = _largest(method, points, float(max(high.max(), -low.min())), None)
        return Scales(largest / LEVELS)
    matrix = only.matrix()
    matrix = _divided(matrix, _power_of_two(float(np.abs(matrix).max())))
    middle = (low + high) / 2 if takes_middle(only) else np.zeros_like(low)
    reach = np.maximum(high - middle, middle - low)
    reach = np.maximum(reach, _LEAST * reach.max())
    moved = points - middle
    best = (np.inf, np.ones_like(reach))
    for strength in _STRENGTHS:
        factor = (reach / reach.max()) ** strength
        error, _ = _least_error(moved / factor, float((reach / factor).max()), matrix * factor)
        if error < best[0]:
            best = error, factor
    factor = best[1]
    largest = _largest(method, moved / factor, float((reach / factor).max()), matrix * factor)
    return Scales(largest / LEVELS, _unless(middle, 0.0), _unless(factor, 1.0))


def takes_middle(layer: Layer) -> bool:
    """Whether its bias can take up what the middles add: a plain one, or none so far."""
    node = layer.node
    if node.op_type == "MatMul":
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return True
    outputs = layer.weight.shape[layer.weight_axis]
    plain = node.attributes.get_float("beta", 1.0) == 1.0
    return plain and bias.const_value is not None and tuple(bias.const_value.shape) in ((outputs,), (1, outputs))


def weight_steps(matrix: Array) -> Array:
    """The step of each output's weights [outputs, rest]; 1 for an output of zeros, or of what is as good as that."""
    steps: Array = np.abs(matrix).max(1) / LEVELS
    return np.where(steps >= TINY, steps, 1.0)


def rounded(array: Array, step: Array | float) -> Array:
    """What int8 makes of it."""
    made: Array = np.clip(np.rint(array / step), -LEVELS - 1, LEVELS) * step
    return made.astype(array.dtype, copy=False)


def _largest(method: str, points: Array, extent: float, matrix: Array | None) -> float:
    """The largest number that is kept, at most the extent: the largest that was seen of all images."""
    if method == "minmax":
        return extent
    if method == "error":
        return _least_error(points, extent, matrix)[1]
    with redirect_stdout(io.StringIO()):  # it prints what it does
        from onnxruntime.quantization.calibrate import HistogramCollector  # type: ignore[import-untyped]

        bins = 2048 if method == "percentile" else _BINS
        collector = HistogramCollector(method, True, bins, 128, PERCENTILE, "same")
        collector.collect({"value": points.astype(np.float32)})
        low, high = collector.compute_collection_result()["value"][:2]
    largest = float(max(abs(low), abs(high)))
    return min(largest, extent) if largest > 0 else extent


def _least_error(points: Array, extent: float, matrix: Array | None) -> tuple[float, float]:
    """The least squared error in points @ matrix.T, or in the points, and the largest number kept for it."""
    probed = points[:: max(len(points) // _PROBED, 1)][:_PROBED]
    kept = points if matrix is None else probed
    wrong = np.zeros((1, 1)) if matrix is None else probed @ (rounded(matrix, weight_steps(matrix)[:, None]) - matrix).T
    best, rises = (np.inf, extent), 0
    for share in _KEPT:
        largest = extent * float(share)
        error = rounded(kept, largest / LEVELS) - kept
        if matrix is not None:
            error = error @ matrix.T + wrong
        total = float(np.square(error).mean())
        rises = 0 if total < best[0] else rises + 1
        if rises == _RISES:
            break
        if not rises:
            best = total, largest
    return best


def _power_of_two(number: float) -> float:
    """The largest that is no larger; 1 for zero."""
    return 2.0 ** np.floor(np.log2(number)) if number > 0 else 1.0


def _divided(array: Array, unit: float) -> Array:
    """By way of float64, which holds the quotient of any two float32 numbers."""
    quotient: Array = (array.astype(np.float64) / unit).astype(np.float32)
    return quotient


def _unless(array: Array, plain: float) -> Array | None:
    return None if (array == plain).all() else array
