"""Make one Conv, and a Split after it, of the Convs that read the same map in the same way.

`f` and `v` of a clustering layer are such a pair: the map is read once, by one larger matrix product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    BINARY,
    UNARY,
    add_constant,
    float_constant,
    floats,
    graph_of,
    insert_before,
    is_op,
    make,
    replace,
    shape,
)


def run(model: ir.Model) -> tuple[int, list[str]]:
    """Leave a Conv that an elementwise operator follows: engines fuse that into it, and a Split would part them."""
    changes, left = 0, []
    for first in list(model.graph):
        if first.graph is None or not _candidate(first) or first.inputs[0] is None:
            continue
        alike = [user for user in first.inputs[0].consumers() if _candidate(user) and _same_way(first, user)]
        siblings = [conv for conv in alike if not _fused_after(conv)]
        if len(siblings) > 1 and first in siblings:
            _merge(siblings)
            changes += 1
        elif len(alike) > 1 and first is alike[0]:
            left.append(f"{len(alike)} convolutions of {first.inputs[0].name}: elementwise operators follow")
    return changes, left


def _candidate(node: ir.Node) -> bool:
    if not is_op(node, "Conv") or node.attributes.get_int("group", 1) != 1 or node.outputs[0].is_graph_output():
        return False
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    known = floats(weight) is not None and (bias is None or floats(bias) is not None)
    return known and weight is not None and len(weight.uses()) == 1 and shape(node.outputs[0]) is not None


def _same_way(first: ir.Node, other: ir.Node) -> bool:
    kernels = [floats(conv.inputs[1]) for conv in (first, other)]
    if first.inputs[0] is not other.inputs[0] or kernels[0] is None or kernels[1] is None:
        return False
    return kernels[0].shape[1:] == kernels[1].shape[1:] and _options(first) == _options(other)


def _options(conv: ir.Node) -> tuple[object, ...]:
    get, dims = conv.attributes, len(shape(conv.outputs[0]) or ()) - 2
    pads, ones = tuple(get.get_ints("pads") or (0,) * 2 * dims), (1,) * dims
    strides, dilations = (tuple(get.get_ints(name) or ones) for name in ("strides", "dilations"))
    return get.get_string("auto_pad", "NOTSET"), pads, strides, dilations


def _fused_after(conv: ir.Node) -> bool:
    return any(is_op(user, *UNARY, *BINARY, "Clip", "PRelu") for user in conv.outputs[0].consumers())


def _merge(convs: list[ir.Node]) -> None:
    graph = graph_of(convs[0])
    place = next(node for node in graph if node in convs)
    kernels = [kernel for conv in convs if (kernel := floats(conv.inputs[1])) is not None]
    sizes = [len(kernel) for kernel in kernels]
    inputs = [convs[0].inputs[0], float_constant(graph, convs[0].inputs[1], np.concatenate(kernels))]
    biases = [floats(conv.inputs[2] if len(conv.inputs) > 2 else None) for conv in convs]
    if any(bias is not None for bias in biases):
        filled = [np.zeros(size) if bias is None else bias for bias, size in zip(biases, sizes, strict=True)]
        near = next(conv.inputs[2] for conv, bias in zip(convs, biases, strict=True) if bias is not None)
        inputs.append(float_constant(graph, near, np.concatenate(filled)))
    dims, dtype = [shape(conv.outputs[0]) or [] for conv in convs], convs[0].outputs[0].dtype
    joint = make("Conv", inputs, dtype, [dims[0][0], sum(sizes), *dims[0][2:]], attributes=convs[0].attributes)
    parts = add_constant(graph, "split_sizes", np.array(sizes, np.int64))
    split = make("Split", [joint.outputs[0], parts], dtype, *dims, attributes={"axis": 1})
    insert_before(place, joint, split)
    for conv, value in zip(convs, split.outputs, strict=True):
        replace(conv, value)
