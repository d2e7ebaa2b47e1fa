"""OpenVINO on the CPU, with the native cluster operators where they are built.

- The graph is compiled for one batch size: with a free one, OpenVINO 2026.4 does not settle on channels-last maps and
  copies every one of them around the cluster operators (measured: 1.4 to 1.6 times the time).
- fp32 and bf16 are asked for explicitly, since OpenVINO lowers to bf16 by itself; bf16 needs a CPU that computes in it.
- Without the extension the operators are expanded into OpenVINO's own; one warning says so.
- A blob is a line of JSON (what it was compiled with) and OpenVINO's exported model.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from cluinfer.engines.base import THROUGHPUT, Array, Engine, Input, Options, Session
from cluinfer.errors import EngineError, MissingPackageError

OVERRIDE = "CLUINFER_OPENVINO"  # path of the extension to load instead; empty for none
_NAMES = {"win32": "cluinfer_openvino.dll", "darwin": "libcluinfer_openvino.dylib"}
_MAGIC = b"cluinfer openvino 1 "
_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOEngine(Engine):
    """The contract is in base.py."""

    name = "openvino"
    extra = "openvino"
    precisions = tuple(_PRECISIONS)

    def check(self) -> None:
        """OpenVINO must be there; the extension need not."""
        _openvino()

    def compile(self, graph: bytes, options: Options) -> bytes:
        """Fuse for this engine and compile."""
        _check_precision(options.precision)
        core, library = _core()
        made: dict[str, int] = {}
        try:
            model = core.read_model(io.BytesIO(graph))
            if library:
                from cluinfer.engines.openvino_fusion import fuse

                made = dict(fuse(model, library))
            _fix_batch(model, options.batch)
            compiled = core.compile_model(model, "CPU", _settings(options))
            exported: bytes = compiled.export_model().getvalue()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile the graph: {_first_line(error)}") from error
        head = {
            "openvino": _openvino().get_version(),
            "precision": options.precision,
            "batch": options.batch,
            "native": bool(library),
            "fused": made,
        }
        return _MAGIC + json.dumps(head, separators=(",", ":")).encode() + b"\n" + exported

    def load(self, blob: bytes, options: Options) -> OpenVINOSession:
        """The blob must come from this release of OpenVINO, and from a build with the extension if it used it."""
        head, exported = describe(blob)
        core, library = _core()
        here = _openvino().get_version()
        if head["openvino"] != here:
            raise EngineError(f"compiled by OpenVINO {head['openvino']}, this is {here}: compile the graph again")
        if head["native"] and not library:
            raise EngineError("compiled with the native operators, which are missing here: compile the graph again")
        for name in ("precision", "batch"):
            if head[name] != getattr(options, name):
                raise EngineError(
                    f"compiled for {name} {head[name]}, {getattr(options, name)} is wanted: compile it again"
                )
        _check_precision(options.precision)
        try:
            compiled = core.import_model(io.BytesIO(exported), "CPU", _settings(options))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load the compiled graph: {_first_line(error)}") from error
        return OpenVINOSession(compiled, options.batch)


class OpenVINOSession(Session):
    """A compiled model and its requests; each request works for one caller at a time."""

    def __init__(self, compiled: Any, batch: int) -> None:
        self._batch = batch
        self._compiled = compiled
        self.inputs = {port.get_any_name(): _input(port) for port in compiled.inputs}
        self.outputs = tuple(port.get_any_name() for port in compiled.outputs)
        self._free: SimpleQueue[Any] = SimpleQueue()
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        for _ in range(count):
            self._free.put(compiled.create_infer_request())
        self._count = count

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Pieces of a large batch run side by side, as many as there are streams."""
        if self._compiled is None:
            raise EngineError("the session is closed")
        checked = self.check(feeds)
        total = next(iter(checked.values())).shape[0]
        if total == 0:
            raise EngineError("an empty batch: at least one image is needed")
        done: list[list[Array]] = []
        working: deque[tuple[Any, int]] = deque()
        try:
            for start in range(0, total, self._batch):
                piece = {name: array[start : start + self._batch] for name, array in checked.items()}
                size = min(self._batch, total - start)
                request = self._take(working, done)
                working.append((request, size))
                request.start_async({name: _pad(array, self._batch) for name, array in piece.items()})
            while working:
                self._finish(working, done)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {_first_line(error)}") from error
        finally:
            for request, _ in working:
                request.wait()
                self._free.put(request)
        if len(done) == 1:
            return dict(zip(self.outputs, done[0], strict=True))
        return {name: np.concatenate([piece[i] for piece in done]) for i, name in enumerate(self.outputs)}

    def close(self) -> None:
        """Requests that are at work end first."""
        if self._compiled is not None:
            self._compiled = None
            for _ in range(self._count):
                self._free.get()

    def _take(self, working: deque[tuple[Any, int]], done: list[list[Array]]) -> Any:
        """A free request. Who holds some finishes his own before he waits for another's, so no two wait in a ring."""
        while True:
            try:
                return self._free.get(block=not working)
            except Empty:
                self._finish(working, done)

    def _finish(self, working: deque[tuple[Any, int]], done: list[list[Array]]) -> None:
        request, size = working[0]
        request.wait()
        done.append([np.array(request.get_output_tensor(i).data[:size]) for i in range(len(self.outputs))])
        working.popleft()
        self._free.put(request)


def describe(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """What a blob was compiled with, and OpenVINO's part of it."""
    line, _, exported = blob.partition(b"\n")
    try:
        if not line.startswith(_MAGIC):
            raise ValueError("no cluinfer header")
        head = json.loads(line[len(_MAGIC) :])
        kinds = {"openvino": str, "precision": str, "batch": int, "native": bool}
        if not isinstance(head, dict) or not all(isinstance(head.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("fields are missing")
    except ValueError as error:
        raise EngineError(f"this is not a graph compiled by the OpenVINO engine ({error}): compile it again") from error
    return head, exported


def library_path() -> str:
    """Where the extension is, or nothing."""
    if (override := os.environ.get(OVERRIDE)) is not None:
        return override
    path = Path(str(resources.files("cluinfer") / "lib" / _NAMES.get(sys.platform, "libcluinfer_openvino.so")))
    return str(path) if path.is_file() else ""


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError(
            f"the openvino engine needs a package ({error}): pip install 'cluinfer[openvino]'"
        ) from error
    return openvino


@lru_cache(maxsize=4)
def _core_with(library: str) -> tuple[Any, str]:
    """A core that knows our operators, natively or expanded; one warning a process where expanded."""
    core = _openvino().Core()
    reason = "it is not built"
    if library:
        try:
            core.add_extension(library)
            return core, library
        except RuntimeError as error:  # built for another release of OpenVINO, as a rule
            reason = f"it does not load ({_first_line(error)})"
    from cluinfer.engines.openvino_standard import extensions

    warnings.warn(
        f"the OpenVINO engine runs without its native operators, slower: {reason}; install cluinfer again with a "
        "C++ compiler and this OpenVINO",
        RuntimeWarning,
        stacklevel=4,
    )
    for extension in extensions():
        core.add_extension(extension)
    return core, ""


def _core() -> tuple[Any, str]:
    return _core_with(library_path())


def _check_precision(precision: str) -> None:
    if precision not in _PRECISIONS:
        raise EngineError(f"the OpenVINO engine has precisions {', '.join(_PRECISIONS)}, got {precision!r}")
    if precision == "bf16":
        if not _computes_bf16():
            raise EngineError("this CPU does not compute in bf16, which would be slower than fp32: choose fp32")
        if not _core()[1]:
            raise EngineError("bf16 needs the native operators, which keep the clustering in float32: choose fp32")


def _computes_bf16() -> bool:
    return "BF16" in _core()[0].get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _settings(options: Options) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[options.precision],
        "PERFORMANCE_HINT": "THROUGHPUT" if options.hint == THROUGHPUT else "LATENCY",
    }
    if options.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = options.threads
    if options.streams is not None:
        settings["NUM_STREAMS"] = options.streams
    return settings


def _fix_batch(model: Any, batch: int) -> None:
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic or len(shape) == 0:
            raise EngineError(f"input {port.get_any_name()} has no batch")
        if shape[0].is_static and shape[0].get_length() != batch:
            raise EngineError(f"the graph's batch is fixed to {shape[0].get_length()}, {batch} is wanted")
        shape[0] = batch
        shapes[port] = shape
    model.reshape(shapes)


def _input(port: Any) -> Input:
    """What an input must be, its batch left free."""
    sides = list(port.get_partial_shape())[1:]
    shape = (None, *(int(side.get_length()) if side.is_static else None for side in sides))
    return Input(shape, np.dtype(port.get_element_type().to_dtype()).name)


def _pad(array: Array, batch: int) -> Array:
    if len(array) == batch:
        return array
    return np.concatenate([array, np.zeros((batch - len(array), *array.shape[1:]), array.dtype)])


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("at ")), type(error).__name__)[:300]
