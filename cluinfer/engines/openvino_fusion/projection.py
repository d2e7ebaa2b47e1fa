"""The 1x1 convolution behind a mixer, applied to the centres instead of the points.

A point of a mixer's map holds, for each head, its centre times its weight. The convolution is linear, so it can be
applied to the centres, of which there are few, and a point sums over its heads what they have become: the same numbers
up to rounding, for a fraction of the work, and the wide map between is never written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.edit import TO_FIRST, Editor, readers, replace
from cluinfer.engines.openvino_fusion.replay import Array, constant, map_shape

PROJECTING = ("ClusterBlock", "ClusterMapGather")
# Points a centre, and points at all, from which on it pays (measured on two cores: even at 4 and at 196).
WORTH, MANY = 8, 400


def fuse_projection(mixer: Any, editor: Editor) -> bool:
    """The mixer's map must be read by one plain 1x1 convolution alone."""
    given, inputs = mixer.get_attributes(), [port.get_source_output() for port in mixer.inputs()]
    if mixer.get_type_name() == "ClusterBlock":
        fits, shape = len(inputs) == 2, map_shape(inputs[0])  # channels last: rows are where channels were
        points = shape[0] * shape[1] if shape else 0
        centres = int(np.prod([*given["fold"], *given["grid"]]))
    else:
        fits, sides = len(inputs) == 3, inputs[0].get_partial_shape()
        points = int(given["rows"]) * int(given["columns"])
        centres = int(np.prod(given["fold"])) * (sides[2].get_length() if sides[2].is_static else points)
    convolution = _reader(mixer.output(0)) if fits and points >= max(WORTH * centres, MANY) else None
    weight = None if convolution is None else _weight(convolution)
    if convolution is None or weight is None:
        return False
    end, bias = _with_bias(convolution, len(weight))
    made = editor.create(
        mixer.get_type_name(), [*inputs, *map(editor.constant, (weight.T.copy(), bias))], **_plain(given)
    )
    replace(end, editor.channels_first(made.output(0)))
    for i in range(1, len(mixer.outputs())):
        replace(mixer.output(i), made.output(i))
    return True


def _reader(out: Any) -> Any | None:
    """The convolution, behind the view of the map as [B,C,H,W]."""
    for kind in ("Transpose", "Convolution"):
        users = readers(out)
        if len(users) != 1 or users[0][1] != 0 or users[0][0].get_type_name() != kind:
            return None
        node = users[0][0]
        order = constant(node.input_value(1)) if kind == "Transpose" else None
        if kind == "Transpose" and (order is None or list(order) != TO_FIRST):
            return None
        out = node.output(0)
    return out.get_node()


def _weight(convolution: Any) -> Array | None:
    """[width, channels], if it is a 1x1 of one group that neither strides nor pads."""
    given, weight = convolution.get_attributes(), constant(convolution.input_value(1))
    plain = list(given["strides"]) == [1, 1] and not any([*given["pads_begin"], *given["pads_end"]])
    if weight is None or weight.dtype != np.float32 or weight.shape[2:] != (1, 1) or not plain:
        return None
    return weight[:, :, 0, 0]


def _with_bias(convolution: Any, width: int) -> tuple[Any, Array]:
    """The output after the bias, and the bias; zeros where none is found."""
    users = [user for user in readers(convolution.output(0)) if user[0].get_type_name() != "ShapeOf"]
    if len(users) == 1 and users[0][0].get_type_name() == "Add":
        add, place = users[0]
        other = add.input_value(1 - place).get_node()
        held = constant(other.output(0))
        if held is None and other.get_type_name() == "Reshape":  # as OpenVINO's ONNX frontend writes a bias
            held = constant(other.input_value(0))
        shape = add.input_value(1 - place).get_partial_shape()
        channels = shape.is_static and list(shape.to_shape()) in ([1, width, 1, 1], [width, 1, 1])
        if held is not None and held.dtype == np.float32 and held.size == width and channels:
            return add.output(0), held.reshape(width).copy()
    return convolution.output(0), np.zeros(width, np.float32)


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """Attributes as `create` takes them."""
    return {name: list(value) if hasattr(value, "__len__") else value for name, value in given.items()}
