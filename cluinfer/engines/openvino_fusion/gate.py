"""CLUENet's gate behind its aggregation: the mixture of both kinds of centres becomes the operator's own output.

g = sigmoid(fc2(gelu(fc1([aggregated, pooled]))))    (1 - g) * aggregated + g * pooled    ->  ClusterAggregate, gated
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.edit import Editor, readers, replace
from cluinfer.engines.openvino_fusion.replay import BATCH, MOVES, Array, Replay, constant, erf

_GATE = MOVES | {"Concat", "MatMul", "Add", "Subtract", "Multiply", "Divide", "Erf", "Sigmoid"}


def fuse_gate(aggregate: Any, editor: Editor) -> bool:
    """The output that is the mixture, whatever its spelling, if there is one."""
    given = aggregate.get_attributes()
    heads, channels = int(given["heads"]), int(given["channels"])
    if len(aggregate.inputs()) != 2 or [int(side) for side in given["fold"]] != [1, 1]:
        return False
    behind = list(_behind(aggregate))
    weights = _weights(behind, heads, channels)
    if weights is None:
        return False
    rng, count = np.random.default_rng(0), int(np.prod(given["grid"]))
    gathered, own = rng.standard_normal((2, BATCH * heads, channels, count))
    replay = Replay(aggregate.output(0), gathered)
    replay.give(aggregate.output(1), own)
    wanted = _mixture(gathered, own, *weights)
    for node in behind:
        got = replay(node.output(0)) if node.get_type_name() == "Add" else None
        if got is not None and got.shape == wanted.shape and np.allclose(got, wanted, atol=1e-5):
            maps = [aggregate.input_value(i) for i in range(2)]
            made = editor.create("ClusterAggregate", [*maps, *map(editor.constant, weights)], **given)
            replace(node.output(0), made.output(0))
            return True
    return False


def _behind(aggregate: Any, limit: int = 40) -> Iterator[Any]:
    """The nodes of a gate behind this one, nearest first."""
    seen: set[str] = set()
    todo = list(aggregate.outputs())
    while todo and len(seen) < limit:
        for node, _ in readers(todo.pop(0)):
            if node.get_name() not in seen and node.get_type_name() in _GATE:
                seen.add(node.get_name())
                yield node
                todo.extend(node.outputs())


def _weights(nodes: list[Any], heads: int, channels: int) -> tuple[Array, Array, Array, Array] | None:
    """The constants of these nodes that have the shapes of a gate: first, bias, second, shift."""
    held: dict[str, list[Array]] = {"MatMul": [], "Add": []}
    for node in nodes:
        for port in node.inputs():
            value = constant(port.get_source_output())
            if value is not None and node.get_type_name() in held and value.ndim >= 3:
                held[node.get_type_name()].append(np.float32(value))
    firsts = [w for w in held["MatMul"] if w.ndim == 3 and w.shape[::2] == (heads, 2 * channels)]
    if not firsts:
        return None
    first, hidden = firsts[0], firsts[0].shape[1]
    second = next((w for w in held["MatMul"] if w.size == heads * hidden and w is not first), None)
    bias = next((b for b in held["Add"] if b.size == heads * hidden), None)
    shift = next((b for b in held["Add"] if b.size == heads and b is not bias), None)
    if second is None or bias is None or shift is None:
        return None
    return first, bias.reshape(heads, hidden, 1), second.reshape(heads, 1, hidden), shift.reshape(heads, 1, 1)


def _mixture(gathered: Array, own: Array, first: Array, bias: Array, second: Array, shift: Array) -> Array:
    """As it is defined: [G,d,M] twice -> [G,d,M]."""
    heads = len(first)
    both = np.concatenate([gathered, own], 1).reshape(-1, heads, 2 * gathered.shape[1], gathered.shape[2])
    hidden = first @ both + bias
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    gate = 1 / (1 + np.exp(-(second @ hidden + shift))).reshape(-1, 1, gathered.shape[2])
    mixture: Array = (1 - gate) * gathered + gate * own
    return mixture
