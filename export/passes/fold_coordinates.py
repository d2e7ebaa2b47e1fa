"""Fold channels that are the same for every image, such as coordinates, through their Conv into a constant map.

    Concat(image, coordinates), Conv  ->  Conv(image), Add(map)

The map is what the Conv makes of these channels alone, plus its bias: computed in float64, border included, so that
padded Convs are exact too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from cluinfer.export.passes._match import (
    Array,
    Dim,
    float_constant,
    floats,
    graph_of,
    insert_before,
    is_op,
    make,
    remove_unused,
    replace,
    shape,
    source,
)


def run(model: ir.Model) -> int:
    """Every reader of the Concat must be an ungrouped Conv with constant weights and explicit padding."""
    return sum(is_op(node, "Concat") and _fold(node) for node in list(model.graph))


def _fold(concat: ir.Node) -> bool:
    value, dims = concat.outputs[0], [shape(v) for v in concat.inputs]
    convs = value.consumers()
    if concat.attributes.get_int("axis", 0) != 1 or value.is_graph_output() or not all(map(_known, convs)):
        return False
    if any(d is None or len(d) != 4 or not isinstance(d[1], int) for d in dims) or not convs:
        return False
    maps = [_of_every_image(v, d or []) for v, d in zip(concat.inputs, dims, strict=True)]
    kept = [place for place, constant_map in enumerate(maps) if constant_map is None]
    if len(kept) in (0, len(maps)):
        return False
    known = np.concatenate([m for m in maps if m is not None])
    # which of the Conv's input channels are constant
    marks = [m is not None for m, d in zip(maps, dims, strict=True) for _ in range(int((d or [0, 0])[1]))]
    still: list[Dim] = [*(dims[kept[0]] or [])[:1], marks.count(False), *(dims[kept[0]] or [])[2:]]
    rest = concat.inputs[kept[0]]
    if len(kept) > 1:
        fewer = make("Concat", [concat.inputs[p] for p in kept], value.dtype, still, attributes=concat.attributes)
        insert_before(concat, fewer)
        rest = fewer.outputs[0]
    for conv in convs:
        _replace(conv, rest, known, np.array(marks))
    remove_unused(concat)
    return True


def _known(conv: ir.Node) -> bool:
    if not is_op(conv, "Conv") or conv.attributes.get_int("group", 1) != 1:
        return False
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    weight = floats(conv.inputs[1])
    return (
        weight is not None
        and weight.ndim == 4
        and (bias is None or floats(bias) is not None)
        and conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and shape(conv.outputs[0]) is not None
    )


def _of_every_image(value: ir.Value | None, dims: list[Dim]) -> Array | None:
    """The value as [C, H, W] if it is a constant repeated over the batch."""
    expand = source(value, "Expand")
    array = floats(value if expand is None else expand.inputs[0])
    if array is None or not all(isinstance(dim, int) for dim in dims[1:]):
        return None
    if array.ndim > 3:
        if array.shape[0] != 1:
            return None
        array = array[0]
    return np.broadcast_to(array, [int(dim) for dim in dims[1:]])


def _replace(conv: ir.Node, rest: ir.Value | None, known: Array, marks: Array) -> None:
    graph, weight, bias = (
        graph_of(conv),
        floats(conv.inputs[1]),
        floats(conv.inputs[2] if len(conv.inputs) > 2 else None),
    )
    assert weight is not None
    constant_part = _convolve(known, weight[:, marks], conv)
    if bias is not None:
        constant_part = constant_part + bias[:, None, None]
    out, dtype = shape(conv.outputs[0]), conv.outputs[0].dtype
    kernel = float_constant(graph, conv.inputs[1], weight[:, ~marks])
    fewer = make("Conv", [rest, kernel], dtype, out, attributes=conv.attributes)
    total = make("Add", [fewer.outputs[0], float_constant(graph, conv.inputs[1], constant_part[None])], dtype, out)
    insert_before(conv, fewer, total)
    replace(conv, total.outputs[0])


def _convolve(x: Array, weight: Array, conv: ir.Node) -> Array:
    """[C, H, W] with [O, C, kh, kw] -> [O, h, w]."""
    get = conv.attributes
    top, left, bottom, right = get.get_ints("pads") or (0, 0, 0, 0)
    (sh, sw), (dh, dw) = get.get_ints("strides") or (1, 1), get.get_ints("dilations") or (1, 1)
    kh, kw = weight.shape[2:]
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(1, 2))
    seen = windows[:, ::sh, ::sw, ::dh, ::dw]
    made: Array = np.einsum("chwij,ocij->ohw", seen, weight, optimize=True)
    return made
