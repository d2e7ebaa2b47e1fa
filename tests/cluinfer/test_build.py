"""From a checkpoint to an artifact: what is written, what is said of it, what is refused before anything is done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BuiltModel

from cluinfer import build as module
from cluinfer.artifact import read_artifact
from cluinfer.build import Tried, build
from cluinfer.build_graphs import Made, make_graph
from cluinfer.cli import main
from cluinfer.errors import EngineError, GraphError
from cluinfer.fidelity import Fidelity, compare
from cluinfer.timing import statistics


def test_what_is_written(built_model: BuiltModel) -> None:
    manifest = read_artifact(built_model.artifact).manifest
    built, promise, fidelity = manifest.built, manifest.promise, manifest.fidelity
    assert (built.engine, built.precision, built.hint, built.batch) == ("openvino", "fp32", "latency", 1)
    assert built.machine["system"]
    assert {"cluinfer", "openvino", "numpy", "python"} <= built.versions.keys()
    assert (promise.size, promise.names, promise.evidence) == ((32, 32), ("cat", "dog", "horse"), 2)
    assert fidelity is not None
    assert (fidelity["reference"], fidelity["pictures"]) == ("model.pt in PyTorch", "3 of 4 pictures")
    assert (fidelity["images"], fidelity["top1_same"], fidelity["threads"]) == (3, 3, 1)
    assert fidelity["overall"]["flips"] == 0
    assert 0 < fidelity["latency_ms"]["min"] <= fidelity["latency_ms"]["median"] <= fidelity["latency_ms"]["p99"]


def test_what_is_said(built_model: BuiltModel) -> None:
    folder, lines = built_model.folder, built_model.out.splitlines()
    assert re.fullmatch(rf"wrote      {re.escape(str(folder))}/model\.clu, 0\.\d MB", lines[0])
    assert lines[1:8] == [
        "model      coc_custom, 3 classes, named",
        "pictures   32x32, bicubic, the middle 90 %",
        "maps       stage1, stage2",
        "evidence   for the 2 likeliest classes",
        "engine     openvino (trt: no NVIDIA GPU with a driver here; openvino works here)",
        "precision  fp32 (as asked for)",
        "built for  batch 1, latency",
    ]
    assert re.fullmatch(r"latency    median [\d.]+ ms, p95 [\d.]+, of \d+ runs after warming up, 1 thread", lines[8])
    assert re.fullmatch(
        r"fidelity   likeliest class the same for 3 of 3; [\d.]+ % of the points in the same cluster; "
        r"logits off by at most \S+ of their deviation",
        lines[9],
    )
    assert lines[10:] == ["           against model.pt in PyTorch, on 3 of 4 pictures"]


def test_every_step_is_shown(built_model: BuiltModel) -> None:
    steps = [line.removesuffix(" ...") for line in built_model.err.splitlines() if line.endswith(" ...")]
    assert steps == [
        f"reading {built_model.checkpoint}",
        "tracing coc_custom at 32x32",
        "translating to ONNX",
        "optimizing the graph",
        "checking the graph",
        "compiling for openvino in fp32",
        "measuring the latency",
        "comparing fp32 with model.pt in PyTorch on 3 of 4 pictures",
        f"writing {built_model.artifact}",
    ]
    warnings = [line for line in built_model.err.splitlines() if line.startswith("cluinfer: warning: ")]
    damaged = built_model.pictures / "damaged.png"
    assert warnings[-1] == (
        f"cluinfer: warning: {damaged}: wanted a picture, found a file of no format that Pillow reads; left out"
    )
    assert len(warnings) == 2  # the other is what the checkpoint's shapes do not tell


def test_a_graph_is_its_own_reference(
    built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "graph.clu"
    command = ["build", str(built_model.graph), "-o", str(target), "--precision", "auto", "--batch", "2"]
    assert main([*command, "--hint", "throughput", "--engine", "openvino", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["path"], held["bytes"], held["arch"]) == (str(target), target.stat().st_size, "coc_custom")
    assert (held["reference"], held["images"]) == (
        "the graph of model.onnx in ONNX Runtime",
        "16 images of smooth noise",
    )
    assert (held["batch"], held["hint"], held["why"], held["threads"]) == (2, "throughput", "as asked for", None)
    assert [each["precision"] for each in held["tried"]] == ["fp32", "bf16", "int8"]
    wanted = "int8 needs pictures like those that the model will see: give them with --calibration DIR"
    assert held["tried"][2]["reason"] == f"not tried: {wanted}"
    assert held["tried"][0]["fidelity"]["top1_same"] == 16
    (taken,) = [each for each in held["tried"] if not each["reason"]]
    assert taken["precision"] == held["precision"] == read_artifact(target).manifest.built.precision
    assert read_artifact(target).graph() == built_model.graph.read_bytes()


def test_on_onnx_runtime(built_model: BuiltModel, tmp_path: Path) -> None:
    summary = build(built_model.graph, tmp_path / "ort.clu", engine="ort", threads=1)
    assert read_artifact(tmp_path / "ort.clu").manifest.built.engine == summary.built.engine == "ort"
    assert summary.failures == ()
    assert summary.taken.fidelity is not None
    assert summary.taken.fidelity.overall.agreement == 1


def test_many_pictures_are_sampled_evenly(built_model: BuiltModel, monkeypatch: pytest.MonkeyPatch) -> None:
    promise = read_artifact(built_model.artifact).manifest.promise
    monkeypatch.setattr(module, "PICTURES", 3)
    pictures = [np.full((8, 8, 3), level, np.uint8) for level in range(0, 250, 25)]
    images, what = module._images(promise, pictures)
    assert what == "3 of 10 pictures"
    means = images.mean((1, 2, 3))
    kept = module._images(promise, [pictures[0], pictures[3], pictures[6]])[0].mean((1, 2, 3))
    np.testing.assert_array_equal(means, kept)


def test_without_pictures_those_that_calibration_holds_back_are_compared(built_model: BuiltModel) -> None:
    promise = read_artifact(built_model.artifact).manifest.promise
    images = np.random.default_rng(0).standard_normal((10, 3, *promise.size), dtype=np.float32)
    compared, what = module._images(promise, [], [images])
    assert what == "2 images held back from the calibration"
    assert all((images == each).all((1, 2, 3)).any() for each in compared)
    compared, what = module._images(promise, [], [images[:3]])
    assert (len(compared), what) == (3, "3 images of the calibration")
    unusable = np.full_like(images, np.nan)
    assert module._images(promise, [], [unusable])[1] == "16 images of smooth noise"


# --- which precision is taken


def tried(precision: str, milliseconds: float, top1: int = 10, moved: int = 0) -> Tried:
    """Ten images of 100 points, with logits; in `10 - top1` of them another class, and so many points moved."""
    logits = np.eye(10, dtype=np.float32)
    other = logits.copy()
    other[: 10 - top1] = np.roll(logits[: 10 - top1], 1, axis=1)
    ids = np.zeros((10, 1, 10, 10), np.int32)
    shifted = ids.copy()
    shifted.reshape(-1)[:moved] = 1
    fidelity = compare({"logits": logits, "clusters/a": ids}, {"logits": other, "clusters/a": shifted})
    return Tried(precision, statistics([milliseconds / 1e3]), fidelity)


@pytest.mark.parametrize(
    ("given", "taken", "reasons"),
    [
        ([tried("fp32", 2), tried("bf16", 1)], "bf16", ["slower than bf16", ""]),
        ([tried("fp32", 1), tried("bf16", 2)], "fp32", ["", "slower than fp32"]),
        ([tried("fp32", 1), tried("bf16", 0.96)], "fp32", ["", "less than 5 % faster than fp32"]),
        (
            [tried("fp32", 2), tried("bf16", 1, top1=9)],
            "fp32",
            ["", "the likeliest class is the same for only 9 of 10"],
        ),
        ([tried("fp32", 2), tried("bf16", 1, moved=20)], "bf16", ["slower than bf16", ""]),
        (
            [tried("fp32", 2), tried("bf16", 1, moved=21), tried("fp16", 1.5)],
            "fp16",
            ["slower than fp16", "only 97.9 % of the points are in the same cluster", ""],
        ),
        ([tried("fp32", 2, top1=5), Tried("bf16", reason="not on this CPU")], "fp32", ["", "not on this CPU"]),
    ],
)
def test_the_fastest_that_keeps_what_the_model_sees(given: list[Tried], taken: str, reasons: list[str]) -> None:
    rows, chosen = module._choose(given)
    assert chosen.precision == taken
    assert [each.reason for each in rows] == reasons
    assert chosen in rows


def test_what_cannot_be_judged_is_not_taken() -> None:
    blind = Fidelity(10, None, {}, {}, {})
    bf16 = Tried("bf16", statistics([0.001]), blind)
    rows, chosen = module._choose([Tried("fp32", statistics([0.002]), blind), bf16])
    assert chosen.precision == "fp32"
    assert rows[1].reason == "the graph gives neither logits nor maps to judge it by"


def test_what_is_worse_than_it_should_be_is_said() -> None:
    assert module._failures(tried("bf16", 1, top1=9)) == ("the likeliest class is the same for only 9 of 10",)
    assert module._failures(tried("bf16", 1, moved=10)) == ()
    (failure,) = module._failures(tried("fp32", 1, moved=10))
    assert failure == "clusters/a: only 99 % of the points agree, wanted 99.8 %"


def test_an_artifact_is_built_again_for_another_engine(built_model: BuiltModel, tmp_path: Path) -> None:
    target = tmp_path / "other.clu"
    assert main(["build", str(built_model.artifact), "-o", str(target), "--engine", "ort"]) == 0
    before, after = read_artifact(built_model.artifact), read_artifact(target)
    assert (after.manifest.built.engine, after.manifest.promise) == ("ort", before.manifest.promise)


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.pt"], "gone.pt: wanted a checkpoint file, found nothing"),
        (["."], ".: wanted a checkpoint file, found a folder"),
        (["model.pt", "-o", "model.pt"], "-o model.pt: wanted the name of a file to write, but this is what is read"),
        (
            ["model.pt", "-o", "gone/a.clu"],
            "-o gone/a.clu: wanted the name of a file to write, but its folder does not exist",
        ),
        (["model.pt", "-o", "model.onnx"], "-o model.onnx: wanted a name ending in .clu"),
        (["model.pt", "--engine", "trt"], "no NVIDIA GPU with a driver here"),
        (["model.pt", "--engine", "tvm"], "there is no engine 'tvm'; there are: auto, trt, openvino, ort"),
        (["model.pt", "--precision", "fp8"], "there is no precision 'fp8'; there are: fp32, bf16, fp16, int8, auto"),
        (
            ["model.pt", "--precision", "int8"],
            "int8 needs pictures like those that the model will see: give them with --calibration DIR",
        ),
        (["model.onnx", "--precision", "int8"], "int8 needs pictures like those that the model will see: give them"),
        (["model.pt", "--calibration", "pictures"], "calibration is for --precision int8 or auto, got fp32"),
        (["model.pt", "--min-agreement", "0.9"], "calibration is for --precision int8 or auto, got fp32"),
        (
            ["model.pt", "--precision", "int8", "--calibration", "gone"],
            "gone: wanted pictures, or a .npy or .npz file, to calibrate on, found nothing",
        ),
        (
            ["model.pt", "--precision", "int8", "--calibration", "pictures", "--min-agreement", "98"],
            "min agreement 98.0: wanted a share from 0 to 1",
        ),
        (
            ["model.pt", "--precision", "auto", "--max-top1-drop", "0.1"],
            "no calibration images: wanted a folder of pictures, or a .npy or .npz file",
        ),
        (["model.pt", "--batch", "0"], "batch must be a positive number, got 0"),
        (["model.pt", "--pictures", "gone/*.png"], "gone/*.png: no file has such a name"),
        (["model.pt", "--pictures", "gone"], "--pictures gone: wanted a picture or a folder of them, found nothing"),
        (["model.onnx", "--size", "32"], "model.onnx: a graph already; what it shows was chosen when it was exported"),
        (["model.onnx", "--maps", "all"], "model.onnx: a graph already; what it shows was chosen when it was exported"),
        (["model.onnx", "--precision", "fp16"], "the OpenVINO engine has precisions fp32, bf16, int8, got 'fp16'"),
    ],
)
def test_what_cannot_be_built(
    built_model: BuiltModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    for name in ("model.pt", "model.onnx", "pictures"):
        (tmp_path / name).symlink_to(built_model.folder / name)
    monkeypatch.chdir(tmp_path)
    before = built_model.checkpoint.read_bytes()
    assert main(["build", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"cluinfer: error: {message}" in printed.err
    assert built_model.checkpoint.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt", "pictures"]


def test_a_precision_that_the_machine_lacks_is_left_out_of_auto_alone(
    built_model: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluinfer.engines import openvino

    monkeypatch.setattr(openvino, "_computes_bf16", lambda: False)
    summary = build(built_model.graph, tmp_path / "auto.clu", precision="auto", engine="openvino", threads=1)
    assert summary.built.precision == "fp32"
    message = "this CPU does not compute in bf16, which would be slower than fp32: choose fp32"
    assert [each.reason for each in summary.tried][1] == message
    with pytest.raises(EngineError) as error:
        build(built_model.graph, tmp_path / "bf16.clu", precision="bf16", engine="openvino")
    assert str(error.value) == message
    assert [path.name for path in tmp_path.iterdir()] == ["auto.clu"]


def test_a_precision_whose_graph_an_engine_cannot_take_is_left_out_of_auto_alone(
    built_model: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes TensorRT and a GPU; here, the rules speak up where they would not."""

    def checked(precision: str, *rest: Any) -> Made:
        if precision == "bf16":
            raise GraphError("a rule of TensorRT is broken")
        return make_graph(precision, *rest)

    monkeypatch.setattr(module, "make_graph", checked)
    summary = build(built_model.graph, tmp_path / "auto.clu", precision="auto", engine="openvino", threads=1)
    assert [each.reason for each in summary.tried][1] == "a rule of TensorRT is broken"


# --- what ends early


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process could handle")
def test_a_build_that_is_terminated_leaves_nothing(built_model: BuiltModel, tmp_path: Path) -> None:
    output, temporary = tmp_path / "output", tmp_path / "temporary"
    output.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-m", "cluinfer", "build", str(built_model.graph), "-o", str(output / "model.clu")]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("compiling"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert (process.returncode, list(output.iterdir())) == (143, [])
    assert [path.name for path in temporary.iterdir() if "cluinfer" in path.name] == []  # ONNX Runtime leaves .ses
    assert "Traceback" not in rest


def test_a_build_that_is_interrupted_leaves_what_was_there(
    built_model: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "model.clu").write_bytes(b"the last one")
    monkeypatch.setattr(module, "write_artifact", interrupt)
    assert main(["build", str(built_model.graph), "-o", str(tmp_path / "model.clu"), "--engine", "ort"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["model.clu"]
    assert (tmp_path / "model.clu").read_bytes() == b"the last one"
    assert capsys.readouterr().out == ""
