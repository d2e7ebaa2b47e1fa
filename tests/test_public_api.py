"""The public surface: a name that is not meant to be public fails here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cluinfer

SURFACE = {
    "cluinfer": {"CluinferError", "Failure", "Prediction", "Runtime", "__version__"},
    "cluinfer.ops": {
        "DOMAIN",
        "OPERATORS",
        "VERSION",
        "Operator",
        "cluster_assign",
        "cluster_gather",
        "cluster_scatter",
    },
    "cluinfer.report": {"write_report"},
}
BUILD_SIDE = ["cluinfer.calibration", "cluinfer.export", "cluinfer.export.nn"]

# A fresh interpreter, since whatever other tests import becomes an attribute of its package too.
NAMES = """
import importlib, json, sys, types
package = importlib.import_module(sys.argv[1])
names = {
    name for name, value in ((name, getattr(package, name)) for name in dir(package))
    if not name.startswith("_")
    and name != "annotations"
    and not (isinstance(value, types.ModuleType) and value.__name__ == f"{package.__name__}.{name}")
}
print(json.dumps([sorted(names), list(getattr(package, "__all__", []))]))
"""


def names(package: str) -> tuple[set[str], list[str]]:
    """The names in a package that are neither private nor its own modules, and its `__all__`."""
    command = [sys.executable, "-c", NAMES, package]
    visible, declared = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return set(visible), declared


@pytest.mark.parametrize("package", SURFACE)
def test_surface(package: str) -> None:
    visible, declared = names(package)
    assert visible | {name for name in declared if name.startswith("_")} == SURFACE[package]
    assert set(declared) == SURFACE[package]


@pytest.mark.parametrize("package", BUILD_SIDE)
def test_build_side_shows_what_it_declares(package: str) -> None:
    pytest.importorskip("torch")
    visible, declared = names(package)
    assert visible == set(declared)


def test_names_that_come_when_they_are_asked_for() -> None:
    code = """if True:
        import sys, cluinfer
        before = {"numpy", "PIL", "cluinfer.runtime"} & set(sys.modules)
        print(sorted(before), cluinfer.Runtime.__module__, cluinfer.Prediction.__module__, cluinfer.Failure.__module__)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] cluinfer.runtime cluinfer.prediction cluinfer.stream\n"
    with pytest.raises(AttributeError, match="module 'cluinfer' has no attribute 'runtme'"):
        cluinfer.runtme  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (Path(cluinfer.__file__).parent / "py.typed").is_file()
