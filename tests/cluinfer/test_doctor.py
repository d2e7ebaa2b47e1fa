"""What works here is found out by trying it, and what does not says what to install."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from cluinfer import doctor, engines, native
from cluinfer.cli import main
from cluinfer.doctor import Part, examine, some_engine_works
from cluinfer.engines import openvino
from cluinfer.errors import MissingPackageError


def part(name: str) -> Part:
    (found,) = [each for each in examine() if each.name == name]
    return found


def test_what_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    assert main(["doctor", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["works"] is True
    assert held["machine"]["cores"] >= 1
    parts = {each["name"]: each for each in held["parts"]}
    assert parts["openvino"]["works"] is True
    assert parts["openvino"]["what"].endswith("; fp32, bf16, int8")
    assert f"openvino {version('openvino')}" in parts["openvino"]["what"]
    assert parts["trt"] == {
        "kind": "engine",
        "name": "trt",
        "works": False,
        "what": "no NVIDIA GPU with a driver here",
        "advice": "",
    }
    assert parts["CPU kernels"]["works"] is native.available()


def test_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("cluinfer ")
    assert out[2].split() == ["kind", "part", "works", "what"]
    assert out[3].split() == ["engine", "trt", "no", "no", "NVIDIA", "GPU", "with", "a", "driver", "here"]


def test_where_no_engine_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(self: object) -> None:
        raise MissingPackageError("the openvino engine needs a package: pip install 'cluinfer[openvino]'")

    monkeypatch.setattr(engines, "ENGINES", {"openvino": engines.ENGINES["openvino"]})
    monkeypatch.setattr(doctor, "ENGINES", engines.ENGINES)
    monkeypatch.setattr(openvino.OpenVINOEngine, "check", missing)
    assert not some_engine_works(examine())
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[3].split()[:3] == ["engine", "openvino", "no"]
    assert out[3].endswith("the openvino engine needs a package: pip install 'cluinfer[openvino]'")
    assert out[-1] == "no engine works here: pip install 'cluinfer[openvino]'"


def test_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: True)
    monkeypatch.setattr(native, "isas", lambda: ["portable", "avx2", "avx512"])
    assert part("CPU kernels").what == "avx512 is used, portable, avx2 work"
    monkeypatch.setattr(native, "available", lambda: False)
    assert part("CPU kernels") == Part(
        *("native", "CPU kernels", False, "not built: slower"),
        "install cluinfer again where there is a C++17 compiler",
    )


def test_openvino_without_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv(openvino.OVERRIDE, "")
    openvino._core_with.cache_clear()
    found = part("OpenVINO operators")
    openvino._core_with.cache_clear()
    assert not found.works
    assert found.what.startswith("the OpenVINO engine runs without its native operators, slower: it is not built")


def test_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert part("NVIDIA GPU") == Part("gpu", "NVIDIA GPU", False, "none found")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    assert part("NVIDIA GPU").what.startswith("nvidia-smi fails: ")
    assert "exit status 9" in part("NVIDIA GPU").what
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 570.1'\n")
    assert part("NVIDIA GPU") == Part("gpu", "NVIDIA GPU", False, "NVIDIA H100 80GB HBM3, 570.1", "see engine trt")


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name in ("torch", "rich"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", installed)
    assert part("export") == Part(
        "extra", "export", False, "torch, rich not installed", "pip install 'cluinfer[export]'"
    )
    assert part("plot") == Part("extra", "plot", True, "matplotlib 1.0")


def test_a_tool_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*given: object, **more: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert part("NVIDIA GPU").what == "nvidia-smi fails: Command 'nvidia-smi' timed out after 20 seconds"
