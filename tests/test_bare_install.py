"""What an application gets from `pip install cluinfer`: NumPy, Pillow and us; no torch, no onnx, no engine."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from built_wheel import ROOT, build, pip

import cluinfer

pytest.importorskip("scikit_build_core")
ALLOWED = {"cluinfer", "numpy", "PIL"}

IMPORTED = """
import json, sys
before = set(sys.modules)
import cluinfer
names = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in names if not name.startswith("_"))))
"""

IMPORT_TARGET_SIDE = """
import importlib, json, pkgutil
def modules(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name not in ("cluinfer.export", "cluinfer.calibration"):
            yield module.name
            if module.ispkg:
                yield from modules(importlib.import_module(module.name))
import cluinfer
names = [name for name in modules(cluinfer) if name != "cluinfer.triton.model"]  # which Triton alone can import
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has nothing but cluinfer and what it requires."""
    folder = tmp_path_factory.mktemp("bare")
    wheel = build(folder)
    venv.create(folder / "venv")
    commands = folder / "venv" / "bin"
    pip(["--python", str(commands / "python"), "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)])
    return commands


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd="/")


def packages(python: str | Path) -> set[str]:
    """The packages that `import cluinfer` loads, itself included; it must print nothing."""
    ran = run(python, "-I", "-c", IMPORTED)
    assert (ran.returncode, ran.stderr) == (0, "")
    return set(json.loads(ran.stdout))


def test_imports_nothing_heavy(bare: Path) -> None:
    assert {"cluinfer"} <= packages(bare / "python") <= ALLOWED


def test_imports_nothing_heavy_where_everything_is_installed() -> None:
    pytest.importorskip("torch")
    assert {"cluinfer"} <= packages(sys.executable) <= ALLOWED


def test_every_module_of_the_target_side_imports(bare: Path) -> None:
    ran = run(bare / "python", "-I", "-c", IMPORT_TARGET_SIDE)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {"cluinfer.cli", "cluinfer.errors", "cluinfer.ops.reference"} <= set(json.loads(ran.stdout))


def test_version(bare: Path) -> None:
    ran = run(bare / "cluinfer", "--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"cluinfer {cluinfer.__version__}\n", "")


def test_archs_says_what_it_needs(bare: Path) -> None:
    ran = run(bare / "cluinfer", "archs")
    message = "cluinfer archs needs torch, which is not installed: pip install 'cluinfer[export]'"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"cluinfer: error: {message}\n")
