"""Plugin-protocol conformance: our plugins, called by NVIDIA's Python code as TensorRT would call them.

Shown here: what we declare is what the real bindings accept; shapes, types, grids and kernels are right. Not shown:
that TensorRT builds an engine of it, which needs a GPU.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from real_tensorrt import make_importable, run_with_bindings

from cluinfer.engines.trt.graph import Call
from cluinfer.native.cuda import Shape
from cluinfer.native.cuda.nvrtc import compile_ptx

pytest.importorskip("cuda.bindings")

SCRIPT = Path(__file__).parents[3] / "tensorrt_protocol.py"
D, N, M = 5, 70, 9
POINTS, CENTERS, ROW = [None, D, N], [None, D, M], [None, N]
ATTRIBUTES = {"alpha": 2.5, "beta": -0.25, "sigmoid": 0}
HALF, SINGLE = "float16", "float32"


def node(name: str, shapes: list[Any], kinds: list[str], attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "shapes": shapes, "kinds": kinds, "attributes": attributes or {}}


NODES = {
    "assign": node("ClusterAssign", [POINTS, CENTERS], [SINGLE] * 2, ATTRIBUTES),
    "assign half": node("ClusterAssign", [POINTS, CENTERS], [HALF] * 2, ATTRIBUTES),
    "scatter": node("ClusterScatter", [POINTS, ROW, CENTERS], [SINGLE, "int32", SINGLE]),
    "scatter weighted": node("ClusterScatterWeighted", [POINTS, ROW, CENTERS, ROW], [HALF, "int32", HALF, HALF]),
    "gather": node("ClusterGather", [CENTERS, ROW], [HALF, "int32"]),
    "gather weighted": node("ClusterGatherWeighted", [CENTERS, ROW, ROW], [SINGLE, "int32", SINGLE]),
    "told by the profile": node("ClusterGather", [[None, "5", M], [None, "70"]], [HALF, "int32"]),
    "points not constant": node("ClusterAssign", [[None, D, None], CENTERS], [SINGLE] * 2, ATTRIBUTES),
    "too many channels": node("ClusterAssign", [[None, 2000, N], [None, 2000, M]], [SINGLE] * 2, ATTRIBUTES),
}
SHAPE = Shape(D, N, M)
CALLS = {
    "assign": Call("ClusterAssign", SHAPE, False, False, 2.5, -0.25, False),
    "assign half": Call("ClusterAssign", SHAPE, True, False, 2.5, -0.25, False),
    "scatter": Call("ClusterScatter", SHAPE, False),
    "scatter weighted": Call("ClusterScatter", SHAPE, True, True),
    "gather": Call("ClusterGather", SHAPE, True),
    "gather weighted": Call("ClusterGather", SHAPE, False, True),
}
OUTPUTS = {
    "assign": (["INT32", "FLOAT"], [["G", "70"], ["G", "70"]]),
    "assign half": (["INT32", "HALF"], [["G", "70"], ["G", "70"]]),
    "scatter": (["FLOAT"], [["G", "5", "9"]]),
    "scatter weighted": (["HALF"], [["G", "5", "9"]]),
    "gather": (["HALF"], [["G", "5", "70"]]),
    "gather weighted": (["FLOAT"], [["G", "5", "70"]]),
}


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_importable(tmp_path_factory.mktemp("bindings"))


def source_hash(call: Call) -> str:
    return hashlib.sha256(call.kernel().source.encode()).hexdigest()


@pytest.fixture(scope="module")
def protocol(bindings: Path) -> dict[str, Any]:
    """What came of every node; one kernel is at hand, the others are compiled."""
    asked = {"target": "sm_90", "kernels": {source_hash(CALLS["gather"]): "at hand"}, "nodes": list(NODES.values())}
    said = run_with_bindings(bindings, SCRIPT, json.dumps(asked))
    return {**said, "made": dict(zip(NODES, said["made"], strict=True))}


def test_what_is_registered(protocol: dict[str, Any]) -> None:
    assert protocol["creators"] == sorted({call.plugin for call in CALLS.values()})
    assert protocol["made"]["assign"]["declared"].keys() == ATTRIBUTES.keys()


@pytest.mark.parametrize("name", CALLS)
def test_types_and_shapes(protocol: dict[str, Any], name: str) -> None:
    made, kinds = protocol["made"][name], NODES[name]["kinds"]
    assert (made["outputs"], made["shapes"]) == OUTPUTS[name]
    ports = [*kinds, *("int32" if kind == "INT32" else SINGLE for kind in OUTPUTS[name][0])]
    assert made["combinations"] == [
        ["INT32" if port == "int32" else kind for port in ports] for kind in ("FLOAT", "HALF")
    ]
    assert made["tactics"] == []


@pytest.mark.parametrize("name", CALLS)
def test_kernels_and_their_grids(protocol: dict[str, Any], name: str) -> None:
    made, kernel = protocol["made"][name], CALLS[name].kernel()
    assert made["entry"] == kernel.entry
    assert made["extras"] == 0
    assert made["launch"].pop("grid_x") == f"G * {kernel.blocks}"
    assert made["launch"].pop("block_x") == str(kernel.threads)
    assert made["launch"].pop("shared_mem") == "0"
    assert set(made["launch"].values()) == {"1"}
    ptx = b"at hand" if name == "gather" else compile_ptx(kernel, "sm_90")
    assert made["ptx"] == hashlib.sha256(ptx).hexdigest()
    assert source_hash(CALLS[name]) in protocol["used"]


def test_sides_that_only_the_profile_tells(protocol: dict[str, Any]) -> None:
    made, kernel = protocol["made"]["told by the profile"], CALLS["gather"].kernel()
    assert (made["entry"], made["launch"]["grid_x"]) == (kernel.entry, f"G * {kernel.blocks}")
    assert made["ptx"] == hashlib.sha256(b"at hand").hexdigest()


@pytest.mark.parametrize(
    "name, said",
    [("points not constant", "points or centres that are no constants"), ("too many channels", "takes up to 1024")],
)
def test_what_has_no_kernel_is_remembered(protocol: dict[str, Any], name: str, said: str) -> None:
    assert said in protocol["made"][name]["error"]
    assert protocol["made"][name]["remembered"]
