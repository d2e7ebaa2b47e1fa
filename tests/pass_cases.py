"""Small graphs for the tests of the passes, and what every pass must show on them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper, parser

from cluinfer.export.passes import run_pass
from cluinfer.ops import DOMAIN, VERSION
from cluinfer.ops.functions import OPSET, functions

TOLERANCE = 1e-5  # of the output's standard deviation
BATCH = 3
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 1.5, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def build(inputs: str, outputs: str, body: str, **constants: np.ndarray) -> ir.Model:
    """A model in ONNX's text syntax, its constants as arrays; all shapes are inferred. B is the batch."""
    header = f'<ir_version: 9, opset_import: ["": {OPSET}, "{DOMAIN}": {VERSION}]>'
    proto = parser.parse_model(f"{header}\nmain ({inputs}) => ({outputs}) {{\n{body}\n}}")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    model = ir.from_proto(proto)
    run_pass(model, "infer_shapes")
    return model


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def node(model: ir.Model, op_type: str) -> ir.Node:
    (only,) = [n for n in model.graph if n.op_type == op_type]
    return only


def array(value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def assert_exact(name: str, model: ir.Model, changes: int) -> Counter[str]:
    """The pass changes so much, nothing of what comes out, and nothing more on a second run."""
    feeds = {value.name: _feed(value) for value in model.graph.inputs}
    names = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    before = run(model, feeds)
    done = run_pass(model, name)
    assert done.changes == changes
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == names
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for wanted, got in zip(before, run(model, feeds), strict=True):
        assert_close(wanted, got)
    again = run_pass(model, name)
    assert again.changes == 0 and again.nodes_after == done.nodes_after
    return ops(model)


def assert_left(name: str, model: ir.Model) -> tuple[str, ...]:
    """The pass changes not one byte; its remarks come back."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    done = run_pass(model, name)
    assert done.changes == 0
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    return done.left


def assert_close(wanted: np.ndarray, got: np.ndarray) -> None:
    assert wanted.shape == got.shape and wanted.dtype == got.dtype
    if np.issubdtype(wanted.dtype, np.integer):
        np.testing.assert_array_equal(wanted, got)
    else:
        assert np.isfinite(got).all()
        assert np.abs(wanted.astype(np.float64) - got).max() <= TOLERANCE * (wanted.std() or 1)


def run(model: ir.Model, feeds: dict[str | None, Any]) -> list[np.ndarray]:
    """Run in ONNX Runtime as it stands, the operators as their functions."""
    proto = ir.to_proto(model)
    arity = {n.op_type: len(n.input) for n in proto.graph.node if n.domain == DOMAIN}
    proto.functions.extend(functions(arity))
    if DOMAIN not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # our changes, not its own
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def _feed(value: ir.Value) -> np.ndarray:
    assert value.shape is not None and value.dtype is not None
    dims = [dim if isinstance(dim, int) else BATCH for dim in value.shape]
    return normal(*dims).astype(value.dtype.numpy())
