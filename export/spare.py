"""Spare the ONNX exporter a second trace of a program whose operators all have a translation as they are.

`torch.onnx.export` decomposes every program into smaller operators by tracing it again, which takes as long as all
the rest of an export. Of our models tracing again changes three operators only, and those can be spelled here:

detach_      a detach; the tensor that it changes keeps its numbers
rsub(x, a)   sub(a, x)
flatten      a reshape to the known sizes, of which one may vary
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


class SparedProgram(torch.export.ExportedProgram):
    """A program that decomposes only if an operator of it is in the table, or could not be left as it is."""

    def run_decompositions(self, decomp_table: Any = None, **options: Any) -> torch.export.ExportedProgram:
        """The program itself, where decomposing would change nothing that counts."""
        if decomp_table is not None and all(_stays(node, decomp_table) for node in self.graph.nodes):
            return self
        decomposed: torch.export.ExportedProgram = super().run_decompositions(decomp_table, **options)
        return decomposed


def spare(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program, for one export to ONNX: that may change its graph, which is a copy therefore."""
    graph = copy.deepcopy(program.graph)
    for node in graph.nodes:
        _respell(node)
    return SparedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _respell(node: fx.Node) -> None:
    """In place: a node that gives an output must keep its name."""
    if node.target is aten.detach_.default:
        node.target = aten.detach.default
    elif node.target is aten.rsub.Scalar and len(node.args) == 2:
        node.target, node.args = aten.sub.Tensor, (node.args[1], node.args[0])
    elif node.target is aten.flatten.using_ints:
        sizes = [size if isinstance(size, int) else -1 for size in _sizes(node)]
        if sizes and sizes.count(-1) <= 1:
            node.target, node.args, node.kwargs = aten.reshape.default, (node.args[0], sizes), {}


def _stays(node: fx.Node, table: Container[Any]) -> bool:
    """Whether a node needs no decomposition: a plain operator, without side effects, on tensors that hold something.

    The exporter's reshape takes a size of 0 for "as before".
    """
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    if getattr(node.target, "__module__", "") == "_operator":
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target in table or node.target._schema.is_mutable:
        return False
    return node.target is not aten.flatten.using_ints and 0 not in [s for s in _sizes(node) if isinstance(s, int)]


def _sizes(node: fx.Node) -> Sequence[Any]:
    value = node.meta.get("val")
    return value.shape if isinstance(value, torch.Tensor) else ()
