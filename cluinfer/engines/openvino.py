"""OpenVINO on the CPU, with the native cluster operators where they are built.

- The graph is compiled for one batch size: with a free one, OpenVINO 2026.4 does not settle on channels-last maps and
  copies every one of them around the cluster operators (measured: 1.4 to 1.6 times the time).
- fp32 and bf16 are asked for explicitly, since OpenVINO lowers to bf16 by itself; bf16 needs a CPU that computes in it.
- int8 is in the graph, as pairs of QuantizeLinear and DequantizeLinear; what stands between them is float32.
- Without the extension the operators are expanded into OpenVINO's own; one warning says so.
- A blob is a line of JSON (what it was compiled with) and OpenVINO's exported model.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from cluinfer import forks
from cluinfer.engines import blob as blobs
from cluinfer.engines.base import THROUGHPUT, Array, Engine, Input, Options, Session
from cluinfer.engines.quantized import check_quantized
from cluinfer.engines.self_contained import check_self_contained
from cluinfer.errors import EngineError, EngineWarning, MissingPackageError, one_line

OVERRIDE = "CLUINFER_OPENVINO"  # path of the extension to load instead; empty for none
_NAMES = {"win32": "cluinfer_openvino.dll", "darwin": "libcluinfer_openvino.dylib"}
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # what is computed in where the graph does not say


class OpenVINOEngine(Engine):
    """The contract is in base.py."""

    name = "openvino"
    extra = "openvino"
    precisions = tuple(_PRECISIONS)
    device = "CPU"
    # cluinfer: its operators are in the blob; isa: OpenVINO has fused for it
    bound_to = ("cluinfer", "openvino", "system", "architecture", "isa")

    def check(self) -> None:
        """OpenVINO must be there; the extension need not."""
        _openvino()

    def package(self) -> tuple[str, str]:
        """The release and its build."""
        return "openvino", str(_openvino().get_version())

    def compile(self, graph: bytes, options: Options) -> bytes:
        """Fuse for this engine and compile."""
        _check_precision(options.precision)
        check_self_contained(graph)
        check_quantized(graph, options.precision)
        core, library = _core()
        made: dict[str, int] = {}
        with _errors("cannot compile the graph"):
            model = core.read_model(io.BytesIO(graph))
            if library:
                from cluinfer.engines.openvino_fusion import fuse

                made = dict(fuse(model, library))
            _own_weights(model)
            _fix_batch(model, options.batch)
            compiled = core.compile_model(model, "CPU", _settings(options))
            exported: bytes = compiled.export_model().getvalue()
        head = {
            "openvino": _openvino().get_version(),
            "precision": options.precision,
            "batch": options.batch,
            "native": bool(library),
            "fused": made,
        }
        return blobs.seal("openvino", head, exported)

    def load(self, blob: bytes, options: Options) -> OpenVINOSession:
        """The blob must come from this release of OpenVINO, and from a build with the extension if it used it."""
        head, exported = describe(blob)
        core, library = _core()
        here = _openvino().get_version()
        if head["openvino"] != here:
            raise EngineError(
                f"compiled by OpenVINO {one_line(head['openvino'], 60)}, this is {here}: compile the graph again"
            )
        if head["native"] and not library:
            raise EngineError("compiled with the native operators, which are missing here: compile the graph again")
        blobs.check_made_for(head, options)
        _check_precision(options.precision)
        with _errors("cannot load the compiled graph"):
            compiled = core.import_model(io.BytesIO(exported), "CPU", _settings(options))
            return OpenVINOSession(compiled, options.batch)


class OpenVINOSession(Session):
    """A compiled model and its requests; each request works for one caller at a time."""

    def __init__(self, compiled: Any, batch: int) -> None:
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        inputs = {port.get_any_name(): _input(port) for port in compiled.inputs}
        super().__init__(inputs, [port.get_any_name() for port in compiled.outputs], batch, count)
        self._compiled = compiled
        self._free_requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            self._free_requests.put(compiled.create_infer_request())

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Pieces of a large batch run side by side, as many as there are streams."""
        done: list[list[Array]] = []
        working: deque[Any] = deque()
        try:
            with _errors("failed"):
                for piece in self.pieces(feeds):
                    request = self._take(working, done)
                    working.append(request)
                    # Shared always: after a shared array, one to be copied would be written over it.
                    request.start_async(piece, share_inputs=True)
                while working:
                    self._finish(working, done)
        finally:
            for request in working:
                with suppress(RuntimeError):
                    request.wait()
                self._free_requests.put(request)
        return self.joined(done, len(next(iter(feeds.values()))))

    def _free(self) -> None:
        self._compiled = None
        for _ in range(self.streams):
            self._free_requests.get()

    def _take(self, working: deque[Any], done: list[list[Array]]) -> Any:
        """A free request. Who holds some finishes his own before he waits for another's, so no two wait in a ring."""
        while True:
            try:
                return self._free_requests.get(block=not working)
            except Empty:
                self._finish(working, done)

    def _finish(self, working: deque[Any], done: list[list[Array]]) -> None:
        request = working[0]
        request.wait()
        done.append([np.array(request.get_output_tensor(i).data) for i in range(len(self.outputs))])
        working.popleft()
        self._free_requests.put(request)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Beside its own, OpenVINO has those of the names in a graph that are no UTF-8."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        raise EngineError(f"OpenVINO {what}: {_first_line(error)}") from error


def describe(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """What a blob was compiled with, and OpenVINO's part of it."""
    return blobs.unseal("openvino", blob, {"openvino": str, "precision": str, "batch": int, "native": bool})


def library_path() -> str:
    """Where the extension is, or nothing."""
    if (override := os.environ.get(OVERRIDE)) is not None:
        return override
    path = Path(str(resources.files("cluinfer") / "lib" / _NAMES.get(sys.platform, "libcluinfer_openvino.so")))
    return str(path) if path.is_file() else ""


def _openvino() -> Any:
    forks.use_engines()
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
    if library:
        try:
            core.add_extension(library)
            return core, library
        except RuntimeError as error:  # built for another release of OpenVINO, as a rule
            reason = f"it does not load ({_first_line(error)});"
    elif (Path(__file__).parents[2] / "pyproject.toml").is_file():
        reason = "it is not built in the checkout that Python found cluinfer in; start Python in another folder, or"
    else:
        reason = "it is not built;"
    from cluinfer.engines.openvino_standard import extensions

    warnings.warn(
        f"the OpenVINO engine runs without its native operators, slower: {reason} install cluinfer again with "
        "a C++ compiler and this OpenVINO",
        EngineWarning,
        stacklevel=4,
    )
    for extension in extensions():
        core.add_extension(extension)
    return core, ""


def _core() -> tuple[Any, str]:
    return _core_with(library_path())


def _check_precision(precision: str) -> None:
    if precision not in _PRECISIONS:
        raise EngineError(f"the OpenVINO engine has precisions {', '.join(_PRECISIONS)}, got {precision!r:.60}")
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


def _own_weights(model: Any) -> None:
    """Give every transposed convolution a weight of its own.

    Where one constant is also that of a convolution, as in a gradient, OpenVINO 2026.4 computes with the wrong one.
    """
    from openvino import opset13

    for node in model.get_ops():
        if node.get_type_name() in ("ConvolutionBackpropData", "GroupConvolutionBackpropData"):
            weight = node.input_value(1)
            if weight.get_node().get_type_name() == "Constant" and len(weight.get_target_inputs()) > 1:
                own = opset13.constant(np.array(weight.get_node().data))
                node.input(1).replace_source_output(own.output(0))


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


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(next((line for line in reversed(lines) if not line.startswith("at ")), type(error).__name__))
