"""The real Python bindings of TensorRT, importable without TensorRT: three libraries of ours answer "nothing" for it.

They are for what can be held against the bindings alone: names, declarations, and NVIDIA's Python code that calls
plugins. No engine can be built, and nothing here was "tested on TensorRT".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_NOTHING = """
#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getPluginRegistry)
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *name) { return 0; }
"""


def make_importable(folder: Path) -> Path:
    """A folder that holds them as `tensorrt`; skips where they or a C compiler are missing."""
    spec = find_spec("tensorrt_bindings")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if spec is None or spec.origin is None or compiler is None:
        pytest.skip("needs tensorrt-cu13-bindings and a C compiler")
    package = folder / "tensorrt"
    shutil.copytree(Path(spec.origin).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "nothing.c").write_text(_NOTHING)
    first = package / f"lib{_LIBRARIES[0]}.so.11"
    subprocess.run([compiler, "-shared", "-fPIC", folder / "nothing.c", "-o", first], check=True)
    for name in _LIBRARIES[1:]:
        shutil.copy(first, package / f"lib{name}.so.11")
    return folder


def run_with_bindings(folder: Path, script: Path | str, *arguments: str) -> Any:
    """What a script, or a file that holds one, prints as JSON, in a process of its own that imports them."""
    command = [sys.executable, *(["-c", script] if isinstance(script, str) else [str(script)]), *arguments]
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
