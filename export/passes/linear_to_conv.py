"""Turn a Linear on the channels of a channel-last map into a 1x1 Conv on the channel-first map.

    Transpose, MatMul, Add  ->  Conv, Transpose         [B, H, W, C]: a convolution
    Transpose, MatMul, Add  ->  MatMul, Add, Transpose  [B, N, C]: the weight from the left

Done where a Transpose brings the map into this order or takes it out of it: the Transpose after the new node meets
that one, or moves on, and in the end both go.
"""

from __future__ import annotations

import onnx_ir as ir

from cluinfer.export.passes._match import (
    Dim,
    float_constant,
    floats,
    graph_of,
    insert_before,
    is_op,
    make,
    only_user,
    operands,
    remove_unused,
    replace,
    shape,
)

LAST = {3: [0, 2, 1], 4: [0, 2, 3, 1]}  # rank: the order that puts channels last
FIRST = {3: [0, 2, 1], 4: [0, 3, 1, 2]}


def run(model: ir.Model) -> int:
    """A weight that others read stays as it is: a second copy of it would be stored."""
    return sum(is_op(node, "MatMul") and _convert(node) for node in list(model.graph))


def _convert(node: ir.Node) -> bool:
    x, weight = node.inputs
    dims, matrix = shape(x), floats(weight)
    if x is None or weight is None or matrix is None or matrix.ndim != 2 or len(weight.uses()) != 1:
        return False
    if dims is None or len(dims) not in LAST:
        return False
    graph, end, bias = graph_of(node), node, None
    add = only_user(node.outputs[0])
    if add is not None and is_op(add, "Add"):
        bias = next((b for y, b in operands(add) if y is node.outputs[0] and _is_bias(b, matrix.shape[1])), None)
        end = add if bias is not None else node
    if not (_is_transpose(x.producer(), LAST) or _leaves(end.outputs[0])):
        return False
    shift = floats(bias)
    to_first, to_last = FIRST[len(dims)], LAST[len(dims)]
    first: list[Dim] = [dims[axis] for axis in to_first]
    out: list[Dim] = [first[0], matrix.shape[1], *first[2:]]
    before = make("Transpose", [x], x.dtype, first, attributes={"perm": to_first})
    new = [before]
    if len(dims) == 4:
        kernel = float_constant(graph, weight, matrix.T[:, :, None, None])
        inputs = [before.outputs[0], kernel] + ([] if shift is None else [float_constant(graph, bias, shift)])
        new.append(make("Conv", inputs, x.dtype, out, attributes=_POINTWISE))
    else:
        new.append(make("MatMul", [float_constant(graph, weight, matrix.T), before.outputs[0]], x.dtype, out))
        if shift is not None:
            column = float_constant(graph, bias, shift.reshape(-1, 1))
            new.append(make("Add", [new[-1].outputs[0], column], x.dtype, out))
    after = make("Transpose", [new[-1].outputs[0]], x.dtype, shape(end.outputs[0]), attributes={"perm": to_last})
    insert_before(end, *new, after)
    replace(end, after.outputs[0])
    remove_unused(node)
    return True


_POINTWISE = {
    "kernel_shape": [1, 1],
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "auto_pad": "NOTSET",
}


def _is_transpose(node: ir.Node | None, order: dict[int, list[int]]) -> bool:
    if node is None or not is_op(node, "Transpose"):
        return False
    perm = list(node.attributes.get_ints("perm") or ())
    return perm == order.get(len(perm))


def _leaves(value: ir.Value) -> bool:
    """Whether all that is read of the Linear is its channel-first form."""
    users = value.consumers()
    return bool(users) and not value.is_graph_output() and all(_is_transpose(user, FIRST) for user in users)


def _is_bias(value: ir.Value, channels: int) -> bool:
    array = floats(value)
    return array is not None and array.shape == (channels,)
