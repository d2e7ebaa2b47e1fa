"""What the CPU benchmark compares is what it says: same weights, no cluster operator left in the floor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("torch")

from benchmarks import contestants, cpu, models
from cluinfer.engines import Options
from cluinfer.engines import openvino as engine


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLUINFER_BENCHMARKS", str(tmp_path))
    return tmp_path


def test_turns_leave_out_the_first_run() -> None:
    calls: list[str] = []
    taken = cpu.take_turns({"a": lambda x: calls.append("a"), "b": lambda x: calls.append("b")}, cpu.image(1, 8), 2)
    assert [len(values) for values in taken.values()] == [2 * (cpu.TURN - 1)] * 2
    assert "".join(calls[6:]) == ("a" * cpu.TURN + "b" * cpu.TURN) * 2


def test_summary() -> None:
    row = cpu.summary([float(i) for i in range(101)])
    assert row == {"median": 50.0, "p90": 90.0, "p99": 99.0, "min": 0.0}


def test_ours_has_the_weights_of_the_published_model_and_the_floor_none_of_the_operators(own_folder: Path) -> None:
    path = models.our_onnx("cluenet_cifar", 32)
    assert models.our_onnx("cluenet_cifar", 32) == path
    assert [each.name for each in own_folder.iterdir()] == [path.name]
    x = cpu.image(1, 32)
    options = Options(threads=1)
    expected = contestants.eager("cluenet_cifar", 32, 1)(x)
    np.testing.assert_allclose(cpu.ours("cluenet_cifar", options, 32)(x), expected, atol=1e-4)
    if engine._core()[1]:
        assert contestants.runner(contestants.floor(path, options))(x).shape == expected.shape


def test_the_command_and_what_it_records() -> None:
    command = [sys.executable, "-m", "benchmarks", "cpu", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(cpu.__file__).parent.parent)
    assert "--quick" in ran.stdout
    assert json.dumps(cpu.machine()["cores"]).isdigit()
