"""A graph in ONNX Runtime, with some of its inner values shown: what layers read, and how points were assigned.

The assignments are looked at where they are made, not in the maps that a graph was exported with: each clustering once,
whatever `--maps` was. A layer that reuses another's assignment is counted with that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cluinfer.errors import GraphError
from cluinfer.export.translate import LAYER, LAYOUT
from cluinfer.fidelity import MAPS
from cluinfer.graph import INPUT
from cluinfer.ops.schema import DOMAIN, EPSILON

Array = NDArray[Any]
Run = Callable[[Array], dict[str, Array]]


def open_session(graph: onnx.ModelProto) -> Any:
    """A session of ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds
        raise GraphError(f"ONNX Runtime cannot load the graph: {_line(error)}") from error


def run_with(graph: onnx.ModelProto, names: Sequence[str]) -> Run:
    """Runs the graph on one image [3, H, W] and gives these values, as far as they are not its input."""
    shown = _showing(graph, dict.fromkeys(names, TensorProto.FLOAT))
    session, wanted = open_session(shown), [name for name in names if name != INPUT]

    def run(image: Array) -> dict[str, Array]:
        return dict(zip(wanted, _run(session, wanted, image[None]), strict=True)) if wanted else {}

    return run


@dataclass(frozen=True)
class Assigned:
    """One ClusterAssign of a graph: the names of its values, and what its similarity is."""

    layer: str
    points: str
    centers: str
    index: str
    heads: int
    alpha: float
    beta: float
    sigmoid: bool

    @property
    def output(self) -> str:
        """The name under which its clusters are compared."""
        return f"{MAPS}{self.layer}"


class Watched:
    """A graph that gives, besides its outputs of numbers, every assignment as [B, heads, points]."""

    def __init__(self, graph: onnx.ModelProto, margins: bool = False) -> None:
        self.assigned = _find_assigned(graph)
        self._numbers = [port.name for port in graph.graph.output if not port.name.startswith(MAPS)]
        inner: dict[str, int] = {each.index: TensorProto.INT32 for each in self.assigned}
        if margins:
            inner |= {name: TensorProto.FLOAT for each in self.assigned for name in (each.points, each.centers)}
        self._names = [*self._numbers, *(name for name in inner if name != INPUT)]
        self._margins = margins
        self._session = open_session(_showing(graph, inner))

    def run(self, images: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """The outputs and, if asked for, each point's margin, both by output."""
        given = {INPUT: images, **dict(zip(self._names, _run(self._session, self._names, images), strict=True))}
        outputs = {name: given[name] for name in self._numbers}
        margins: dict[str, Array] = {}
        for each in self.assigned:
            shape = (len(images), each.heads, -1)
            outputs[each.output] = given[each.index].reshape(shape)
            if self._margins:
                margins[each.output] = _margin(given[each.points], given[each.centers], each).reshape(shape)
        return outputs, margins


def _find_assigned(graph: onnx.ModelProto) -> list[Assigned]:
    found: dict[str, Assigned] = {}
    for node in graph.graph.node:
        if node.domain != DOMAIN or node.op_type != "ClusterAssign":
            continue
        noted = {entry.key: entry.value for entry in node.metadata_props}
        held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        layout = noted.get(LAYOUT, "").split(",")
        heads = int(layout[0]) if layout[0].isdigit() else 1
        name = noted.get(LAYER) or node.output[0]
        while name in found:
            name += "'"
        similarity = float(held["alpha"]), float(held["beta"]), bool(held["sigmoid"])
        found[name] = Assigned(name, node.input[0], node.input[1], node.output[0], heads, *similarity)
    return list(found.values())


def _margin(points: Array, centers: Array, how: Assigned) -> Array:
    """The difference of each point's two best similarities [G, N]; infinite where there is one centre alone."""
    if centers.shape[2] == 1:
        return np.full((points.shape[0], points.shape[2]), np.inf, np.float32)
    cosine = np.matmul(_unit(centers).swapaxes(1, 2), _unit(points))
    s = how.alpha * cosine + how.beta
    if how.sigmoid:
        s = 1 / (1 + np.exp(-s))
    best = np.partition(s, -2, axis=1)[:, -2:]
    margin: Array = best[:, 1] - best[:, 0]
    return margin


def _unit(x: Array) -> Array:
    unit: Array = x / np.maximum(np.sqrt(np.square(x).sum(1, keepdims=True)), EPSILON)
    return unit


def _showing(graph: onnx.ModelProto, names: Mapping[str, int]) -> onnx.ModelProto:
    """The graph with these values among its outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    already = {port.name for port in (*shown.graph.output, *shown.graph.input)}
    for name, kind in names.items():
        if name not in already:
            shown.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return shown


def _run(session: Any, names: Sequence[str], images: Array) -> list[Array]:
    try:
        given: list[Array] = session.run(list(names), {INPUT: images})
    except Exception as error:  # ONNX Runtime has a dozen kinds
        raise GraphError(f"ONNX Runtime cannot run the graph: {_line(error)}") from error
    return given


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:240] if lines else type(error).__name__
