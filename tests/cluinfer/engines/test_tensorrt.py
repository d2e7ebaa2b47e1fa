"""What the TensorRT engine decides, refuses and says; none of it needs a GPU. What needs one is in tests/gpu."""

from __future__ import annotations

import ast
import gc
import json
import sys
import types
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine_cases
import numpy as np
import pytest
from real_tensorrt import make_importable, run_with_bindings

import cluinfer
from cluinfer.cli import main
from cluinfer.engines import Options, blob, get_engine
from cluinfer.engines.base import Array
from cluinfer.engines.tensorrt import choose_plugins, unfit
from cluinfer.engines.trt import builder, timing_cache
from cluinfer.engines.trt.arrays import Port, check_gpu_arrays, stream_of
from cluinfer.engines.trt.gpu import check_driver
from cluinfer.engines.trt.precision import check_types
from cluinfer.engines.trt.settings import Settings, parse_batch
from cluinfer.errors import EngineError, MissingPackageError, ShapeError

SOURCES = Path(cluinfer.__file__).parent / "engines"
HEAD = {
    "tensorrt": "10.9.0.34",
    "precision": "fp32",
    "batch": 1,
    "profile": [1, 1, 1],
    "plugins": True,
    "gpu": "NVIDIA H100",
    "capability": "9.0",
    "version_compatible": False,
    "hardware_compatible": False,
}


def no_gpu() -> bool:
    try:
        check_driver()
    except EngineError:
        return True
    return False


@pytest.mark.skipif(not no_gpu(), reason="there is an NVIDIA driver here")
def test_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"^no NVIDIA GPU with a driver here$"):
        get_engine("trt").check()
    (tmp_path / "model.pt").touch()
    assert main(["build", str(tmp_path / "model.pt"), "--engine", "trt"]) == 2
    assert "or prepare here with --emit-only, or choose another engine" in capsys.readouterr().err


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPackageError, match=r"needs a package .*: pip install 'cluinfer\[trt\]'"):
        get_engine("trt").package()


def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.5.3.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(EngineError, match=r"needs TensorRT 8.6 or later, this is 8.5.3.1"):
        get_engine("trt").package()


def test_plugins_where_tensorrt_has_them() -> None:
    assert [choose_plugins(version, None) for version in ((8, 6), (10, 8), (10, 9), (11, 4))] == [False] * 2 + [
        True
    ] * 2
    assert choose_plugins((11, 4), False) is False
    with pytest.raises(EngineError, match=r"plugins need TensorRT 10.9 or later, this is 10.8"):
        choose_plugins((10, 8), True)


@pytest.mark.parametrize(
    "changed, here, reason",
    [
        ({}, ("10.9.0.34", "NVIDIA H100", "9.0"), ""),
        ({}, ("10.9.1.1", "NVIDIA H100", "9.0"), "built by TensorRT 10.9.0.34, this is 10.9.1.1"),
        ({"version_compatible": True}, ("10.13.0.1", "NVIDIA H100", "9.0"), ""),
        ({"version_compatible": True}, ("10.8.0.1", "NVIDIA H100", "9.0"), "built by TensorRT 10.9.0.34"),
        ({"version_compatible": True}, ("11.0.0.1", "NVIDIA H100", "9.0"), "built by TensorRT 10.9.0.34"),
        ({}, ("10.9.0.34", "NVIDIA A10", "8.6"), "built for NVIDIA H100 (compute capability 9.0), this is NVIDIA A10"),
        ({"hardware_compatible": True}, ("10.9.0.34", "NVIDIA B200", "10.0"), ""),
        ({"hardware_compatible": True}, ("10.9.0.34", "NVIDIA A10", "8.6"), "built for NVIDIA H100"),
        ({"hardware_compatible": True, "capability": "x"}, ("10.9.0.34", "NVIDIA A10", "8.6"), "built for NVIDIA H100"),
        ({}, ("10.9.0.34", "NVIDIA H200", "9.0"), ""),
    ],
)
def test_engines_of_elsewhere(changed: dict[str, Any], here: tuple[str, str, str], reason: str) -> None:
    said = unfit({**HEAD, **changed}, *here)
    assert said.startswith(reason)
    assert bool(said) is bool(reason)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"profile": [1, 2]}, "no right profile"),
        ({"profile": [3, 2, 1]}, "no right profile"),
        ({"profile": [1, True, 2]}, "no right profile"),
        ({"gpu": None}, "fields are missing"),
        ({"precision": "fp16"}, "compiled for precision fp16, fp32 is wanted"),
    ],
)
def test_blobs_that_are_wrong(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        get_engine("trt").load(blob.seal("trt", {**HEAD, **changed}, b""), Options())


def test_types_that_the_inspector_tells() -> None:
    formats = ["Row major linear FP16 format", "Row major Int8 format", "Channel major FP32 format", "Half", "INT32"]
    layers = [{"Name": f"l{i}", "Outputs": [{"Name": "o", "Format/Datatype": text}]} for i, text in enumerate(formats)]
    layers += ["a name alone", {"Name": "without outputs"}, {"Outputs": [{"Datatype": "Float"}]}]  # type: ignore[list-item]
    found = builder.types_of_layers(json.dumps({"Layers": layers, "Bindings": []}))
    assert found == Counter(fp16=2, int8=1, fp32=2, int32=1)
    builder.check_built(found, "fp16")
    with pytest.raises(EngineError, match=r"int8 was asked for, but no layer .*; layers: 3 fp32"):
        builder.check_built(Counter(fp32=3), "int8")
    assert builder.types_of_layers('{"Layers": [{"Name": "\\x"}]}') == Counter()  # not JSON


@dataclass
class Tensor:
    """ITensor."""

    name: str
    dtype: str


class Layer:
    """ILayer, before TensorRT 11."""

    def __init__(self, kind: str, *inputs: Tensor | None) -> None:
        self.type, self._inputs, self.num_inputs, self.precision = kind, inputs, len(inputs), ""

    def get_input(self, number: int) -> Tensor | None:
        return self._inputs[number]

    def get_output(self, number: int) -> Tensor:
        return Tensor(f"of {self.type}", "float32")


class Names:
    """An enum whose members are their own names; and what takes flags."""

    def __init__(self) -> None:
        self.flags: list[str] = []

    def __getattr__(self, name: str) -> str:
        return name

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)


def test_types_below_tensorrt_10() -> None:
    half, single, chosen = Tensor("a", "float16"), Tensor("b", "float32"), Tensor("c", "bool")
    layers = {
        "float16": Layer("CONVOLUTION", half, None),
        "float32": Layer("MATRIX_MULTIPLY", single, half),
        "float32 of a selection": Layer("SELECT", chosen, single, single),
        "": Layer("ELEMENTWISE", Tensor("d", "int32"), Tensor("e", "int32")),
        " free": Layer("CAST", single),
        " constant": Layer("CONSTANT"),
        " pair": Layer("DEQUANTIZE", half),
        " quantized": Layer("CONVOLUTION", Tensor("of DEQUANTIZE", "float32"), half),
    }
    trt = types.SimpleNamespace(BuilderFlag=Names(), LayerType=Names(), float32="float32", float16="float16")
    network = types.SimpleNamespace(num_layers=len(layers), get_layer=list(layers.values()).__getitem__)
    config = Names()
    builder._set_types(trt, network, config, "int8")
    assert config.flags == ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    assert [layer.precision for layer in layers.values()] == [name.partition(" ")[0] for name in layers]


def test_loggers_outlive_what_uses_them() -> None:
    trt = types.SimpleNamespace(ILogger=type("ILogger", (), {}))
    kept = weakref.ref(builder.logger(trt))
    gc.collect()
    assert kept() is not None


@dataclass
class ParserError:
    """What the parsers of 8.6 (no names) and later say."""

    text: str

    def node(self) -> int:
        return 7

    def desc(self) -> str:
        return self.text


class NamedParserError(ParserError):
    def node_name(self) -> str:
        return "/network.1/ArgMax"

    def node_operator(self) -> str:
        return "ArgMax"


def test_errors_of_the_parser_name_the_node() -> None:
    assert builder.describe_parser_error(ParserError("no\n importer")) == "node 7: no importer"
    assert builder.describe_parser_error(NamedParserError("bad")) == "ArgMax /network.1/ArgMax: bad"


def test_precisions_that_a_graph_is_not_of() -> None:
    graph = engine_cases.small("coc")
    check_types(graph, "fp32")
    for precision, said in (("fp16", "convert it first"), ("int8", "quantize it first"), ("bf16", "got 'bf16'")):
        with pytest.raises(EngineError, match=said):
            check_types(graph, precision)


def test_batches() -> None:
    assert parse_batch("8") == (8, None)
    assert parse_batch("1:8:64") == (8, (1, 8, 64))
    for text in ("8:1:64", "0:1:2", "1:2", "a", "1:2:3:4", ""):
        with pytest.raises(EngineError, match="wanted a number of images such as 8"):
            parse_batch(text)
    with pytest.raises(EngineError, match="workspace must be from 1"):
        Settings(workspace=0)


def test_the_timing_cache_is_of_one_release_and_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert timing_cache.read("11.4", "NVIDIA H100 80GB/../x") == b""
    timing_cache.write("11.4", "NVIDIA H100 80GB/../x", b"timings")
    assert timing_cache.read("11.4", "NVIDIA H100 80GB/../x") == b"timings"
    assert timing_cache.read("11.5", "NVIDIA H100 80GB/../x") == b""
    assert [path.name for path in (tmp_path / "cluinfer").iterdir()] == ["tensorrt-11.4-NVIDIA-H100-80GB-..-x.timing"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cluinfer" / "tensorrt-11.4-NVIDIA-H100-80GB-..-x.timing"))
    timing_cache.write("11.4", "A10", b"a folder that cannot be made is as good as none")
    assert timing_cache.read("11.4", "A10") == b""


PORTS = [Port("image", np.dtype(np.float32), (-1, 3, 4, 5))]


@dataclass
class OnGpu:
    shape: tuple[int, ...] = (2, 3, 4, 5)
    typestr: str = "<f4"
    strides: tuple[int, ...] | None = None
    pointer: int = 4096
    mask: object = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        held = {"shape": self.shape, "typestr": self.typestr, "strides": self.strides}
        return {**held, "data": (self.pointer, False), "version": 3, "mask": self.mask}


def test_arrays_that_lie_on_the_gpu() -> None:
    assert PORTS[0].bytes(2) == 480
    assert check_gpu_arrays({"image": OnGpu()}, PORTS) == ({"image": 4096}, 2)
    assert check_gpu_arrays({"image": OnGpu(strides=(240, 80, 20, 4))}, PORTS) == ({"image": 4096}, 2)
    one = OnGpu(shape=(1, 3, 4, 5), strides=(7, 80, 20, 4))  # a side of one steps nowhere
    assert check_gpu_arrays({"image": one}, PORTS) == ({"image": 4096}, 1)
    said = [{"version": 2}, {"version": 3}, {"version": 3, "stream": None}, {"version": 3, "stream": 2}, {}]
    assert [stream_of(each) for each in said] == [1, 0, 0, 2, 1]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"image": np.zeros((2, 3, 4, 5), np.float32)}, "must be an array on the GPU, got ndarray"),
        ({"image": OnGpu(shape=(2, 3, 5, 4))}, r"must be float32 \[\?, 3, 4, 5\], got float32 \[2, 3, 5, 4\]"),
        ({"image": OnGpu(shape=())}, "must be float32"),
        ({"image": OnGpu(typestr="<f2")}, r"got float16 \[2, 3, 4, 5\]"),
        ({"image": OnGpu(strides=(4, 80, 20, 240))}, "C-contiguous"),
        ({"image": OnGpu(shape=(0, 3, 4, 5))}, "different batches, or none"),
        ({"image": OnGpu(pointer=0)}, "at address 0"),
        ({"image": OnGpu(mask=OnGpu())}, "has a mask"),
        ({"picture": OnGpu()}, r"inputs \['image'\] are wanted, got \['picture'\]"),
    ],
)
def test_arrays_that_do_not_fit(given: dict[str, OnGpu | Array], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        check_gpu_arrays(given, PORTS)


# What our variables are in TensorRT's bindings, and the names that only releases before 11 have.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "context": "IExecutionContext",
    "tensor": "ITensor",
}
BEFORE_11 = {
    *("BuilderFlag.FP16", "BuilderFlag.INT8", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "ILayer.precision"),
    *("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "PreviewFeature.PROFILE_SHARING_0806"),
}
RESOLVE = """
import json, sys
import tensorrt as trt, tensorrt.plugin
missing = []
for name in json.loads(sys.argv[1]):
    held = trt
    for part in name.split("."):
        held = getattr(held, part, None)
    if held is None:
        missing.append(name)
print(json.dumps(missing))
"""


def names_used() -> set[str]:
    """Every name of TensorRT's in the engine's sources: `trt.X.Y`, `trtp.X`, and members of what CLASSES lists."""
    used: set[str] = set()
    for path in [SOURCES / "tensorrt.py", *(SOURCES / "trt").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = {"flags": "NetworkDefinitionCreationFlag", "kinds": "LayerType"} if path.stem == "builder" else {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "tensorrt.plugin":
                used |= {f"plugin.{each.name}" for each in node.names}
            if not isinstance(node, ast.Attribute):
                continue
            parts = ast.unparse(node).split(".")
            if parts[0] == "self" and len(parts) > 2:
                parts = parts[1:]
            if not all(part.isidentifier() for part in parts) or parts[-1].startswith("__"):
                continue
            if parts[0] in ("trt", "trtp"):
                used.add(".".join((["plugin"] if parts[0] == "trtp" else []) + parts[1:]))
            elif (path.stem, parts[0]) == ("tensorrt", "builder"):
                pass  # a module of ours
            elif parts[0] in {**CLASSES, **aliases} and path.stem in ("builder", "session", "tensorrt"):
                used.add(f"{ {**CLASSES, **aliases}[parts[0]] }.{parts[1]}")
    return used


def test_every_name_of_tensorrt_is_in_the_real_bindings(tmp_path: Path) -> None:
    used = names_used()
    expected = {"Builder", "IBuilderConfig.create_timing_cache", "OnnxParser.parse", "ICudaEngine.num_io_tensors"}
    expected |= {"IExecutionContext.execute_async_v3", "plugin.KernelLaunchParams", "EngineInspector"}
    assert len(used) > 60
    assert {name for name in expected if "." in name} <= used
    missing = run_with_bindings(make_importable(tmp_path), RESOLVE, json.dumps(sorted(used)))
    assert set(missing) == BEFORE_11


def test_every_name_of_the_driver_is_in_cuda_bindings() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    tree = ast.parse((SOURCES / "trt" / "gpu.py").read_text(encoding="utf-8"))
    names = {
        parts[-2:] if len(parts) > 2 and parts[-2].startswith("CU") else parts[-1:]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (parts := tuple(ast.unparse(node).replace("()", "").split(".")))
        if any(part.startswith(("cu", "CU")) for part in parts[-1:])
    } - {("cuda",)}
    assert ("cuGraphLaunch",) in names
    assert len(names) > 25
    kinds = {"kinds": "CUdevice_attribute"}
    for parts in names:
        held: Any = driver
        for part in parts:
            if part.startswith("CU_DEVICE_ATTRIBUTE"):
                held = getattr(driver, kinds["kinds"])
            held = getattr(held, part)


def test_what_was_compiled_elsewhere_is_compiled_alike() -> None:
    engine, options = get_engine("trt"), Options(batch=2)
    changed = {"profile": [1, 2, 8], "plugins": False, "hardware_compatible": True}
    head = blob.seal("trt", {**HEAD, **changed}, b"")
    assert engine.as_compiled(head, options).own == Settings((1, 2, 8), False, hardware_compatible=True)
    older = blob.seal("trt", {**HEAD, **changed, "tensorrt": "8.6.1"}, b"")  # which has no plugins to be asked for
    own = engine.as_compiled(older, options).own
    assert isinstance(own, Settings) and own.plugins is None
    for strange in (b"", b"x", blob.seal("trt", {**HEAD, "profile": [1, 1, 1 << 30]}, b"")):
        assert engine.as_compiled(strange, options) == options
    with pytest.raises(EngineError, match="no right profile"):
        engine.load(strange, Options())


@dataclass
class Tensor86:
    name: str
    dtype: str


class Layer86:
    """What TensorRT 8.6 shows of a layer."""

    def __init__(self, kind: str, inputs: list[Tensor86 | None], output: str) -> None:
        self.type, self.inputs, self.output = kind, inputs, Tensor86(output, "float32")
        self.num_inputs, self.precision = len(inputs), ""

    def get_input(self, number: int) -> Tensor86 | None:
        return self.inputs[number]

    def get_output(self, number: int) -> Tensor86:
        return self.output


def test_before_10_layers_are_held_to_their_types_but_not_those_of_int8() -> None:
    class Names:
        def __getattr__(self, name: str) -> str:
            return name

    trt = types.SimpleNamespace(LayerType=Names(), BuilderFlag=Names(), float32="float32", float16="float16")
    single, half = Tensor86("x", "float32"), Tensor86("h", "float16")
    pair = Layer86("DEQUANTIZE", [Tensor86("q", "int8")], "back")
    layers = [
        *(pair, Layer86("CONVOLUTION", [pair.output, None], "a"), Layer86("ELEMENTWISE", [single, pair.output], "b")),
        *(
            Layer86("CONVOLUTION", [half], "c"),
            Layer86("MATRIX_MULTIPLY", [single], "d"),
            Layer86("SHAPE", [half], "e"),
        ),
    ]
    flags: list[str] = []
    network = types.SimpleNamespace(num_layers=len(layers), get_layer=lambda number: layers[number])
    builder._set_types(trt, network, types.SimpleNamespace(set_flag=flags.append), "int8")
    assert flags == ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    assert [layer.precision for layer in layers] == ["", "", "", "float16", "float32", ""]
