"""What a person is told of an artifact, and what a program is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import BuiltModel

from cluinfer.artifact import read_artifact, write_artifact
from cluinfer.cli import main


def test_for_a_person(built_model: BuiltModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(built_model.artifact)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [line[:10].strip() for line in lines[:14]] == [
        *("artifact", "model", "pictures", "maps", "evidence", "engine", "built", "with", "fidelity", ""),
        *("latency", "entries", "", ""),
    ]
    assert lines[5] == "engine    openvino, fp32, batch 1, latency"
    assert re.fullmatch(r"built     \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 on \S.*", lines[6])
    assert lines[9] == "          against model.pt in PyTorch, on 3 of 4 pictures"
    assert re.fullmatch(r"latency   median .* ms, p95 .*, of \d+ runs after warming up, 1 thread", lines[10])
    assert re.fullmatch(r"entries   graph\.onnx, 0\.\d MB, sha256 [0-9a-f]{16}\.\.\.", lines[11])
    assert lines[14:] == [
        "map     layer                    points  heads  centres a region  regions",
        "stage1  network.0.0.token_mixer     8x8      1               2x2      8x8",
        "stage2  network.2.0.token_mixer     4x4      1               2x2      4x4",
    ]


def test_for_a_program(built_model: BuiltModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(built_model.artifact), "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert list(held) == ["path", "bytes", "outputs", "schema", "promise", "built", "fidelity", "entries"]
    assert held["path"] == str(built_model.artifact)
    assert held["bytes"] == built_model.artifact.stat().st_size
    assert held["outputs"] == [
        "logits",
        "clusters/network.0.0.token_mixer",
        "clusters/network.2.0.token_mixer",
        "evidence",
        "evidence_classes",
    ]
    assert held["promise"]["names"] == ["cat", "dog", "horse"]
    assert held["built"]["precision"] == "fp32"
    assert held["fidelity"]["top1_same"] == 3
    assert held["entries"].keys() == {"graph.onnx", "engine.bin"}


@pytest.mark.parametrize(
    "fidelity",
    [None, {}, {"images": "all", "overall": 3, "numbers": [], "latency_ms": 1, "threads": "x", "reference": {}}],
)
def test_what_was_not_measured_is_not_told(
    built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], fidelity: dict[str, object] | None
) -> None:
    """The fidelity is any JSON, from anyone."""
    artifact = read_artifact(built_model.artifact)
    promise = replace(artifact.manifest.promise, maps=(), names=(), evidence=0, attention=2, classes=None, features=2)
    write_artifact(tmp_path / "bare.clu", artifact.graph(), None, promise, artifact.manifest.built, fidelity)
    assert main(["inspect", str(tmp_path / "bare.clu")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == [
        "model      coc_custom, a backbone",
        "pictures   32x32, bicubic, the middle 90 %",
        "maps       none",
        "attention  for 2 classes",
    ]
    assert lines[8] == "fidelity   not known"
    assert lines[9].startswith("entries    graph.onnx")
    assert len(lines) == 10


def test_what_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "gone.clu")]) == 2
    message = "wanted an artifact, which `cluinfer build` makes, found nothing"
    assert capsys.readouterr() == ("", f"cluinfer: error: {tmp_path / 'gone.clu'}: {message}\n")
