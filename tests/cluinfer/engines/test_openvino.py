"""The OpenVINO engine: operators and whole models against the references, natively and expanded.

What holds for every engine is in test_contract.py.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import golden_cases
import numpy as np
import pytest
from hypothesis import given, settings
from operator_cases import Case, assert_same_choice, cases

from cluinfer import ops
from cluinfer.engines import Options, Session, get_engine
from cluinfer.errors import EngineError

pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from engine_cases import SMALL, assert_same, image, in_onnx_runtime, small  # noqa: E402

from cluinfer.engines import openvino as module  # noqa: E402
from cluinfer.engines.openvino_fusion import projection  # noqa: E402
from cluinfer.export import to_onnx  # noqa: E402
from cluinfer.export.models import build, published  # noqa: E402
from cluinfer.export.models.icasc import IcascConfig  # noqa: E402

ENGINE = get_engine("openvino")
NATIVE = bool(module._core()[1]) if module.library_path() else False
needs_native = pytest.mark.skipif(not NATIVE, reason="the OpenVINO extension is not built")

FUSED = {  # what each of them becomes
    "fec": {"ClusterBlock": 3, "ClusterPool": 1},
    "coc": {"ClusterBlock": 3},
    "cluenet": {"ClusterAggregate": 3, "gates": 3, "ClusterMapAssign": 2, "ClusterPool": 1, "norms in place": 9},
}
GOLDEN = ("cluenet_tiny", "coc_tiny", "fec_small")


@pytest.fixture(params=[pytest.param("native", marks=needs_native), "expanded"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the extension, and without."""
    if request.param == "expanded":
        monkeypatch.setenv(module.OVERRIDE, "")
    yield request.param


def session(graph: bytes, options: Options | None = None) -> Session:
    chosen = options or Options(threads=2)
    return ENGINE.load(ENGINE.compile(graph, chosen), chosen)


def run_nodes(nodes: list[tuple[str, list[str], list[str], dict[str, float]]], **inputs: np.ndarray) -> dict[str, Any]:
    """Run a graph of cluinfer operators: each an operator, its inputs and outputs by name, its attributes."""
    helper, types = onnx.helper, {"float32": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
    ins = [
        helper.make_tensor_value_info(name, types[str(array.dtype)], ["G", *array.shape[1:]])
        for name, array in inputs.items()
    ]
    outs = [
        helper.make_tensor_value_info(name, types["int32" if tensor.dtype == "int32" else "float32"], None)
        for operator, _, names, _ in nodes
        for name, tensor in zip(names, ops.OPERATORS[operator].outputs, strict=True)
    ]
    made = [helper.make_node(op, takes, gives, domain=ops.DOMAIN, **given) for op, takes, gives, given in nodes]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(ops.DOMAIN, 1)]
    model = helper.make_model(helper.make_graph(made, "nodes", ins, outs), opset_imports=imports, ir_version=8)
    options = Options(threads=2, batch=len(next(iter(inputs.values()))))
    with session(bytes(model.SerializeToString()), options) as ours:
        return ours.run(inputs)


def assign(points: np.ndarray, centers: np.ndarray) -> tuple[Any, Any]:
    """With the plain sigmoid."""
    node = ("ClusterAssign", ["points", "centers"], ["i", "w"], {"alpha": 1.0, "beta": 0.0, "sigmoid": 1})
    got = run_nodes([node], points=points, centers=centers)
    return got["i"], got["w"]


def check_operators(case: Case) -> None:
    similarity = {"alpha": case.alpha, "beta": case.beta, "sigmoid": int(case.sigmoid)}
    got = run_nodes(
        [
            ("ClusterAssign", ["points", "centers"], ["i", "w"], similarity),
            ("ClusterScatter", ["values", "index", "base"], ["scattered"], {}),
            ("ClusterScatter", ["values", "index", "base", "weight"], ["weighted scattered"], {}),
            ("ClusterGather", ["base", "index"], ["gathered"], {}),
            ("ClusterGather", ["base", "index", "weight"], ["weighted gathered"], {}),
        ],
        **{name: getattr(case, name) for name in ("points", "centers", "values", "index", "base", "weight")},
    )
    expected, _ = ops.cluster_assign(case.points, case.centers, alpha=case.alpha, beta=case.beta, sigmoid=case.sigmoid)
    assert_same_choice(case, got["i"], got["w"], expected)
    scale = 1e-5 * max(1.0, float(np.abs(case.values).max()), float(np.abs(case.base).max()))
    for weight, prefix in ((None, ""), (case.weight, "weighted ")):
        scattered = ops.cluster_scatter(case.values, case.index, case.base, weight)
        np.testing.assert_allclose(got[f"{prefix}scattered"], scattered, rtol=1e-5, atol=scale)
        gathered = ops.cluster_gather(case.base, case.index, weight)
        np.testing.assert_allclose(got[f"{prefix}gathered"], gathered, rtol=1e-6)


@needs_native
@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_operators_natively(case: Case) -> None:
    check_operators(case)


@settings(max_examples=10, deadline=None)
@given(case=cases())
def test_operators_expanded(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(module.OVERRIDE, "")
        check_operators(case)


def test_ties_nan_and_saturation(kind: str) -> None:
    points = np.array([[[1, np.nan, 0, -1], [0, 1, 0, 0]]], np.float32)
    centers = np.array([[[0, 1, 1], [-1, 0, 0]]], np.float32)
    index, weight = assign(points, centers)
    assert index.tolist() == [[1, 0, 0, 0]]  # a tie, a NaN point, a zero point, the best of the rest
    assert np.isnan(weight[0, 1])
    assert np.isfinite(weight[0, [0, 2, 3]]).all()
    centers[0, 0, 2] = np.nan  # a NaN centre is the maximum for every point but the NaN ones
    index, weight = assign(points, centers)
    assert index.tolist() == [[2, 0, 2, 2]]
    assert np.isnan(weight).all()


def test_an_index_out_of_range_adds_nothing_and_gathers_zero(kind: str) -> None:
    index = np.array([[-1, 0, 2, 2**31 - 1, -(2**31)]], np.int32)
    values, base = np.ones((1, 1, 5), np.float32), np.array([[[3.0, 5.0]]], np.float32)
    nodes = [
        ("ClusterScatter", ["values", "index", "base"], ["centers"], {}),
        ("ClusterGather", ["base", "index"], ["points"], {}),
    ]
    got = run_nodes(nodes, values=values, index=index, base=base)
    assert got["centers"].tolist() == [[[2.0, 5.0]]]
    assert got["points"].tolist() == [[[0.0, 3.0, 0.0, 0.0, 0.0]]]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", SMALL)
def test_small_models_equal_onnx_runtime(kind: str, family: str, batch: int) -> None:
    with session(small(family), Options(threads=2, batch=2 if batch == 3 else 1)) as ours:
        assert_same(ours.run({"image": image(batch)}), in_onnx_runtime(family, batch))


@needs_native
@pytest.mark.parametrize("family", SMALL)
def test_everything_is_fused(family: str) -> None:
    head, _ = module.describe(ENGINE.compile(small(family), Options()))
    assert {name: head["fused"][name] for name in FUSED[family]} == FUSED[family]
    assert {name for name in head["fused"] if name.startswith("Cluster")} <= FUSED[family].keys()
    assert head["native"] is True


@needs_native
@pytest.mark.parametrize("family", SMALL)
def test_similarities_cost_no_fusion(family: str) -> None:
    blob = ENGINE.compile(small(family, True), Options(threads=2))
    fused = module.describe(blob)[0]["fused"]
    assert all(fused[name] == count for name, count in FUSED[family].items() if name != "ClusterMapAssign")
    with ENGINE.load(blob, Options(threads=2)) as ours:
        assert_same(ours.run({"image": image(1)}), in_onnx_runtime(family, 1, True))


@needs_native
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("family", "mixers"), [("fec", 3), ("coc", 3), ("cluenet", 3)])
def test_mixers_take_their_convolutions_along(
    family: str, mixers: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On maps as small as these it does not pay, and is left alone unless asked for."""
    assert module.describe(ENGINE.compile(small(family), Options()))[0]["fused"]["projections"] == 0
    monkeypatch.setattr(projection, "MANY", 0)
    monkeypatch.setattr(projection, "WORTH", 1)
    blob = ENGINE.compile(small(family), Options(threads=2))
    assert module.describe(blob)[0]["fused"]["projections"] == mixers
    with ENGINE.load(blob, Options(threads=2)) as ours:
        assert_same(ours.run({"image": image(batch)}), in_onnx_runtime(family, batch))


def test_without_the_extension_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.OVERRIDE, "")
    module._core_with.cache_clear()
    with pytest.warns(RuntimeWarning, match="without its native operators, slower: it is not built") as warned:
        for family in ("fec", "coc"):
            ENGINE.compile(small(family), Options())
    assert len([w for w in warned if "native operators" in str(w.message)]) == 1


def test_an_extension_that_does_not_load_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    library = tmp_path / "libother.so"
    library.write_bytes(b"not a library")
    monkeypatch.setenv(module.OVERRIDE, str(library))
    with pytest.warns(RuntimeWarning, match="it does not load"):
        blob = ENGINE.compile(small("fec"), Options())
    assert module.describe(blob)[0]["native"] is False


@pytest.mark.parametrize("name", GOLDEN)
@needs_native
def test_golden_case(name: str) -> None:
    case = golden_cases.load(name)
    model = build(replace(published(name), num_classes=case.num_classes)).eval()
    model.load_state_dict(golden_cases.state_dict(case.shapes, case.kind))
    with session(bytes(to_onnx(model).SerializeToString())) as ours:
        got = ours.run({"image": case.input})
    case.assert_logits(got["logits"])


def test_attention_of_icasc() -> None:
    """Its gradient reads weights of the network itself, transposed: OpenVINO mixes up constants that are shared so."""
    torch.manual_seed(0)
    model = build(IcascConfig("basic", (1, 1, 1, 1), (8, 12, 16, 24), 5, (64, 64))).eval()
    graph = bytes(to_onnx(model, 64).SerializeToString())
    x = golden_cases.weights().image(1, (2, 3, 64, 64))
    plain = onnxruntime.InferenceSession(graph)
    names = [output.name for output in plain.get_outputs()]
    with session(graph) as ours:
        got = ours.run({"image": x})
    for name, wanted in zip(names, plain.run(None, {"image": x}), strict=True):
        np.testing.assert_allclose(got[name], wanted, atol=1e-4 * max(float(wanted.std()), 1e-9), err_msg=name)


def test_blobs_that_do_not_fit_are_refused() -> None:
    blob = ENGINE.compile(small("fec"), Options())
    line, _, rest = blob.partition(b"\n")
    other_release = line.replace(module._openvino().get_version().encode(), b"1.0") + b"\n" + rest
    for bad, message in (
        (other_release, "compiled by OpenVINO 1.0"),
        (line + b"\n", "cannot load the compiled graph"),
        (line + b"\n" + rest[: len(rest) // 2], "cannot load the compiled graph"),
    ):
        with pytest.raises(EngineError, match=message):
            ENGINE.load(bad, Options())


def test_precisions_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="has precisions fp32, bf16, int8, got 'int3'"):
        ENGINE.compile(small("fec"), Options(precision="int3"))
    monkeypatch.setattr(module, "_computes_bf16", lambda: False)
    with pytest.raises(EngineError, match=r"this CPU does not compute in bf16.*choose fp32"):
        ENGINE.compile(small("fec"), Options(precision="bf16"))
    monkeypatch.setattr(module, "_computes_bf16", lambda: True)
    monkeypatch.setenv(module.OVERRIDE, "")
    with pytest.raises(EngineError, match="bf16 needs the native operators"):
        ENGINE.compile(small("fec"), Options(precision="bf16"))


@needs_native
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="OpenVINO emulates bf16 on x86 only")
@pytest.mark.parametrize("family", SMALL)
def test_bf16_keeps_the_clustering_in_float32(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_computes_bf16", lambda: True)  # OpenVINO emulates it where the CPU does not
    x, options = image(1), Options(precision="bf16", threads=2)
    want = in_onnx_runtime(family, 1)["logits"]
    with session(small(family), options) as ours:
        got = ours.run({"image": x})["logits"]
        infos = [node.get_rt_info() for node in ours._compiled.get_runtime_model().get_ops()]  # type: ignore[attr-defined]
    kinds = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]
    assert np.abs(got - want).max() <= 0.5 * want.std()  # random weights: classes lie close together
    assert ("Convolution", "bf16") in kinds
    natives = [precision for kind, precision in kinds if kind == "Reference"]
    assert len(natives) >= sum(FUSED[family].values())
    assert set(natives) <= {"f32", "i32"}
