"""Norms, in the form that OpenVINO runs quickest."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.edit import TO_LAST, Editor, replace
from cluinfer.engines.openvino_fusion.replay import constant, map_shape


def drop_ones(product: Any, editor: Editor) -> bool:
    """ONNX's LayerNormalization must have a scale, one number a point; one of ones costs a pass over the map."""
    for place in (0, 1):
        ones, value = constant(product.input_value(place)), product.input_value(1 - place)
        if ones is None or value.get_node().get_type_name() != "MVN" or not np.all(ones == 1):
            continue
        if value.get_partial_shape() == product.get_output_partial_shape(0):
            replace(product.output(0), value)
            return True
    return False


def norm_in_place(norm: Any, editor: Editor) -> bool:
    """A norm over the channels of a map, between two transposes, by the native operator, which needs none of them.

    Where the map is the sum of two, the operator adds them as well.
    """
    source, given = norm.input_value(0).get_node(), norm.get_attributes()
    if source.get_type_name() != "Transpose" or not _is_last(norm.input_value(1)):
        return False
    order = constant(source.input_value(1))
    if order is None or list(order) != TO_LAST or not given["normalize_variance"]:
        return False
    if not str(given["eps_mode"]).upper().endswith("INSIDE_SQRT"):
        return False
    whole = source.input_value(0)
    terms = _terms(whole) or [whole]
    made = editor.create("ClusterMapNorm", [editor.channels_last(x) for x in terms], epsilon=float(given["eps"]))
    replace(norm.output(0), made.output(len(terms) - 1))
    if len(terms) == 2:
        replace(whole, editor.channels_first(made.output(0)))
    return True


def _terms(whole: Any) -> list[Any]:
    """The two maps that this one is the sum of, or nothing."""
    node = whole.get_node()
    if node.get_type_name() != "Add":
        return []
    terms = [port.get_source_output() for port in node.inputs()]
    alike = all(map_shape(term) == map_shape(whole) is not None for term in terms)
    return terms if alike and not any(constant(term) is not None for term in terms) else []


def _is_last(axes: Any) -> bool:
    """Whether these axes are the last of four alone: a constant, or the Range that OpenVINO's ONNX frontend makes."""
    node = axes.get_node()
    if node.get_type_name() == "Range" and list(axes.get_partial_shape().get_min_shape()) == [1]:
        value = constant(node.input_value(0))
        return value is not None and axes.get_partial_shape().is_static and int(value) in (-1, 3)
    known = constant(axes)
    return known is not None and [int(axis) for axis in known.reshape(-1)] in ([-1], [3])
