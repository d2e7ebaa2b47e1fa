"""Norms, in the form that OpenVINO runs quickest."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.edit import TO_LAST, replace
from cluinfer.engines.openvino_fusion.replay import constant


def drop_ones(product: Any) -> bool:
    """ONNX's LayerNormalization must have a scale, one number a point; one of ones costs a pass over the map."""
    for place in (0, 1):
        ones, value = constant(product.input_value(place)), product.input_value(1 - place)
        if ones is None or value.get_node().get_type_name() != "MVN" or not np.all(ones == 1):
            continue
        if value.get_partial_shape() == product.get_output_partial_shape(0):
            replace(product.output(0), value)
            return True
    return False


def norm_in_place(norm: Any) -> bool:
    """A norm over the channels of a map, between two transposes, as means over axis 1 without them.

    OpenVINO 2026.4 norms the last axis of four by copying the map twice, there and back from channels-last. The means
    run on channels-last as it is.
    """
    from openvino import opset13 as ov

    source, given = norm.input_value(0).get_node(), norm.get_attributes()
    if source.get_type_name() != "Transpose" or not _is_last(norm.input_value(1)):
        return False
    order = constant(source.input_value(1))
    if order is None or list(order) != TO_LAST or not given["normalize_variance"]:
        return False
    if not str(given["eps_mode"]).upper().endswith("INSIDE_SQRT"):
        return False
    axis, eps = np.array([1], np.int64), ov.constant(np.float32(given["eps"]))
    x = source.input_value(0)
    centred = ov.subtract(x, ov.reduce_mean(x, axis, True))
    variance = ov.reduce_mean(ov.multiply(centred, centred), axis, True)
    made = ov.divide(centred, ov.sqrt(ov.add(variance, eps)))
    replace(norm.output(0), ov.transpose(made, np.array(TO_LAST, np.int64)).output(0))
    return True


def _is_last(axes: Any) -> bool:
    """Whether these axes are the last of four alone: a constant, or the Range that OpenVINO's ONNX frontend makes."""
    node = axes.get_node()
    if node.get_type_name() == "Range" and list(axes.get_partial_shape().get_min_shape()) == [1]:
        value = constant(node.input_value(0))
        return value is not None and axes.get_partial_shape().is_static and int(value) in (-1, 3)
    known = constant(axes)
    return known is not None and [int(axis) for axis in known.reshape(-1)] in ([-1], [3])
