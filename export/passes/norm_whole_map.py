"""Normalise a whole map by one LayerNormalization, where it was flattened, normalised as one channel and unflattened.

    Reshape [B, 1, -1], InstanceNormalization, Reshape  ->  LayerNormalization <axis = 1>, Reshape if the shape differs

That is how a GroupNorm of one group is exported. Two nodes fewer a norm; in OpenVINO and ONNX Runtime the time is the
same to measurement noise. The scale of a LayerNormalization must have the map's full size, so maps above LIMIT stay.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    add_constant,
    constant,
    floats,
    graph_of,
    insert_before,
    is_op,
    make,
    remove_unused,
    set_input,
    shape,
    source,
)

LIMIT = 1 << 20  # elements of a map: the ones stored for it are 4 MiB then


def run(model: ir.Model) -> int:
    """The normalisation must have no affine of its own, and Reshapes as its only readers."""
    return sum(is_op(node, "InstanceNormalization") and _replace(node) for node in list(model.graph))


def _replace(node: ir.Node) -> bool:
    flatten, value = source(node.inputs[0], "Reshape"), node.outputs[0]
    users, flat = value.consumers(), shape(node.inputs[0])
    before = None if flatten is None else flatten.inputs[0]
    dims = shape(before)
    if before is None or dims is None or flat is None or len(flat) != 3 or flat[1] != 1 or flat[0] != dims[0]:
        return False
    if value.is_graph_output() or not users or not all(map(_plain_reshape, users)) or not _is_plain(node):
        return False
    sizes = [dim for dim in dims[1:] if isinstance(dim, int)]
    if not sizes or len(sizes) != len(dims) - 1 or math.prod(sizes) > LIMIT:
        return False
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    attributes = {"axis": 1, "epsilon": epsilon, "stash_type": 1}
    norm = make("LayerNormalization", [before, _ones(graph_of(node), sizes)], value.dtype, dims, attributes=attributes)
    insert_before(node, norm)
    for user in users:
        set_input(user, 0, norm.outputs[0])
    remove_unused(node, flatten)
    return True


def _plain_reshape(user: ir.Node) -> bool:
    target = constant(user.inputs[1]) if is_op(user, "Reshape") else None
    return target is not None and 0 not in target


def _is_plain(node: ir.Node) -> bool:
    scale, shift = floats(node.inputs[1]), floats(node.inputs[2])
    return scale is not None and shift is not None and bool((scale == 1).all() and (shift == 0).all())


def _ones(graph: ir.Graph, sizes: list[int]) -> ir.Value:
    """One constant for all maps of a size."""
    name = f"ones_{'x'.join(map(str, sizes))}"
    there = graph.initializers.get(name)
    array = constant(there)
    if there is not None and array is not None and list(array.shape) == sizes and (array == 1).all():
        return there
    return add_constant(graph, name, np.ones(sizes, np.float32))
