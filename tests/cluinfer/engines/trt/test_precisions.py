"""Every family's graph in fp16 and int8, as TensorRT gets it: its rules are kept, and so is what the model sees."""

from __future__ import annotations

import sys
import types
from functools import cache

import calibration_cases
import engine_cases
import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import scenes
from cluinfer.build_graphs import Calibration, make_graph
from cluinfer.calibration import Settings, calibrate, to_half, trt_rules
from cluinfer.engines import Options, get_engine
from cluinfer.engines.trt.graph import standard, types_of_weights, with_plugins
from cluinfer.engines.trt.precision import check_pairs, check_types
from cluinfer.errors import EngineError
from cluinfer.export.onnx_file import read_promise
from cluinfer.export.source import Source, read_source
from cluinfer.fidelity import Fidelity, compare

PRECISIONS = ["fp16", "int8"]


@cache
def graph(family: str, precision: str) -> bytes:
    """As `build` makes it for TensorRT."""
    given = calibration_cases.graph(family) if precision == "fp16" else calibration_cases.default(family)
    return bytes(to_half(given).SerializeToString())


def kept(content: bytes, family: str) -> Fidelity:
    images = calibration_cases.images()[:8]
    wanted, got = (_run(each, images) for each in (engine_cases.small(family), content))
    return compare(wanted, got)


def _run(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(content)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": images}), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", engine_cases.SMALL)
def test_both_forms_keep_the_rules_and_the_operators_are_float32(family: str, precision: str) -> None:
    content = graph(family, precision)
    check_types(content, precision)
    plugins, calls = with_plugins(content)
    assert calls and not any(call.half for call in calls)
    for form in (plugins, standard(content)):
        assert not trt_rules.check(onnx.load_model_from_string(form))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", engine_cases.SMALL)
def test_what_the_model_sees_is_kept_in_standard_operators(family: str, precision: str) -> None:
    found = kept(standard(graph(family, precision)), family)
    assert found.overall.agreement >= {"fp16": 0.995, "int8": 0.95}[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", engine_cases.SMALL)
def test_there_is_half_in_it(family: str, precision: str) -> None:
    """Also where int8 leaves layers alone."""
    kinds = {each.data_type for each in onnx.load_model_from_string(graph(family, precision)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


@pytest.mark.parametrize(("version", "takes"), [("8.6.1", False), ("9.3.0", False), ("10.0.1", True), (None, True)])
def test_half_beside_int8_by_release(monkeypatch: pytest.MonkeyPatch, version: str | None, takes: bool) -> None:
    """A graph made where an older TensorRT is has none; one made elsewhere is refused there."""
    source = calibration_cases.default("fec").SerializeToString()
    half, given = (
        graph("fec", "int8"),
        Source(source, read_promise(calibration_cases.graph("fec")), lambda *given: ({}, {}), ""),
    )
    release = None
    if version:
        release = types.ModuleType("tensorrt")
        release.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", release)
    engine = get_engine("trt")
    assert engine.half_beside_int8() is takes
    made = make_graph("int8", given, Calibration([]), engine, Options(precision="int8"), lambda step: None)
    assert (types_of_weights(made.content)["float16"] > 0) is takes
    check_pairs(source, "8.6.1")
    with pytest.raises(EngineError, match=r"has float16 in it, for TensorRT 10 and later, this is 8\.6\.1: build"):
        check_pairs(half, "8.6.1")


@pytest.mark.parametrize("name", ["fec", "icasc"])
def test_trained_models(name: str) -> None:
    """On scenes that they were not trained on: all that int8 and fp16 may cost, measured in standard operators."""
    source = read_source(scenes.EXAMPLES / "checkpoints" / f"{name}.pt")
    whole = onnx.load_model_from_string(source.content)
    side = source.promise.size[0]
    pictures, _ = scenes.images(4, side, scenes.HELD_BACK)
    graphs = {"fp16": to_half(whole)}
    if name == "icasc":  # the only family that engine_cases has no small model of
        made = calibrate(whole, [scenes.images(10, side, scenes.TRAINING)[0]], Settings(half=True))
        graphs["int8"] = made.graph
    wanted = _run(source.content, pictures)
    for precision, graph in graphs.items():
        content = graph.SerializeToString()
        check_types(content, precision)
        plugins, form = with_plugins(content)[0], standard(content)
        assert not trt_rules.check(onnx.load_model_from_string(plugins))
        assert not trt_rules.check(onnx.load_model_from_string(form))
        found = compare(wanted, _run(form, pictures))
        assert found.top1_same is not None and found.top1_same >= len(pictures) - (precision == "int8")
        if found.maps:
            assert found.overall.agreement >= 0.995
