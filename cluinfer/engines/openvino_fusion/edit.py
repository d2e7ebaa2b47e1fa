"""Changing an OpenVINO model in place: new nodes of the extension between channels-last views of maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.layout import Pair, to_points
from cluinfer.engines.openvino_fusion.replay import BATCH, Array, Replay, constant, key, map_shape

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_MOVES = frozenset({"Reshape", "Transpose"})


class Editor:
    """Makes nodes from the extension's library and puts them in the place of others."""

    def __init__(self, library: str) -> None:
        from openvino.utils.node_factory import NodeFactory

        self._factory = NodeFactory()
        self._factory.add_extension(library)
        self._last: dict[tuple[str, int], Any] = {}

    def create(self, name: str, inputs: list[Any], **attributes: Any) -> Any:
        """A node of the extension."""
        return self._factory.create(name, inputs, attributes)

    def channels_last(self, source: Any) -> Any:
        """A map [B,C,H,W] as [B,H,W,C]; one view for all its readers. Convolutions keep maps so: nothing is moved."""
        from openvino import opset13

        node = source.get_node()
        order = constant(node.input_value(1)) if node.get_type_name() == "Transpose" else None
        if order is not None and list(order) == TO_FIRST:
            return node.input_value(0)
        if key(source) not in self._last:
            self._last[key(source)] = opset13.transpose(source, np.array(TO_LAST, np.int64)).output(0)
        return self._last[key(source)]

    @staticmethod
    def channels_first(made: Any) -> Any:
        """The opposite."""
        from openvino import opset13

        return opset13.transpose(made, np.array(TO_FIRST, np.int64)).output(0)

    @staticmethod
    def constant(value: Array) -> Any:
        """A constant of this value."""
        from openvino import opset13

        return opset13.constant(value).output(0)

    @staticmethod
    def reshape(value: Any, sizes: list[int]) -> Any:
        """With -1 for the batch."""
        from openvino import opset13

        return opset13.reshape(value, np.array(sizes, np.int64), False).output(0)


def replace(old: Any, new: Any) -> None:
    """Let every reader of `old` read `new`, which takes over its names."""
    names = set(old.get_names())
    for port in list(old.get_target_inputs()):
        port.replace_source_output(new)
    if names:
        old.set_names(set())
        new.set_names(set(new.get_names()) | names)


def readers(output: Any) -> list[tuple[Any, int]]:
    """The nodes that read this output, and at which input."""
    return [(port.get_node(), port.get_index()) for port in output.get_target_inputs()]


def outward(output: Any, through: frozenset[str] = _MOVES) -> Iterator[Any]:
    """This output and those that are made from it alone, one reader at a time."""
    while True:
        yield output
        users = readers(output)
        if len(users) != 1 or users[0][0].get_type_name() not in through:
            return
        output = users[0][0].output(0)


def find_map(points: Any, shape: tuple[int, int, int], heads: int, fold: Pair) -> Any | None:
    """Where points [G,D,N] have become the map [B,E*D,H,W] again, in its own layout; None if they never do."""
    channels, rows, columns = shape
    groups = BATCH * heads * fold[0] * fold[1]
    value: Array = np.arange(BATCH * channels * rows * columns)
    value = value.reshape(groups, channels // heads, rows * columns // (fold[0] * fold[1]))
    replay = Replay(points, value)
    for output in outward(points):
        if map_shape(output) == shape:
            got = replay(output)
            if got is not None and got.shape[0] == BATCH and np.array_equal(to_points(got, heads, fold), value):
                return output
    return None


def find_ids(index: Any, start: Any, heads: int, fold: Pair, size: Pair, centres: int) -> Any | None:
    """Where index [G,N], read by node `start`, has become the cluster map [B,E,H,W] of ids region * M + centre."""
    regions = fold[0] * fold[1]
    points = size[0] * size[1] // regions
    value = np.random.default_rng(1).integers(0, centres, (BATCH * heads * regions, points))
    replay = Replay(index, value)
    region = np.tile(np.arange(regions), BATCH * heads)[:, None]
    for output in outward(start.output(0), _MOVES | {"Add", "Convert"}):
        if map_shape(output) == (heads, *size):
            got = replay(output)
            if got is not None and got.shape[0] == BATCH:
                ids = to_points(got, heads, fold)[:, 0]
                if np.array_equal(ids, region * centres + value):
                    return output
    return None
