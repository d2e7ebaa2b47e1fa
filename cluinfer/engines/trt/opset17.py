"""A graph of opset 18 in opset 17, the newest that the parsers of TensorRT 8.6 to 9 read right.

They take a newer one without a word, and of a reduction whose axes are an input they reduce every axis (their sources:
reduceTensor looks for an attribute; ReduceSum alone has learnt of the input). TensorRT 10 and later take both forms.
onnx.version_converter knows no way down for Split, which every graph of ours has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cluinfer.errors import EngineError

if TYPE_CHECKING:
    import onnx

OPSET = 17
_REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)


def lower(model: onnx.ModelProto) -> None:
    """In place; a graph of another opset, or with a node that opset 17 cannot say, stays as it is."""
    from onnx import helper

    entry = next(each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    nodes = [node for node in _nodes(model.graph) if node.domain in ("", "ai.onnx")]
    constants = _constants(model)
    if entry.version != OPSET + 1 or not all(_can_be_said(node, constants) for node in nodes):
        return
    for node in nodes:
        if node.op_type not in _REDUCTIONS:
            continue
        axes = constants[node.input[1]] if _has_axes(node) else []
        kept = [each for each in node.attribute if each.name != "noop_with_empty_axes"]
        del node.input[1:], node.attribute[:]
        node.attribute.extend(kept)
        if axes:
            node.attribute.append(helper.make_attribute("axes", axes))
    entry.version = OPSET


def check_reductions(graph: bytes, version: str) -> None:
    """Refuse, before TensorRT 10, a graph that its parser would read wrong."""
    import onnx

    for node in _nodes(onnx.load_model_from_string(graph).graph):
        if node.op_type in _REDUCTIONS and _has_axes(node):
            raise EngineError(
                f"{node.op_type} {node.name!r:.60} has its axes as an input, which TensorRT {version} ignores: "
                "export the graph in opset 17 or 18, or update TensorRT to 10 or later"
            )


def _has_axes(node: onnx.NodeProto) -> bool:
    return len(node.input) > 1 and bool(node.input[1])


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Those of its branches and loops as well: `export.onnx_parts.nodes_within`, which would bring PyTorch along."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)


def _constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The axes of reductions that are constants, by name."""
    from onnx import numpy_helper

    wanted = {node.input[1] for node in _nodes(model.graph) if node.op_type in _REDUCTIONS and _has_axes(node)}
    held = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in wanted}
    for node in _nodes(model.graph):
        if node.op_type == "Constant" and node.output[0] in wanted and node.attribute[0].name == "value":
            held[node.output[0]] = node.attribute[0].t
    return {name: [int(axis) for axis in numpy_helper.to_array(tensor).ravel()] for name, tensor in held.items()}


def _can_be_said(node: onnx.NodeProto, constants: dict[str, list[int]]) -> bool:
    from onnx import defs, helper

    held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in _REDUCTIONS:
        axes = constants.get(node.input[1]) if _has_axes(node) else []
        return axes is not None and bool(axes or not held.get("noop_with_empty_axes"))
    try:
        before = defs.get_schema(node.op_type, OPSET, "")
    except defs.SchemaError:  # the operator is younger
        return False
    return (
        len(node.input) <= before.max_input
        and held.keys() <= before.attributes.keys()
        and held.get("reduction") not in (b"max", b"min")
    )
