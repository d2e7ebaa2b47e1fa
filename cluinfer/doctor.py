"""What is installed, what of it works on this machine, and what to install for the rest.

Nothing here raises: whatever goes wrong while something is looked at is what is said of it.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cluinfer import native
from cluinfer.engines import ENGINES, get_engine
from cluinfer.errors import CluinferError, MissingPackageError

EXPORT = ("torch", "onnx", "onnxscript", "onnxruntime", "polygraphy", "safetensors", "rich")
PLOT = ("matplotlib",)
_REBUILD = "install cluinfer again where there is a C++17 compiler"


@dataclass(frozen=True)
class Part:
    """One thing, whether it works, what it is, and what to do where it does not."""

    kind: str  # engine, native, gpu, extra
    name: str
    works: bool
    what: str
    advice: str = ""


def examine() -> list[Part]:
    """Everything that cluinfer may use."""
    engines, native_parts = list(map(_engine, ENGINES)), [_kernels(), _operators()]
    gpu_works = any(part.works for part in engines if part.name == "trt")
    return [*engines, *native_parts, *_gpus(gpu_works), _packages("export", EXPORT), _packages("plot", PLOT)]


def some_engine_works(parts: Sequence[Part]) -> bool:
    """Whether anything can be run here at all."""
    return any(part.works for part in parts if part.kind == "engine")


def _engine(name: str) -> Part:
    try:
        engine = get_engine(name)
        engine.check()
        versions = engine.versions()
        package = next(each for each in versions if each not in ("cluinfer", "numpy", "python"))
        return Part("engine", name, True, f"{package} {versions[package]}; {', '.join(engine.precisions)}")
    except MissingPackageError as error:
        return Part("engine", name, False, str(error), f"pip install 'cluinfer[{get_engine(name).extra}]'")
    except CluinferError as error:
        return Part("engine", name, False, str(error))


def _kernels() -> Part:
    if not native.available():
        return Part("native", "CPU kernels", False, "not built: slower", _REBUILD)
    *others, best = native.isas()
    return Part("native", "CPU kernels", True, f"{best} is used" + (f", {', '.join(others)} work" if others else ""))


def _operators() -> Part:
    """The native operators inside OpenVINO."""
    name = "OpenVINO operators"
    from cluinfer.engines import openvino

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            library = openvino._core()[1]
        except CluinferError:
            return Part("native", name, False, "OpenVINO is not installed", "pip install 'cluinfer[openvino]'")
    if library:
        return Part("native", name, True, "used")
    said = next((str(each.message) for each in caught), "not built")
    return Part("native", name, False, said, f"{_REBUILD} and this OpenVINO")


def _gpus(works: bool) -> list[Part]:
    """NVIDIA's, as its own tool lists them; they work where TensorRT does."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [Part("gpu", "NVIDIA GPU", False, "none found")]
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        ran = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return [Part("gpu", "NVIDIA GPU", False, f"nvidia-smi fails: {error}")]
    lines = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
    return [Part("gpu", "NVIDIA GPU", works, line, "" if works else "see engine trt") for line in lines]


def _packages(extra: str, names: Sequence[str]) -> Part:
    """The packages of an extra."""
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Part("extra", extra, False, f"{', '.join(missing)} not installed", f"pip install 'cluinfer[{extra}]'")
    return Part("extra", extra, True, ", ".join(found))
