"""`cluinfer calibrate`, and `cluinfer build` in int8: what is written and said, resumed, refused."""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from pathlib import Path

import calibration_cases as cases
import engine_cases
import numpy as np
import onnx
import pytest
from PIL import Image

from cluinfer import Runtime
from cluinfer.artifact import read_artifact
from cluinfer.calibration import trt_rules
from cluinfer.cli import main
from cluinfer.engines import Options, get_engine
from cluinfer.errors import EngineError
from cluinfer.timing import Plan

observe = importlib.import_module("cluinfer.calibration.observe")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With model.onnx, images.npy and pictures/."""
    (tmp_path / "model.onnx").write_bytes(engine_cases.small("fec"))
    np.save(tmp_path / "images.npy", cases.images())
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "pictures" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    short = Plan(warm_up=0.01, seconds=0.2, runs=5)
    monkeypatch.setattr(importlib.import_module("cluinfer.build"), "LATENCY", short)
    monkeypatch.setattr(importlib.import_module("cluinfer.calibration.speed"), "PLAN", short)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only line of error."""
    assert main([*arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("cluinfer: error: ")]
    assert "Traceback" not in printed.err
    return line.removeprefix("cluinfer: error: ")


def test_what_is_written_and_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "model.onnx", "images.npy", "pictures", "--explain", "--float", "network.2.1.*"]) == 0
    out = capsys.readouterr().out
    assert trt_rules.check(onnx.load("model.int8.onnx")) == []
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "model.int8.onnx", "model.onnx", "pictures"]
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert rows["network.0.0.mlp.fc1"].split()[1:4:2] == ["dense", "int8"]
    assert rows["network.2.1.mlp.fc1"].endswith("as asked for")
    assert rows["head"].endswith("gives the logits; hardly any work")
    assert rows["clustering"].startswith("clustering")
    assert rows["clustering"].endswith("near ties  worst head")
    assert "calibrated on 29 images" in rows["int8"]
    assert rows["keeps"].endswith("7 images held back")


def test_as_json_with_a_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["calibrate", "model.onnx", "images.npy", "-o", "out.onnx", "--min-agreement", "0.9", "--json"]
    more = ["--max-top1-drop", "1", "--method", "minmax", "--count", "12", "--seed", "3", "--no-balance"]
    assert main([*command, *more, "--plot", "found.png", "--engine", "ort", "--threads", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["bytes"]) == ("out.onnx", (folder / "out.onnx").stat().st_size)
    assert (told["method"], told["seed"], told["balance"], told["calibrating"]) == ("minmax", 3, False, 12)
    assert told["search"]["min_agreement"] == 0.9
    assert told["search"]["verdict"].startswith("int8 is ")
    assert told["overall"]["agreement"] >= 0.9
    assert {each["layer"] for each in told["choices"]} >= {"head", "network.0.0.mlp.fc1"}
    with Image.open("found.png") as picture:
        assert picture.format == "PNG"


def test_fp16(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "model.onnx", "--precision", "fp16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "model.fp16.onnx"
    assert any(node.op_type == "Cast" for node in onnx.load("model.fp16.onnx").graph.node)
    message = refused(capsys, "calibrate", "model.onnx", "pictures", "--precision", "fp16")
    assert message == "fp16 wants no images: nothing is calibrated for it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "int8 wants images to calibrate on: cluinfer calibrate model.onnx FOLDER"),
        (["gone"], "gone: wanted pictures, or a .npy or .npz file, to calibrate on, found nothing"),
        (["images.npy", "--count", "0"], "0 calibration images: wanted one or more"),
        (["images.npy", "--seed", "-1"], "seed -1: wanted 0 or more"),
        (["images.npy", "--float", "gone"], "no layer is named 'gone'; there are: patch_embed.proj, "),
        (["images.npy", "--float", "*"], "no layer is left to run in int8; use the float32 graph as it is"),
        (["images.npy", "--min-agreement", "98"], "min agreement 98.0: wanted a share from 0 to 1"),
        (["images.npy", "--max-top1-drop", "nan"], "max top-1 drop nan: wanted a share from 0 to 1"),
        (["images.npy", "--plot", "a.png"], "--plot is for a search: give --min-agreement or --max-top1-drop"),
        (["images.npy", "--engine", "ort"], "--engine is for a search: give --min-agreement or --max-top1-drop"),
        (["images.npy", "--min-agreement", "0.9", "--engine", "tvm"], "there is no engine 'tvm'"),
        (["images.npy", "--min-agreement", "0.9", "--plot", "a.txt"], "a.txt: wanted a picture's name ending in .png"),
        (["images.npy", "--threads", "0"], "threads must be a positive number, got 0"),
        (["images.npy", "--method", "best"], "argument --method: invalid choice: 'best'"),
        (
            ["images.npy", "-o", "gone/a.onnx"],
            "-o gone/a.onnx: wanted the name of a file to write, but its folder does not exist",
        ),
        (
            ["images.npy", "-o", "model.onnx"],
            "-o model.onnx: wanted the name of a file to write, but this is what is read",
        ),
    ],
)
def test_what_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert refused(capsys, "calibrate", "model.onnx", *arguments).startswith(message)
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "model.onnx", "pictures"]


def test_folders_of_anything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be used is counted; no link, pipe or folder with such a name is followed for ever or opened."""
    pictures = folder / "pictures"
    (pictures / "loop").symlink_to(pictures)
    (pictures / "folder.npy").mkdir()
    os.mkfifo(pictures / "pipe.npy")
    (pictures / "damaged.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (8, 8), "blue").save(pictures / "blue.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 900, 3), np.uint8)).save(pictures / "wide.png")
    assert main(["calibrate", "model.onnx", "pictures", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["skipped"].startswith("2 of 9 calibration images were left out, the last: pictures/")
    assert "cluinfer: warning: 2 of 9 calibration images were left out" in printed.err


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npz(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", content)


@pytest.mark.parametrize("shape", ["(400000000, 3, 32, 48)", "(9223372036854775807, 3, 32, 48)", "(-1, 3, 32, 48)"])
def test_arrays_that_say_that_they_are_huge(folder: Path, capsys: pytest.CaptureFixture[str], shape: str) -> None:
    (folder / "bad.npy").write_bytes(header(shape) + b"\0" * 100)
    assert refused(capsys, "calibrate", "model.onnx", "bad.npy").startswith("bad.npy: not a .npy or .npz file with arr")
    npz(folder / "bad.npz", header(shape) + b"\0" * 100)
    assert refused(capsys, "calibrate", "model.onnx", "bad.npz").startswith("bad.npz: ")


def test_arrays_that_are_huge(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluinfer.calibration.data.MOST_BYTES", 1 << 20)
    npz(folder / "bomb.npz", header("(100, 3, 32, 48)") + bytes(100 * 4 * 3 * 32 * 48))
    message = refused(capsys, "calibrate", "model.onnx", "bomb.npz")
    assert message == "bomb.npz: images.npy is of 0.0 GB: save images as .npy instead"


def test_objects_are_not_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("objects.npz", images=np.array([{}]))
    message = refused(capsys, "calibrate", "model.onnx", "objects.npz")
    assert message == "objects.npz: images.npy holds Python objects, which are never loaded"


@pytest.mark.parametrize("engine", ["openvino", "ort"])
def test_an_artifact_in_int8(folder: Path, capsys: pytest.CaptureFixture[str], engine: str) -> None:
    pytest.importorskip("openvino")
    command = ["build", "model.onnx", "--precision", "int8", "--calibration", "images.npy", "--engine", engine]
    assert main([*command, "--threads", "1", "--explain", "-o", f"{engine}.clu"]) == 0
    out = capsys.readouterr().out
    assert "network.0.0.mlp.fc1" in out and "calibrated on 24 images" in out
    held = read_artifact(folder / f"{engine}.clu")
    assert held.manifest.built.precision == "int8"
    assert held.manifest.fidelity is not None
    told = held.manifest.fidelity["calibration"]
    assert (told["method"], told["calibrating"], told["measured_on"]) == ("error", 24, "6 images held back")
    assert 0.8 < told["overall"]["agreement"] <= 1
    with Runtime(folder / f"{engine}.clu") as runtime:
        prediction = runtime(folder / "pictures" / "0.png")
        assert np.isfinite(prediction.logits).all() and prediction.clusters


def test_bounds_and_auto(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", "model.onnx", "--engine", "ort", "--threads", "1", "--calibration", "images.npy", "--json"]
    assert main([*command, "--precision", "auto", "--min-agreement", "0.95", "--max-top1-drop", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["precision"] for each in told["tried"]] == ["fp32", "int8"]
    assert told["calibration"]["search"]["min_agreement"] == 0.95
    assert told["calibration"]["overall"]["agreement"] >= 0.95


def test_a_graph_that_was_calibrated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "int8.onnx").write_bytes(cases.default("fec").SerializeToString())
    common = ["build", "int8.onnx", "--engine", "ort", "--threads", "1"]
    assert main([*common, "--precision", "int8", "-o", "a.clu"]) == 0
    assert main([*common, "--precision", "auto", "-o", "b.clu"]) == 0
    assert [read_artifact(folder / name).manifest.built.precision for name in ("a.clu", "b.clu")] == ["int8"] * 2
    capsys.readouterr()
    assert refused(capsys, *common).startswith("the graph has int8 in it, fp32 was asked for: ask for int8")
    message = refused(capsys, "calibrate", "int8.onnx", "images.npy")
    assert message == "the graph holds int8 already; calibrate the float32 graph that it was made of"


def test_what_is_interrupted_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["build", "model.onnx", "--precision", "int8", "--calibration", "images.npy", "--engine", "ort"]
    calls, take = iter(range(100)), observe._with

    def interrupted(*given: object) -> object:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return take(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(observe, "_with", interrupted)
        assert main(command) == 130
    assert sorted(path.name for path in folder.iterdir() if "clu" in path.name) == ["model.clu.calibration"]
    capsys.readouterr()
    assert main(command) == 0
    assert "calibration goes on from image 7 of 24 ..." in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir() if "clu" in path.name) == ["model.clu"]
    made = onnx.load_model_from_string(read_artifact(folder / "model.clu").graph())
    assert made.SerializeToString(deterministic=True) == cases.default("fec").SerializeToString(deterministic=True)


def test_engines_want_what_the_graph_holds() -> None:
    engine = get_engine("ort")
    with pytest.raises(EngineError, match="int8 wants a graph with int8 in it, which cluinfer calibrate makes"):
        engine.compile(engine_cases.small("fec"), Options(precision="int8"))
