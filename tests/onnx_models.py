"""Small ONNX models, right ones, for tests that break them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper, parser

from cluinfer.errors import GraphError
from cluinfer.export.onnx_file import read_onnx
from cluinfer.graph import KEY, ClusterOutput, Promise
from cluinfer.ops.functions import functions

IMPORTS = 'ir_version: 8, opset_import: ["": 18, "cluinfer": 1, "own": 1]'
IDENTITY = f"<{IMPORTS}> main (float[N, 3] x) => (float[N, 3] y) {{ y = Neg (x) }}"
LAYER = ClusterOutput("network.0", "stage1", False, 1, 1, (1, 1), (2, 2), (4, 4))
PROMISE = Promise("own", "custom", (4, 4), 2, maps=(LAYER,), evidence=1)
CLUSTERING = f"""
<{IMPORTS}>
main (float[batch, 3, 4, 4] image)
  => (float[batch, 2] logits, int32[batch, 1, 4, 4] "clusters/network.0",
      float[batch, 1, 4, 4] evidence, int32[batch, 1] evidence_classes)
<int64[3] flat = {{-1, 3, 16}}, int64[4] rows = {{-1, 1, 4, 4}}, int64[1] sides = {{2}},
 float[3, 2] head = {{0, 1, 2, 3, 4, 5}}, int64[1] one = {{1}}>
{{
  points = Reshape (image, flat)
  pooled = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (image)
  centers_flat = Constant <value_ints = [-1, 3, 4]> ()
  centers = Reshape (pooled, centers_flat)
  index, weight = cluinfer.ClusterAssign <alpha = 1.0, beta = 0.0, sigmoid = 1> (points, centers)
  "clusters/network.0" = Reshape (index, rows)
  moved = cluinfer.ClusterScatter (points, index, centers)
  mean = ReduceMean <keepdims = 0> (moved, sides)
  logits = MatMul (mean, head)
  best, chosen = TopK (logits, one)
  evidence_classes = Cast <to = 6> (chosen)
  evidence = Reshape (weight, rows)
}}"""


def tiny(text: str = IDENTITY) -> onnx.ModelProto:
    return parser.parse_model(text)


def body(text: str) -> onnx.FunctionProto:
    return parser.parse_function(f'<domain: "own", opset_import: ["": 18, "own": 1]> {text}')


def clustering(promise: Promise | None = PROMISE) -> onnx.ModelProto:
    model = tiny(CLUSTERING)
    model.functions.extend(functions({"ClusterAssign": 2, "ClusterScatter": 3}))
    if promise:
        helper.set_model_props(model, {KEY: promise.to_json()})
    return model


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.op_type == op_type)


def stored(folder: Path, content: onnx.ModelProto | bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refused(path: Path) -> str:
    with pytest.raises(GraphError) as error:
        read_onnx(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")
