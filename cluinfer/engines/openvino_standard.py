"""The cluinfer operators in OpenVINO's own, for where the native extension is missing: slower, with the same meaning.

OpenVINO's ONNX frontend does not expand the functions that the file holds, so they are said again here; the tests hold
them against the same reference. Like there: NaN is settled per point and per centre, ties go to the lowest index, and
what lies outside [0, M) adds nothing and gathers zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cluinfer.ops import DOMAIN
from cluinfer.ops.schema import EPSILON


def extensions() -> list[Any]:
    """What openvino.Core.add_extension takes."""
    from openvino.frontend.onnx import ConversionExtension

    rules = {"ClusterAssign": _assign, "ClusterScatter": _scatter, "ClusterGather": _gather}
    return [ConversionExtension(name, DOMAIN, rule) for name, rule in rules.items()]


def _int(*values: int) -> Any:
    from openvino import opset13 as ov

    return ov.constant(np.array(values[0] if len(values) == 1 else values, np.int64))


def _unit(x: Any) -> Any:
    from openvino import opset13 as ov

    norm = ov.reduce_l2(x, _vector(1), keep_dims=True)
    return ov.divide(x, ov.maximum(norm, ov.constant(np.float32(EPSILON))))


def _first_max(x: Any, axis: int) -> Any:
    """The index of the first maximum along an axis, which stays with length 1."""
    from openvino import opset13 as ov

    return ov.topk(x, _int(1), axis, "max", "value", index_element_type="i64", stable=True).output(1)


def _nan(x: Any) -> Any:
    """Whether the vectors along axis 1 hold a NaN."""
    from openvino import opset13 as ov

    total = ov.reduce_sum(x, _vector(1), keep_dims=True)
    return ov.not_equal(total, total)


def _assign(node: Any) -> list[Any]:
    from openvino import opset13 as ov

    points, centers = _unit(node.get_input(0)), _unit(node.get_input(1))
    alpha, beta = (np.float32(node.get_attribute(name, default)) for name, default in (("alpha", 1.0), ("beta", 0.0)))
    s = ov.matmul(centers, points, True, False)
    s = ov.add(ov.multiply(s, ov.constant(alpha)), ov.constant(beta))
    if node.get_attribute("sigmoid", 1):
        one = ov.constant(np.float32(1))
        s = ov.divide(one, ov.add(one, ov.exp(ov.negative(s))))
    bad_center = ov.convert(_nan(centers), "f32")
    any_bad = ov.greater(ov.reduce_max(bad_center, _int(2), keep_dims=True), ov.constant(np.float32(0)))
    row = ov.select(any_bad, _first_max(bad_center, 2), _first_max(s, 1))
    bad_point = _nan(points)
    row = ov.select(bad_point, _int(0), row)
    axis = _vector(1)
    weight = ov.gather_elements(s, row, 1)
    nan = ov.constant(np.float32(np.nan))  # OpenVINO's exponential makes a number of a NaN
    weight = ov.squeeze(ov.select(ov.logical_or(bad_point, any_bad), nan, weight), axis)
    return [ov.convert(ov.squeeze(row, axis), "i32").output(0), weight.output(0)]


def _side(value: Any, axis: int) -> Any:
    """The length of one axis, as a vector of one."""
    from openvino import opset13 as ov

    return ov.gather(ov.shape_of(value), _vector(axis), _int(0))


def _slots(index: Any, size: Any, outside: Any, like: Any) -> tuple[Any, Any]:
    """Whether each index is inside [0, size), and the index, `outside` where not, for every channel of `like`."""
    from openvino import opset13 as ov

    slot = ov.convert(index, "i64")
    inside = ov.logical_and(ov.greater_equal(slot, _int(0)), ov.less(slot, size))
    row = ov.unsqueeze(ov.select(inside, slot, outside), _int(1))
    return inside, ov.broadcast(row, like)


def _scatter(node: Any) -> list[Any]:
    from openvino import opset13 as ov

    values, index, base = (node.get_input(i) for i in range(3))
    size = _side(base, 2)
    if node.get_input_size() > 3:
        mass = ov.unsqueeze(node.get_input(3), _int(1))
        rows = ov.concat([ov.multiply(values, mass), mass], 1)
    else:
        one = ov.constant(np.ones((1, 1, 1), np.float32))
        points = ov.concat([_side(values, 0), _vector(1), _side(values, 2)], 0)
        rows = ov.concat([values, ov.broadcast(one, points)], 1)
    ones = ov.broadcast(
        ov.constant(np.ones((1, 1, 1), np.float32)),
        ov.concat([_side(base, 0), _vector(1), size], 0),
    )
    start = ov.pad(  # slot M takes what no centre does
        ov.concat([base, ones], 1), _int(0, 0, 0), _int(0, 0, 1), "constant", ov.constant(np.float32(0))
    )
    _, slots = _slots(index, size, size, ov.shape_of(rows))
    sums = ov.scatter_elements_update(start, slots, rows, _int(2), "sum", True)
    sums = ov.slice(sums, _vector(0), size, _vector(1), _vector(2))
    channels = _side(base, 1)
    total = ov.slice(sums, _vector(0), channels, _vector(1), _vector(1))
    mass = ov.slice(sums, channels, ov.add(channels, _vector(1)), _vector(1), _vector(1))
    return [ov.divide(total, mass).output(0)]


def _vector(value: int) -> Any:
    from openvino import opset13 as ov

    return ov.constant(np.array([value], np.int64))


def _gather(node: Any) -> list[Any]:
    from openvino import opset13 as ov

    centers, index = node.get_input(0), node.get_input(1)
    shape = ov.concat([_side(centers, 0), _side(centers, 1), _side(index, 1)], 0)
    inside, slots = _slots(index, _side(centers, 2), _int(0), shape)
    found = ov.gather_elements(centers, slots, 2)
    if node.get_input_size() > 2:
        found = ov.multiply(found, ov.unsqueeze(node.get_input(2), _int(1)))
    return [ov.select(ov.unsqueeze(inside, _int(1)), found, ov.constant(np.float32(0))).output(0)]
