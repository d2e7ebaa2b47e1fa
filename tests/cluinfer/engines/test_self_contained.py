"""A graph that names other files is refused, wherever in it the name is, and by every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluinfer.engines import Options, blob, get_engine
from cluinfer.engines.self_contained import check_self_contained
from cluinfer.errors import EngineError

onnx = pytest.importorskip("onnx")
for package in ("onnxruntime", "openvino"):
    pytest.importorskip(package)

from onnx import helper, numpy_helper  # noqa: E402
from onnx_models import clustering, tiny  # noqa: E402

EXTERNAL = "the graph keeps tensors in other files, which are not read: store them in it"
DAMAGED = "the graph is damaged or no ONNX: export it again"


def elsewhere(name: str = "", file: str = "weights.bin") -> onnx.TensorProto:
    """Six numbers of a file."""
    tensor = onnx.TensorProto(name=name, dims=[3, 2], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def message(graph: bytes) -> str:
    with pytest.raises(EngineError) as error:
        check_self_contained(graph)
    return str(error.value)


def inner(tensor: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [tensor])


def sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(6)), [6])


PLACES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "initializer": lambda model: model.graph.initializer.append(elsewhere()),
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse(elsewhere())),
    "attribute": lambda model: model.graph.node[0].attribute.append(helper.make_attribute("value", elsewhere())),
    "attribute, several": lambda model: model.graph.node[0].attribute.append(
        helper.make_attribute("value", [elsewhere()])
    ),
    "branch": lambda model: model.graph.node[0].attribute.append(helper.make_attribute("then", inner(elsewhere()))),
    "branches": lambda model: model.graph.node[0].attribute.append(helper.make_attribute("then", [inner(elsewhere())])),
    "sparse attribute": lambda model: model.graph.node[0].attribute.append(
        helper.make_attribute("value", sparse(elsewhere()))
    ),
    "function": lambda model: (
        model.functions.add().node.add().attribute.append(helper.make_attribute("value", elsewhere()))
    ),
    "function's default": lambda model: model.functions.add().attribute_proto.append(
        helper.make_attribute("value", elsewhere())
    ),
    "training": lambda model: model.training_info.add().initialization.CopyFrom(inner(elsewhere())),
    "without a flag": lambda model: model.graph.initializer.add().external_data.add(key="location", value="x"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_wherever_a_tensor_can_be(place: Callable[[onnx.ModelProto], object]) -> None:
    model = tiny()
    check_self_contained(model.SerializeToString())
    place(model)
    assert message(model.SerializeToString()) == EXTERNAL


def test_field_numbers_that_only_protobuf_reads_so() -> None:
    """It drops what a tag has beyond 32 bits, so nothing hides there."""
    tensor = elsewhere().SerializeToString().replace(b"\x70\x01", b"\xf0\x80\x80\x80\x10\x01")  # data_location = 1
    assert b"\xf0\x80\x80\x80\x10" in tensor
    tensor = tensor[tensor.index(b"\xf0\x80\x80\x80\x10") :]
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    assert message(b"\x3a" + bytes([len(graph)]) + graph) == EXTERNAL


@pytest.mark.parametrize("graph", [b"\x3a\x05ab", b"\x80", b"\xff" * 12, b"\x0b", b"no graph"])
def test_what_is_no_onnx(graph: bytes) -> None:
    assert message(graph) == DAMAGED


@pytest.mark.parametrize("name", ["openvino", "ort", "trt"])
def test_no_engine_reads_another_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO did, from the working folder: what lay there came out as logits."""
    (tmp_path / "weights.bin").write_bytes(np.full(6, 7, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    model = clustering()
    head = next(each for each in model.graph.initializer if each.name == "head")
    head.CopyFrom(elsewhere("head"))
    engine = get_engine(name)
    with pytest.raises(EngineError, match=f"^{EXTERNAL}$"):
        engine.compile(model.SerializeToString(), Options())
    if name == "ort":  # whose blobs are graphs, too
        version = engine.package()[1]
        made = blob.seal(name, {"onnxruntime": version, "precision": "fp32", "batch": 1}, model.SerializeToString())
        with pytest.raises(EngineError, match=f"^{EXTERNAL}$"):
            engine.load(made, Options())


@pytest.mark.parametrize("name", ["openvino", "ort"])
def test_names_that_are_no_text_or_paint(name: str) -> None:
    """Whatever an engine says of a graph is one plain line."""
    plain = clustering().SerializeToString()
    for written in (b"Re\x1b[2J\n", b"Resha\xec\xff"):
        graph = plain.replace(b"Reshape", written)
        with pytest.raises(EngineError) as error:
            get_engine(name).compile(graph, Options())
        assert str(error.value).isprintable()
