"""What an exported graph shows besides logits: cluster maps and evidence, added to a plain graph as outputs.

Both read the graph alone, so a model of ours, a user's own and a `.pt2` file are all served alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from cluinfer.errors import GraphError
from cluinfer.export.translate import LAYER, LAYOUT
from cluinfer.graph import EVIDENCE, EVIDENCE_CLASSES, LOGITS, ClusterOutput
from cluinfer.ops.schema import DOMAIN

BATCH = "batch"


@dataclass
class _Layer:
    """A clustering layer as found in a graph: where its assignment comes from, and what is done with it."""

    assign: ir.Node
    gathers: bool = False


def find_layers(model: ir.Model) -> tuple[ClusterOutput, ...]:
    """Every clustering layer whose layout is known, in the order of computation.

    A layer that hands nothing back is a pool. Stages are told by the published names, `network.0`, `network.2`, ...;
    in a model with other names a stage is a run of layers on maps of one size.
    """
    found: list[ClusterOutput] = []
    stage, size = 0, None
    layers = _layers(model)
    published = all(re.match(r"network\.\d+(\.|$)", name) for name in layers)
    for name, layer in layers.items():
        heads, *sides = map(int, layer.assign.metadata_props[LAYOUT].split(","))
        fold, region, grid = ((sides[i], sides[i + 1]) for i in (0, 2, 4))
        here = (fold[0] * region[0], fold[1] * region[1])
        stage = int(name.split(".")[1]) // 2 + 1 if published else stage + (here != size)
        size = here
        found.append(ClusterOutput(name, "", not layer.gathers, stage, heads, fold, grid, here))
    return _with_aliases(found)


def _layers(model: ir.Model) -> dict[str, _Layer]:
    """By module path; a module that clusters more than once is told apart as `path`, `path#2`, ..."""
    layers: dict[str, _Layer] = {}
    for node in model.graph:
        if node.domain != DOMAIN or node.op_type == "ClusterAssign":
            continue
        index = node.inputs[1]
        assign = index.producer() if index is not None else None
        if assign is not None and assign.op_type == "ClusterAssign" and LAYOUT in assign.metadata_props:
            path = name = node.metadata_props.get(LAYER, "")
            count = 1
            while name in layers and layers[name].assign is not assign:
                count += 1
                name = f"{path}#{count}"
            layer = layers.setdefault(name, _Layer(assign))
            layer.gathers |= node.op_type == "ClusterGather"
    return layers


def _with_aliases(layers: Sequence[ClusterOutput]) -> tuple[ClusterOutput, ...]:
    """Name the last clustering of each stage and every pool."""
    last = {layer.stage: layer.layer for layer in layers if not layer.pool}
    pools = [layer.layer for layer in layers if layer.pool]

    def alias(layer: ClusterOutput) -> str:
        if layer.pool:
            return f"pool{pools.index(layer.layer) + 1}"
        return f"stage{layer.stage}" if last[layer.stage] == layer.layer else ""

    return tuple(replace(layer, alias=alias(layer)) for layer in layers)


def choose_layers(layers: Sequence[ClusterOutput], maps: str | Sequence[str]) -> tuple[ClusterOutput, ...]:
    """The layers asked for: "none", "stages" (each stage's last, and pools), "all", or layers and aliases by name."""
    names = [name.strip() for name in maps.split(",")] if isinstance(maps, str) else list(maps)
    if names == ["none"]:
        return ()
    if names == ["all"]:
        return tuple(layers)
    if names == ["stages"]:
        return tuple(layer for layer in layers if layer.alias)
    for name in names:
        if not any(name in (layer.layer, layer.alias) for layer in layers):
            known = ", ".join(f"{layer.layer}{f' ({layer.alias})' if layer.alias else ''}" for layer in layers)
            raise GraphError(f"no clustering layer '{name}'; wanted none, stages, all, or of: {known or 'none here'}")
    return tuple(layer for layer in layers if layer.layer in names or (layer.alias and layer.alias in names))


def add_maps(model: ir.Model, chosen: Sequence[ClusterOutput], similarities: bool = False) -> None:
    """Give the chosen layers' assignments as outputs int32 [B, heads, rows, columns], ids unique across regions.

    With `similarities`, float32 outputs of the same shape say how similar each point is to the centre that it chose.
    """
    layers = _layers(model)
    for each in chosen:
        assign = layers[each.layer].assign
        first = np.arange(each.fold[0] * each.fold[1], dtype=np.int32) * (each.grid[0] * each.grid[1])
        ids = _as_map(model, assign.outputs[0], each, first)
        _output(model, ids, each.output, ir.DataType.INT32, [each.heads, *each.size])
        if similarities:
            weight = _as_map(model, assign.outputs[1], each)
            _output(model, weight, each.similarity, ir.DataType.FLOAT, [each.heads, *each.size])


def _as_map(model: ir.Model, points: ir.Value, layer: ClusterOutput, add: np.ndarray | None = None) -> ir.Value:
    """[G, N], grouped by regions, as [B, heads, rows, columns]; `add`: a number for each region."""
    whole = _const(model, [-1, layer.heads, *layer.size])
    if layer.fold == (1, 1):
        return _op(model, "Reshape", [points, whole])
    region = (layer.size[0] // layer.fold[0], layer.size[1] // layer.fold[1])
    value = _op(model, "Reshape", [points, _const(model, [-1, layer.heads, *layer.fold, *region])])
    if add is not None:
        value = _op(model, "Add", [value, _const(model, add.reshape(*layer.fold, 1, 1))])
    return _op(model, "Reshape", [_op(model, "Transpose", [value], perm=[0, 1, 2, 4, 3, 5]), whole])


def add_evidence(model: ir.Model, count: int) -> None:
    """For the `count` likeliest classes, give each final position's exact share of the logit.

    Logits that are a linear layer of a mean over positions are a mean over positions of that linear layer: the shares
    [B, count, rows, columns] sum to the logit without the layer's bias.
    """
    logits = _output_of(model, LOGITS)
    head, mean = _head_and_mean(logits)
    weight = _rows(model, head)  # [classes, C]
    features = mean.inputs[0]
    sides = features.shape if features is not None else None
    if features is None or sides is None or not all(isinstance(side, int) for side in sides[1:]) or len(sides) != 4:
        raise GraphError("evidence needs a final map of known size before the mean over positions")
    channels, rows, columns = (int(side) for side in sides[1:])  # type: ignore[arg-type]
    classes = weight.shape[0]
    if not 1 <= count <= classes:
        raise GraphError(f"evidence for {count} classes was asked for; this model has {classes}")
    values, ids = _ops(model, "TopK", [logits, _const(model, [count])], 2, axis=-1)
    del values
    flat = _op(model, "Reshape", [features, _const(model, [-1, channels, rows * columns])])
    chosen = _op(model, "Gather", [_const(model, weight / (rows * columns)), ids], axis=0)  # [B, count, C]
    shares = _op(model, "MatMul", [chosen, flat])
    evidence = _op(model, "Reshape", [shares, _const(model, [-1, count, rows, columns])])
    _output(model, evidence, EVIDENCE, ir.DataType.FLOAT, [count, rows, columns])
    _output(model, _op(model, "Cast", [ids], to=ir.DataType.INT32), EVIDENCE_CLASSES, ir.DataType.INT32, [count])


def _head_and_mean(logits: ir.Value) -> tuple[ir.Node, ir.Node]:
    """The linear layer that gives the logits, and the mean over positions that it reads."""
    head = logits.producer()
    if head is not None and head.op_type == "Gemm" and head.inputs[0] is not None:
        node = head.inputs[0].producer()
        while node is not None and node.op_type in ("Flatten", "Reshape", "Squeeze", "Identity"):
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node is not None and (node.op_type == "GlobalAveragePool" or _averages_positions(node)):
            return head, node
    raise GraphError("evidence needs logits that are one linear layer of a mean over positions; this model has others")


def _averages_positions(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    return axes is not None and sorted(axis % 4 for axis in axes.numpy().tolist()) == [2, 3]


def _rows(model: ir.Model, head: ir.Node) -> np.ndarray:
    """The weight of a Gemm as [classes, C], its alpha included."""
    value = head.inputs[1]
    weight = ir.convenience.get_const_tensor(value) if value is not None else None
    if weight is None or head.attributes.get_int("transA", False):
        raise GraphError("evidence needs a head whose weight is a constant")
    array = np.asarray(weight.numpy(), np.float32) * head.attributes.get_float("alpha", 1.0)
    return array if head.attributes.get_int("transB", False) else array.T


def _output_of(model: ir.Model, name: str) -> ir.Value:
    for value in model.graph.outputs:
        if value.name == name:
            return value
    raise GraphError(f"the graph has no output {name}")


def _ops(
    model: ir.Model, kind: str, inputs: Sequence[ir.Value], count: int, **attributes: object
) -> Sequence[ir.Value]:
    made = ir.node(kind, inputs, attributes or None, num_outputs=count)  # type: ignore[arg-type]
    model.graph.append(made)
    return made.outputs


def _op(model: ir.Model, kind: str, inputs: Sequence[ir.Value], **attributes: object) -> ir.Value:
    return _ops(model, kind, inputs, 1, **attributes)[0]


def _const(model: ir.Model, value: np.ndarray | list[int]) -> ir.Value:
    array = np.asarray(value, np.int64) if isinstance(value, list) else value
    name = f"shown_{len(model.graph.initializers)}"
    made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(made)
    return made


def _output(model: ir.Model, value: ir.Value, name: str, dtype: ir.DataType, sides: Sequence[int]) -> None:
    value.name, value.dtype, value.shape = name, dtype, ir.Shape([BATCH, *sides])
    model.graph.outputs.append(value)
