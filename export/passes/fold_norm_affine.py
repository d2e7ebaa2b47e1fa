"""Fold a per-channel scale or shift into the convolutions and the head that read it.

    Mul, Add              a constant [C, 1, 1] on a map [B, C, ...]: gone
    LayerNormalization    on the last axis: scale 1 and no bias left; a bias of zeros goes in any case
    InstanceNormalization scale 1 and bias 0 left

Exact where each reader, perhaps after a Transpose or a mean over positions, is a Conv or a Gemm with a weight of its
own. A shift passes an unpadded Conv only: in a border there is nothing to shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    Array,
    constant,
    float_constant,
    floats,
    graph_of,
    is_op,
    operands,
    per_channel,
    rank,
    replace,
    set_input,
    unpadded,
)


@dataclass
class Affine:
    """What a node does to each channel of what it normalises or reads."""

    scale: Array
    shift: Array
    axis: int  # of the channels, in the node's output


def run(model: ir.Model) -> int:
    """From the end to the start, so that a shift goes before the scale in front of it."""
    changes = 0
    for node in reversed(list(model.graph)):
        affine = _affine(node)
        if affine is None:
            changes += _drop_zero_bias(node)
            continue
        readers = _readers(node.outputs[0], affine.axis, bool(affine.shift.any()))
        if readers and all(_weight_fits(reader, len(affine.scale)) for reader in readers):
            for reader in readers:
                _absorb(reader, affine)
            _strip(node)
            changes += 1
    return changes


def _affine(node: ir.Node) -> Affine | None:
    if is_op(node, "Mul", "Add"):
        for x, other in operands(node):
            values = per_channel(other, x)
            if values is not None:
                if node.op_type == "Mul":
                    return Affine(values, np.zeros_like(values), 1)
                return Affine(np.ones_like(values), values, 1)
        return None
    if not is_op(node, "LayerNormalization", "InstanceNormalization"):
        return None
    ranks, scale = rank(node.outputs[0]), floats(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shift = floats(bias) if bias is not None or scale is None else np.zeros_like(scale)
    if ranks is None or scale is None or shift is None or scale.ndim != 1 or shift.shape != scale.shape:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    axis = 1
    if node.op_type == "LayerNormalization":
        axis = ranks - 1
        if node.attributes.get_int("axis", -1) not in (-1, axis):
            return None
    plain = (scale == 1).all() and not shift.any()
    return None if plain else Affine(scale, shift, axis)


def _drop_zero_bias(node: ir.Node) -> int:
    """Of a LayerNormalization, where it costs a pass over the map; the other norms must have one."""
    if not is_op(node, "LayerNormalization") or len(node.inputs) < 3:
        return 0
    bias = floats(node.inputs[2])
    if bias is None or bias.any():
        return 0
    node.resize_inputs(2)
    return 1


def _strip(node: ir.Node) -> None:
    """Leave the node without its affine."""
    if is_op(node, "Mul", "Add"):
        x = next(x for x, other in operands(node) if per_channel(other, x) is not None)
        replace(node, x)
        return
    scale = constant(node.inputs[1])
    assert scale is not None
    graph, near = graph_of(node), node.inputs[1]
    set_input(node, 1, float_constant(graph, near, np.ones_like(scale)))
    if node.op_type == "LayerNormalization":
        node.resize_inputs(2)
    else:
        set_input(node, 2, float_constant(graph, near, np.zeros_like(scale)))


def _readers(value: ir.Value, axis: int, shifted: bool) -> list[ir.Node]:
    """The Convs and Gemms that read the value, if nothing else does; an empty list where something does."""
    if value.is_graph_output():
        return []
    found: list[ir.Node] = []
    for user, place in value.uses():
        if place != 0:
            return []
        behind: list[ir.Node] = []
        if is_op(user, "Transpose"):
            order = list(user.attributes.get_ints("perm") or ())
            behind = _readers(user.outputs[0], order.index(axis), shifted) if axis in order else []
        elif is_op(user, "ReduceMean"):
            kept = _axis_after_mean(user, axis)
            behind = [] if kept is None else _readers(user.outputs[0], kept, shifted)
        elif (is_op(user, "Conv") and axis == 1 and (not shifted or unpadded(user))) or (
            is_op(user, "Gemm") and axis == 1 and not user.attributes.get_int("transA", 0)
        ):
            behind = [user]
        if not behind:
            return []
        found += behind
    return found


def _axis_after_mean(node: ir.Node, axis: int) -> int | None:
    """Where the channels are after a mean over other axes."""
    over, ranks = constant(node.inputs[1] if len(node.inputs) > 1 else None), rank(node.inputs[0])
    if over is None or ranks is None or not over.size:
        return None
    gone = {int(a) % ranks for a in over}
    if axis in gone:
        return None
    return axis if node.attributes.get_int("keepdims", 1) else axis - sum(a < axis for a in gone)


def _weight_fits(reader: ir.Node, channels: int) -> bool:
    """A float32 weight for so many channels that only this node reads, and a bias that we know."""
    weight, bias = reader.inputs[1], reader.inputs[2] if len(reader.inputs) > 2 else None
    array, offset = floats(weight), floats(bias)
    if array is None or weight is None or len(weight.uses()) != 1 or (bias is not None and offset is None):
        return False
    if reader.op_type == "Conv":
        rows = array.shape[1] * reader.attributes.get_int("group", 1)
        return bool(rows == channels)
    rows, columns = array.shape if not reader.attributes.get_int("transB", 0) else array.shape[::-1]
    return bool(rows == channels) and (offset is None or offset.shape in ((columns,), (1, columns)))


def _absorb(reader: ir.Node, affine: Affine) -> None:
    if reader.op_type == "Conv":
        weight, offset = _absorbed_by_conv(reader, affine)
    else:
        weight, offset = _absorbed_by_gemm(reader, affine)
    graph = graph_of(reader)
    set_input(reader, 1, float_constant(graph, reader.inputs[1], weight))
    bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    if bias is not None or offset.any():
        set_input(reader, 2, float_constant(graph, bias or reader.inputs[1], offset))


def _absorbed_by_conv(conv: ir.Node, affine: Affine) -> tuple[Array, Array]:
    weight, bias = floats(conv.inputs[1]), floats(conv.inputs[2] if len(conv.inputs) > 2 else None)
    assert weight is not None
    group, outputs = conv.attributes.get_int("group", 1), weight.shape[0]
    # each output's inputs are those of its group
    scale, shift = (np.repeat(v.reshape(group, -1), outputs // group, axis=0) for v in (affine.scale, affine.shift))
    offset = (weight.sum(axis=tuple(range(2, weight.ndim))) * shift).sum(axis=1)
    scaled = weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))
    return scaled, offset if bias is None else offset + bias


def _absorbed_by_gemm(gemm: ir.Node, affine: Affine) -> tuple[Array, Array]:
    weight, bias = floats(gemm.inputs[1]), floats(gemm.inputs[2] if len(gemm.inputs) > 2 else None)
    assert weight is not None
    turned = gemm.attributes.get_int("transB", 0)
    rows = weight.T if turned else weight
    offset = gemm.attributes.get_float("alpha", 1.0) * (affine.shift @ rows)
    if bias is not None:
        offset = offset + gemm.attributes.get_float("beta", 1.0) * bias.reshape(-1)
    gemm.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    scaled = rows * affine.scale[:, None]
    return (scaled.T if turned else scaled), offset
