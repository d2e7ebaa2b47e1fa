"""Graphs in the opset that the parsers of TensorRT 8.6 to 9 read: the same numbers, or left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from cluinfer.engines.trt.opset17 import check_reductions, lower
from cluinfer.errors import EngineError

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


def model(body: str, opset: int = 18) -> onnx.ModelProto:
    made: onnx.ModelProto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g (float[2, 3, 4, 5] x) => (float[?, ?, ?, ?] y) {{ {body} }}'
    )
    return made


def run(given: onnx.ModelProto) -> np.ndarray:
    return onnxruntime.InferenceSession(given.SerializeToString()).run(None, {"x": X})[0]


AXES = "axes = Constant <value = int64[2] {2, -3}> () "
REDUCED = {
    "axes": AXES + "y = ReduceMean (x, axes)",
    "every axis": "y = ReduceMax <noop_with_empty_axes = 0> (x)",
    "sum": AXES + "y = ReduceSum <keepdims = 1> (x, axes)",  # has had an input since 13
    "two": AXES + "z = ReduceL2 (x, axes) w = ReduceMin (x, axes) y = Sub (z, w)",
    "split": "a, b = Split <axis = 0> (x) y = Add (a, b)",
    "branch": AXES + "t = Constant <value = bool {1}> () "
    "y = If (t) <then_branch = a () => (float[?, ?, ?, ?] p) { p = ReduceMean (x, axes) }, "
    "else_branch = b () => (float[?, ?, ?, ?] q) { q = Identity (x) }>",
}


@pytest.mark.parametrize("name", REDUCED)
def test_the_same_in_opset_17(name: str) -> None:
    opset = 17 if name == "split" else 18
    before = model(REDUCED[name], opset)
    after = model(REDUCED[name], opset)
    after.opset_import[0].version = 18
    lower(after)
    assert after.opset_import[0].version == 17
    onnx.checker.check_model(after, full_check=True)
    np.testing.assert_array_equal(run(after), run(before))
    check_reductions(after.SerializeToString(), "8.6.1")


LEFT = {
    "axes that are computed": (
        "i = Constant <value = int64[1] {1}> () axes = Add (i, i) y = ReduceMean (x, axes)",
        18,
    ),
    "no axis at all": ("y = ReduceMax <noop_with_empty_axes = 1> (x)", 18),
    "a younger operator": ("y = Mish (x)", 18),
    "a younger attribute": ("a, b = Split <axis = 0, num_outputs = 2> (x) y = Add (a, b)", 18),
    "a younger graph": (AXES + "y = ReduceMean (x, axes)", 19),
    "an older graph": ("y = ReduceMean <axes = [1]> (x)", 17),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_alone(name: str) -> None:
    given = model(*LEFT[name])
    content = given.SerializeToString(deterministic=True)
    lower(given)
    assert given.SerializeToString(deterministic=True) == content


def test_what_older_parsers_would_read_wrong() -> None:
    check_reductions(model(REDUCED["sum"]).SerializeToString(), "8.6.1")
    with pytest.raises(EngineError, match=r"ReduceMean '' has its axes as an input, which TensorRT 9.3.0 ignores"):
        check_reductions(model(REDUCED["axes"], 19).SerializeToString(), "9.3.0")
