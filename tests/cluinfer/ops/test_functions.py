"""The ONNX function bodies, run by ONNX Runtime as they stand and inlined, against the reference."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, inliner
from operator_cases import Case, assert_same_choice, cases

from cluinfer.ops import DOMAIN, OPERATORS, VERSION, cluster_assign, cluster_gather, cluster_scatter
from cluinfer.ops.functions import OPSET, functions

ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def model(name: str, arity: int, dtype: str = "float32", **attributes: Any) -> onnx.ModelProto:
    """One node of the operator, with its function."""
    operator = OPERATORS[name]

    def value(tensor: Any) -> onnx.ValueInfoProto:
        element = TensorProto.INT32 if tensor.dtype == "int32" else ELEMENT[dtype]
        return helper.make_tensor_value_info(tensor.name, element, tensor.shape)

    inputs = operator.inputs[:arity]
    node = helper.make_node(
        name, [t.name for t in inputs], [t.name for t in operator.outputs], domain=DOMAIN, **attributes
    )
    graph = helper.make_graph([node], name, [value(t) for t in inputs], [value(t) for t in operator.outputs])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions({name: arity}), ir_version=10)


@cache
def sessions(name: str, arity: int, **attributes: Any) -> tuple[onnxruntime.InferenceSession, ...]:
    """The model as it stands and with its functions inlined; both pass the full checker first."""
    made = model(name, arity, **attributes)
    inlined = inliner.inline_local_functions(made)
    assert not inlined.functions
    for proto in (made, inlined):
        onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return tuple(onnxruntime.InferenceSession(proto.SerializeToString(), options) for proto in (made, inlined))


def run(session: onnxruntime.InferenceSession, **inputs: np.ndarray) -> list[np.ndarray]:
    return session.run(None, inputs)  # type: ignore[no-any-return]


def assign_sessions(case: Case) -> tuple[onnxruntime.InferenceSession, ...]:
    return sessions("ClusterAssign", 2, alpha=case.alpha, beta=case.beta, sigmoid=int(case.sigmoid))


@given(cases())
@settings(max_examples=300, deadline=None)
def test_assign(case: Case) -> None:
    expected, _ = cluster_assign(case.points, case.centers, alpha=case.alpha, beta=case.beta, sigmoid=case.sigmoid)
    for session in assign_sessions(case):
        index, weight = run(session, points=case.points, centers=case.centers)
        assert_same_choice(case, index, weight, expected)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_scatter(case: Case) -> None:
    for arity, extra in ((3, {}), (4, {"weight": case.weight})):
        expected = cluster_scatter(case.values, case.index, case.base, **extra)
        for session in sessions("ClusterScatter", arity):
            (centers,) = run(session, values=case.values, index=case.index, base=case.base, **extra)
            scale = max(1.0, np.abs(case.values).max(), np.abs(case.base).max())
            np.testing.assert_allclose(centers, expected, rtol=1e-5, atol=1e-5 * scale)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_gather(case: Case) -> None:
    for arity, extra in ((2, {}), (3, {"weight": case.weight})):
        expected = cluster_gather(case.base, case.index, **extra)
        for session in sessions("ClusterGather", arity):
            np.testing.assert_array_equal(run(session, centers=case.base, index=case.index, **extra)[0], expected)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_exact_ties_go_to_the_lowest_index(case: Case) -> None:
    """Centres repeated after themselves: a higher copy must never win."""
    ones = np.sign(case.points), np.sign(case.centers)  # sums of ones are exact, so copies tie exactly
    doubled = np.concatenate([ones[1], ones[1]], axis=2)
    for session in assign_sessions(case):
        index, _ = run(session, points=ones[0], centers=doubled)
        assert index.max() < case.centers.shape[2]


@pytest.mark.parametrize("alpha", [100.0, -300.0])
def test_saturation_goes_to_the_lowest_index(alpha: float) -> None:
    points, centers = np.array([[[1], [0]]], np.float32), np.array([[[1, 1], [1, 0]]], np.float32)
    for session in sessions("ClusterAssign", 2, alpha=alpha, beta=0.0, sigmoid=1):
        index, weight = run(session, points=points, centers=centers)
        assert (index.tolist(), weight.tolist()) == ([[0]], [[float(alpha > 0)]])


@pytest.mark.parametrize("sigmoid", [0, 1])
def test_nan_points_and_centres(sigmoid: int) -> None:
    random = np.random.default_rng(5)
    points, centers = (random.standard_normal((3, 4, n)).astype(np.float32) for n in (20, 5))
    points[0, 2, 7] = points[1, :, 3] = np.nan
    points[0, 1, 9] = np.inf
    centers[1, 0, 2] = centers[1, 3, 4] = centers[2, 1, 0] = np.nan
    expected, expected_weight = cluster_assign(points, centers, sigmoid=bool(sigmoid))
    assert expected[0, 7] == expected[0, 9] == expected[1, 3] == 0
    assert (np.delete(expected[1], 3) == 2).all()
    for session in sessions("ClusterAssign", 2, alpha=1.0, beta=0.0, sigmoid=sigmoid):
        index, weight = run(session, points=points, centers=centers)
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_allclose(weight, expected_weight, atol=1e-6)


def test_nan_values_stay_with_their_centre() -> None:
    values = np.array([[[np.nan, 4, np.nan]]], np.float32)
    index, base = np.array([[0, 1, 9]], np.int32), np.zeros((1, 1, 3), np.float32)
    for session in sessions("ClusterScatter", 3):
        (centers,) = run(session, values=values, index=index, base=base)
        np.testing.assert_array_equal(centers, [[[np.nan, 2, 0]]])


def test_no_points_at_all() -> None:
    centers = np.ones((2, 3, 4), np.float32)
    for session in sessions("ClusterAssign", 2, alpha=1.0, beta=0.0, sigmoid=1):
        index, weight = run(session, points=np.zeros((2, 3, 0), np.float32), centers=centers)
        assert index.shape == weight.shape == (2, 0)
    empty = np.zeros((2, 0), np.int32)
    for session in sessions("ClusterScatter", 3):
        (same,) = run(session, values=np.zeros((2, 3, 0), np.float32), index=empty, base=centers)
        np.testing.assert_array_equal(same, centers)
    for session in sessions("ClusterGather", 2):
        assert run(session, centers=centers, index=empty)[0].shape == (2, 3, 0)


def test_half_precision_data_is_computed_in_float32() -> None:
    """A cosine of float16 sums would be off by 1e-3; one of float32 sums only rounds at the end."""
    random = np.random.default_rng(3)
    points, centers = (random.standard_normal((2, 64, n)).astype(np.float16) for n in (50, 6))
    made = model("ClusterAssign", 2, "float16", alpha=1.0, beta=0.0, sigmoid=0)
    index, weight = run(onnxruntime.InferenceSession(made.SerializeToString()), points=points, centers=centers)
    expected, expected_weight = cluster_assign(points.astype(np.float32), centers.astype(np.float32), sigmoid=False)
    assert weight.dtype == np.float16
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(weight, expected_weight.astype(np.float16))
    values = points * np.float16(100)
    made = model("ClusterScatter", 3, "float16")
    (got,) = run(onnxruntime.InferenceSession(made.SerializeToString()), values=values, index=index, base=centers)
    np.testing.assert_allclose(got, cluster_scatter(values, index, centers), rtol=2e-3)
