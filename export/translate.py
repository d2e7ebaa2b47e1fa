"""From a torch.export program to a plain ONNX model whose clusterings are cluinfer nodes."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from onnxscript.values import Op, Opset

import cluinfer.export.torch_ops  # noqa: F401 - registers the operators that the table below translates
from cluinfer.errors import GraphError
from cluinfer.export.spare import spare
from cluinfer.ops.functions import OPSET
from cluinfer.ops.schema import DOMAIN, OPERATORS, VERSION

LAYER = "cluinfer.layer"  # node metadata: the module path of the layer that a node comes from
LAYOUT = "cluinfer.layout"  # node metadata of ClusterAssign: heads, fold, region, grid, see export.nn.layout

# Those of onnxscript's rules that the recognition of clusterings relies on. All of them, as in `optimizer.optimize`,
# take as long as the translation itself.
RULES = (
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.no_op_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)


def translate(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """The plain graph: constants folded, cluinfer nodes with all attributes set and their layer noted, nothing else."""
    try:
        with _quiet():
            model = _export(program, inputs, outputs)
    except Exception as error:
        raise GraphError(_explain(program, error)) from error
    _note_layers(model)
    with _quiet():
        _tidy(model)
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == "ClusterAssign":
            _bind(node)
    RemoveUnusedNodesPass()(model)
    model.opset_imports[DOMAIN] = VERSION
    return model


def _export(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """PyTorch's own translation, unoptimized."""
    export = partial(
        torch.onnx.export,
        dynamo=True,
        opset_version=OPSET,
        optimize=False,
        verbose=False,
        input_names=list(inputs),
        output_names=list(outputs),
        custom_translation_table=_table(),
    )
    try:
        exported = export(spare(program))
    except Exception:  # of any kind: an operator without translation, or a PyTorch that does not know such programs
        exported = export(program)
    assert exported is not None
    return exported.model


def _tidy(model: ir.Model) -> None:
    """Inline functions, fold constants and name them, and do once what is done several times."""
    InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=False)
    if rewriter.RewritePass(RULES)(model).modified:
        optimizer.fold_constants(model, onnx_shape_inference=False)
    RemoveUnusedNodesPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    DeduplicateInitializersPass()(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedOpsetsPass()(model)


def _table() -> dict[Any, Any]:
    """How our torch operators are written in ONNX; alpha and beta are still inputs here, bound to attributes after."""
    assign, scatter, gather = (_op(name) for name in ("ClusterAssign", "ClusterScatter", "ClusterGather"))

    def translate_assign(points, centers, alpha, beta, sigmoid: bool, layout: Sequence[int]):  # type: ignore[no-untyped-def]
        index, weight = assign(points, centers, alpha, beta, sigmoid=int(sigmoid), layout=list(layout))
        return weight, index

    def translate_scatter(values, index, base, weight=None):  # type: ignore[no-untyped-def]
        return scatter(values, index, base, *(() if weight is None else (weight,)))

    def translate_gather(centers, index, weight=None):  # type: ignore[no-untyped-def]
        return gather(centers, index, *(() if weight is None else (weight,)))

    ours = torch.ops.cluinfer
    return {
        ours.cluster_assign.default: translate_assign,
        ours.cluster_scatter.default: translate_scatter,
        ours.cluster_gather.default: translate_gather,
    }


def _op(name: str) -> Op:
    """The operator for onnxscript, with the extra inputs and the layout that our torch operator has."""
    operator, schema = OPERATORS[name], onnx.defs.OpSchema
    option = schema.FormalParameterOption

    def formal(tensor: Any) -> onnx.defs.OpSchema.FormalParameter:
        kind = "T" if tensor.dtype == "T" else "tensor(int32)"
        return schema.FormalParameter(
            tensor.name, kind, param_option=option.Optional if tensor.optional else option.Single
        )

    inputs, attributes = [formal(tensor) for tensor in operator.inputs], []
    if name == "ClusterAssign":
        inputs += [schema.FormalParameter(extra, "T") for extra in ("alpha", "beta")]
        attributes = [
            schema.Attribute("sigmoid", schema.AttrType.INT),
            schema.Attribute("layout", schema.AttrType.INTS),
        ]
    floats = ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "")
    made = schema(
        name,
        DOMAIN,
        VERSION,
        inputs=inputs,
        outputs=[formal(tensor) for tensor in operator.outputs],
        type_constraints=[floats],
        attributes=attributes,
    )
    return Op(Opset(DOMAIN, VERSION), name, made)


def _note_layers(model: ir.Model) -> None:
    """Keep of the exporter's notes only the module path of each node: the rest names files of this machine."""
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        node.metadata_props.clear()
        node.doc_string = None
        node.metadata_props[LAYER] = scopes[-2] if len(scopes) > 1 else ""
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.name = "main"
    model.producer_name, model.producer_version, model.doc_string = "cluinfer", None, None


def _bind(node: ir.Node) -> None:
    """Turn the alpha and beta inputs of a ClusterAssign into attributes, and its layout into a note."""
    for position, name in ((3, "beta"), (2, "alpha")):
        value = node.inputs[position]
        constant = ir.convenience.get_const_tensor(value) if value is not None else None
        if constant is None or constant.size != 1:
            raise GraphError(
                f"ClusterAssign of {node.metadata_props[LAYER] or 'the model'}: {name} must be one learned or fixed "
                "number, but is computed from the input; use a parameter for it"
            )
        node.attributes[name] = ir.AttrFloat32(name, float(np.asarray(constant.numpy()).reshape(())))
    node.resize_inputs(2)
    layout = list(node.attributes.pop("layout").as_ints())
    if layout:
        _check_layout(node, layout)
        node.metadata_props[LAYOUT] = ",".join(map(str, layout))


def _check_layout(node: ir.Node, layout: list[int]) -> None:
    """A layout that does not fit its points and centres would make a map that cannot be."""
    points, centers = ((value.shape or [None])[-1] if value is not None else None for value in node.inputs[:2])
    fits = len(layout) == 7 and min(layout) > 0
    fits = fits and (not isinstance(points, int) or points == layout[3] * layout[4])
    fits = fits and (not isinstance(centers, int) or centers == layout[5] * layout[6])
    if not fits:
        raise GraphError(
            f"cluster_assign of {node.metadata_props[LAYER] or 'the model'}: layout {layout} does not fit {points} "
            f"points and {centers} centres; wanted [heads, fold rows, fold columns, region rows, region columns, "
            "grid rows, grid columns], or none"
        )


def _explain(program: torch.export.ExportedProgram, error: Exception) -> str:
    """Name the operators that ONNX has no translation for, with the module that calls them."""
    from torch.onnx._internal.exporter import _registration

    known = _registration.ONNXRegistry.from_torchlib(OPSET)
    unknown: dict[str, str] = {}
    for node in program.run_decompositions().graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target.namespace != DOMAIN and not known.is_registered(node.target):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            unknown.setdefault(str(node.target), stack[-1][0] if stack else "")
    if unknown:
        listed = ", ".join(f"{op} in module '{path}'" if path else op for op, path in unknown.items())
        return f"no ONNX operator for {listed}; write it with operators that have one, or move it out of the model"
    return f"the model cannot be exported: {str(error).strip().splitlines()[-1][:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks about their own packages from the user."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
