"""The passes that make an exported graph ready for deployment, in the order in which they run.

Each is exact (to rounding), stands in a file of its own, and changes a model in place. Together they are run until
none changes anything more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

ORDER: tuple[str, ...] = (
    # what the model is, before its spelling changes
    "recognise_clustering",
    # what is known, and what does nothing
    "infer_shapes",
    "static_shapes",
    "fold_constants",
    "fold_coordinates",
    "drop_no_ops",
    "drop_expands",
    "merge_reshapes",
    "norm_whole_map",
    # channel-first throughout, so that the foldings meet convolutions only
    "linear_to_conv",
    "sink_transposes",
    "merge_transposes",
    "sink_reshapes",
    # into weights
    "fold_batchnorm",
    "fold_layer_scale",
    "fold_norm_affine",
    "shift_into_sum",
    # one node for several; after the foldings, which want each weight to itself
    "merge_siblings",
    "pool_before_heads",
    "sink_splits",
    "share_repeats",
)
ROUNDS = 10  # far more than any model needs: passes that undo each other would show here


@dataclass(frozen=True)
class Done:
    """What one pass did to a model, for `--explain`."""

    name: str
    meaning: str  # the pass's own docstring, first line
    changes: int
    nodes_before: int
    nodes_after: int
    left: tuple[str, ...] = ()  # what was found but not changed, and why


Pass = Callable[[ir.Model], "int | tuple[int, list[str]]"]


def run_passes(model: ir.Model, names: tuple[str, ...] = ORDER) -> list[Done]:
    """Run the passes over and over until nothing changes; report each pass's work, summed over the rounds."""
    report: dict[str, Done] = {}
    for _ in range(ROUNDS):
        changed = 0
        for name in names:
            done = run_pass(model, name)
            changed += done.changes
            last = report.get(name)
            report[name] = done if last is None else _sum(last, done)
        if not changed:
            break
    return list(report.values())


def run_pass(model: ir.Model, name: str) -> Done:
    """Run one pass, drop what it left unused, and report."""
    module = import_module(f"cluinfer.export.passes.{name}")
    before = count_nodes(model)
    result = module.run(model)
    changes, left = result if isinstance(result, tuple) else (result, [])
    if changes:
        RemoveUnusedNodesPass()(model)
    meaning = (module.__doc__ or "").strip().splitlines()[0]
    return Done(name, meaning, changes, before, count_nodes(model), tuple(left))


def count_nodes(model: ir.Model) -> int:
    """The nodes of the graph, without constants, which engines do not run."""
    return sum(node.op_type != "Constant" for node in model.graph)


def _sum(first: Done, then: Done) -> Done:
    return Done(
        first.name,
        first.meaning,
        first.changes + then.changes,
        first.nodes_before,
        then.nodes_after if then.changes else first.nodes_after,
        tuple(dict.fromkeys(first.left + then.left)),
    )
