"""What is in the wheel and in the sdist, and what is not."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Set as AbstractSet
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path

import pytest
from built_wheel import ROOT, build, has_compiler

import cluinfer

pytest.importorskip("scikit_build_core")
SOURCES_ONLY = ("*.cpp", "*.h", "*.hpp", "CMakeLists.txt", "*.pyc")
INFO = f"cluinfer-{cluinfer.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def package_files() -> set[str]:
    """The files that make up the package, through the symlinks, as the wheel should name them."""
    found = (Path(folder, name) for folder, _, names in os.walk(ROOT / "cluinfer", followlinks=True) for name in names)
    return {path.relative_to(ROOT).as_posix() for path in found if not any(map(path.match, SOURCES_ONLY))}


def without_library(names: AbstractSet[str]) -> set[str]:
    return {name for name in names if not name.startswith("cluinfer/lib/")}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    info = {f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    assert without_library(files(wheel)) == package_files() | info


def test_both_sides_and_the_type_marker_are_in_the_wheel(wheel: Path) -> None:
    expected = {"cluinfer/__init__.py", "cluinfer/export/__init__.py", "cluinfer/calibration/__init__.py"}
    assert expected | {"cluinfer/export/models/fec.py", "cluinfer/py.typed"} <= files(wheel)


def test_wheel_has_no_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert [i.filename for i in archive.infolist() if stat.S_ISLNK(i.external_attr >> 16)] == []


def test_wheel_has_the_native_libraries_where_they_can_be_built(wheel: Path) -> None:
    wanted = has_compiler() and (ROOT / "cluinfer" / "native" / "CMakeLists.txt").exists()
    libraries = {name for name in files(wheel) if name.startswith("cluinfer/lib/")}
    expected = ["cluinfer_kernels"] if wanted else []
    expected += ["cluinfer_openvino"] if wanted and find_spec("openvino") else []
    assert sorted(Path(name).name.removeprefix("lib").split(".")[0] for name in libraries) == expected


def test_wheel_fits_every_python_of_one_platform(wheel: Path) -> None:
    _, version, python, abi, platform = wheel.stem.split("-")
    assert (version, python, abi) == (cluinfer.__version__, "py3", "none")
    assert platform != "any"


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{INFO}/METADATA"))
        entry_points = archive.read(f"{INFO}/entry_points.txt").decode().split("\n")
    requirements = metadata.get_all("Requires-Dist", [])
    assert metadata["Version"] == cluinfer.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert [r.partition(">")[0] for r in requirements if "extra ==" not in r] == ["numpy", "pillow"]
    assert set(metadata.get_all("Provides-Extra", [])) == {
        *("export", "openvino", "ort", "trt", "plot", "ray", "triton", "docs", "dev")
    }
    assert "cluinfer = cluinfer.cli:main" in entry_points


def test_sdist_gives_the_same_package(wheel: Path, tmp_path: Path) -> None:
    hook = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", hook, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert [member.name for member in archive if not (member.isfile() or member.isdir())] == []
        archive.extractall(tmp_path)
    source = tmp_path / f"cluinfer-{cluinfer.__version__}"
    assert (source / "CMakeLists.txt").is_file()
    assert not (source / "export").exists(), "the sdist holds export twice"
    native = {path.relative_to(ROOT) for path in (ROOT / "cluinfer" / "native").rglob("*.[ch]*")}
    assert [path for path in native if not (source / path).is_file()] == []

    rebuilt = build(tmp_path / "again", source=source, settings=["cmake.define.CLUINFER_NATIVE=OFF"])
    assert files(rebuilt) == without_library(files(wheel))


def test_without_a_compiler_the_package_is_whole(wheel: Path, tmp_path: Path) -> None:
    # An empty PATH would not hide the compiler: CMake looks into the usual system folders too.
    env = {**os.environ, "CXX": str(tmp_path / "no-such-compiler")}
    pure = build(tmp_path / "pure", settings=[f"build-dir={tmp_path / 'build'}"], env=env)
    assert files(pure) == without_library(files(wheel))


def test_native_kernels_can_be_insisted_on(tmp_path: Path) -> None:
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert cmake is not None
    env = {**os.environ, "CXX": str(tmp_path / "no-such-compiler")}
    command = [cmake, "-S", str(ROOT), "-B", str(tmp_path), "-DCLUINFER_NATIVE=ON"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "native kernels wanted (CLUINFER_NATIVE=ON), but" in ran.stderr
