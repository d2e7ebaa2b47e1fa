"""Do once, before a Split of channels, what is done alike to each of its parts.

AveragePool, MatMul with a constant matrix    whole channels, each by itself
Transpose                                     that keeps the first two axes
Reshape                                       that keeps the batch: parts stay neighbours within each image
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from cluinfer.export.passes._match import (
    add_constant,
    constant,
    graph_of,
    insert_before,
    is_op,
    make,
    rank,
    remove_unused,
    replace,
    shape,
)


def run(model: ir.Model) -> int:
    """Other readers of the parts keep the first Split."""
    changes = 0
    for split in list(model.graph):
        if not is_op(split, "Split") or split.attributes.get_int("axis", 0) != 1:
            continue
        if any(value.is_graph_output() or shape(value) is None for value in split.outputs):
            continue
        for first, place in list(split.outputs[0].uses()):
            alike = [_partner(first, place, value) for value in split.outputs]
            nodes = [node for node in alike if node is not None]
            if len(nodes) == len(split.outputs) and len(set(nodes)) == len(nodes) and _move(split, nodes, place):
                changes += 1
                if split.graph is None:
                    break
    return changes


def _partner(first: ir.Node, place: int, part: ir.Value) -> ir.Node | None:
    """The reader of a part that does to it what `first` does to the first one."""
    return next((user for user, at in part.uses() if at == place and _does_the_same(first, user, place)), None)


def _does_the_same(first: ir.Node, other: ir.Node, place: int) -> bool:
    if not is_op(other, "AveragePool", "MatMul", "Transpose", "Reshape") or first.op_type != other.op_type:
        return False
    options = [{name: a.value for name, a in node.attributes.items()} for node in (first, other)]
    if options[0] != options[1] or len(first.inputs) != len(other.inputs) or other.outputs[0].is_graph_output():
        return False
    for at, (mine, its) in enumerate(zip(first.inputs, other.inputs, strict=True)):
        a, b = constant(mine), constant(its)
        if at != place and (a is None or b is None or a.shape != b.shape or not np.array_equal(a, b)):
            return False
    return True


def _move(split: ir.Node, nodes: list[ir.Node], place: int) -> bool:
    first, whole = nodes[0], split.inputs[0]
    before, after = shape(nodes[0].inputs[place]), [shape(node.outputs[0]) for node in nodes]
    dims = [d for d in after if d is not None]
    if whole is None or before is None or len(dims) != len(nodes) or not _keeps_parts(first, place, before, dims):
        return False
    sizes = [d[1] for d in dims if len(d) > 1 and isinstance(d[1], int)]
    if len(sizes) != len(nodes):
        return False
    graph, dtype = graph_of(split), whole.dtype
    inputs = list(first.inputs)
    inputs[place] = whole
    if first.op_type == "Reshape":
        target = constant(first.inputs[1])
        assert target is not None
        wanted = np.array([target[0], sum(sizes), *target[2:]], np.int64)
        inputs[1] = add_constant(graph, "joint_shape", wanted)
    joint = make(first.op_type, inputs, dtype, [dims[0][0], sum(sizes), *dims[0][2:]], attributes=first.attributes)
    parts = add_constant(graph, "split_sizes", np.array(sizes, np.int64))
    later = make("Split", [joint.outputs[0], parts], dtype, *dims, attributes={"axis": 1})
    insert_before(split, joint, later)
    for node, value in zip(nodes, later.outputs, strict=True):
        replace(node, value)
    remove_unused(split)
    return True


def _keeps_parts(node: ir.Node, place: int, before: list[int | str], after: list[list[int | str]]) -> bool:
    """Whether the node maps channels [a, b) of its input to whole entries of axis 1, in order."""
    if node.op_type == "AveragePool":
        return True
    if node.op_type == "Transpose":
        return list(node.attributes.get_ints("perm") or ())[:2] == [0, 1]
    if node.op_type == "MatMul":
        return len(before) > 3 and rank(node.inputs[1 - place]) == 2
    target = constant(node.inputs[1])
    if target is None or 0 in target or len(target) < 2 or target[1] < 1:
        return False
    return all(dims == after[0] and dims[0] == before[0] for dims in after)
