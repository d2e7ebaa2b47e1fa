"""Whole networks in PyTorch and TensorRT 8.6: the same network, and results that can be put beside each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks import networks, scenes, tensorrt86  # noqa: E402
from cluinfer.export.source import read_model  # noqa: E402

FEC = scenes.EXAMPLES / "checkpoints" / "fec.pt"

LOG = """machine NVIDIA Something
date 2026-11-24T00:00:00Z
fec.fp16.onnx batch 1
built in 12.0 s, 3.1 MiB
clusters/network.1: 0.99500 equal
logits: max error 1.00e-02 of its deviation
GPU time, 900 runs: median 0.500 ms, p90 0.600, p99 0.700
fec.int8.onnx batch 1
build failed
"""


def test_the_published_formulation_of_a_checkpoint_gives_its_logits() -> None:
    model, side = networks.load(FEC)
    images = torch.from_numpy(scenes.images(1, side, scenes.HELD_BACK)[0])
    with torch.inference_mode():
        torch.testing.assert_close(model(images), read_model(FEC).eval()(images), atol=1e-3, rtol=1e-3)


def test_results_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)  # minutes on a CPU, and not what is tested
    monkeypatch.setattr(networks, "LEAST", 2)
    ours, theirs = networks.measure([FEC], [1], "cpu", seconds=0.0), tensorrt86.read_log(LOG)
    assert [(row["engine"], row["precision"]) for row in ours["networks"]] == [
        ("eager", "fp32"),
        ("torch.compile", "fp32"),
        ("eager", "fp16"),
        ("torch.compile", "fp16"),
    ]
    assert set(ours["networks"][0]["equal"].values()) == {1.0}
    (row,) = theirs["networks"]  # what failed has none
    assert row.keys() == ours["networks"][0].keys() and row["equal"].keys() < ours["networks"][0]["equal"].keys()
    assert (row["batch"], row["runs"], row["median_ms"], row["p99_ms"]) == (1, 900, 0.5, 0.7)
    paths = [tmp_path / "torch.json", tmp_path / "tensorrt.json"]
    for path, result in zip(paths, (ours, theirs), strict=True):
        path.write_text(json.dumps(result))
    lines = networks.beside(paths).splitlines()
    assert len(lines) == 2 + 1 + 5 and lines[-1].split()[2:5] == ["TensorRT", "8.6", "fp16"]


def test_the_script_finds_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever it is started: run_onnx.py lies beside run86."""
    monkeypatch.setattr(tensorrt86, "read_source", lambda path: None)
    monkeypatch.setattr(tensorrt86, "write_cases", lambda *given: None)
    monkeypatch.setattr(tensorrt86, "graphs", lambda *given: [("fp16", b"graph")])
    monkeypatch.setattr(sys, "argv", ["tensorrt86", str(tmp_path / "out"), "fec.pt", "--batches", "8"])
    tensorrt86.main()
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "run_onnx.py").write_text("print('run_onnx')")
    (staged / "run86").write_text('#!/bin/sh\ntest -f "$1" && test -f "$2" && shift 2 && echo "ran $@"\n')
    (staged / "run86").chmod(0o755)
    command = ["sh", str(tmp_path / "out" / "run.sh"), "staged/run86"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    npz = tmp_path / "out" / "fec.8.npz"
    assert said.splitlines()[-2:] == ["fec.fp16.onnx batch 8", f"ran --precision fp16 --npz {npz}"]
