"""ONNX Runtime on the CPU: portable, needs no compiler, and runs the operators as the functions that the graph holds.

- A blob is a line of JSON and the graph as ONNX Runtime optimized it, up to the level that does not depend on the CPU
  (measured on fec_small: it loads in a third of the time of the graph itself, and runs as fast).
- A session is one for all threads. At most `streams` runs are at work, with threads / streams threads each, so that
  `threads` holds for the whole session however many call it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from cluinfer import forks
from cluinfer.engines import blob as blobs
from cluinfer.engines.base import THROUGHPUT, Array, Engine, Input, Options, Session
from cluinfer.engines.hardware import cores
from cluinfer.engines.quantized import check_quantized
from cluinfer.engines.self_contained import check_self_contained
from cluinfer.errors import EngineError, MissingPackageError, one_line

_DTYPES = {
    **{f"tensor({name})": name for name in ("int8", "uint8", "int32", "int64", "float16", "bool")},
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


class ORTEngine(Engine):
    """The contract is in base.py."""

    name = "ort"
    extra = "ort"
    precisions = ("fp32", "int8")
    device = "CPU"
    bound_to = ("onnxruntime", "architecture")

    def check(self) -> None:
        """Only the package is needed."""
        _onnxruntime()

    def package(self) -> tuple[str, str]:
        """ONNX Runtime, under whichever name it was installed."""
        return "onnxruntime", str(_onnxruntime().__version__)

    def compile(self, graph: bytes, options: Options) -> bytes:
        """Optimize for this batch."""
        self._check_precision(options)
        check_self_contained(graph)
        check_quantized(graph, options.precision)
        ort = _onnxruntime()
        with _errors("cannot compile the graph"), _scratch() as path:
            plain = ort.SessionOptions()
            plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            settings = ort.SessionOptions()
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            settings.optimized_model_filepath = str(path)
            for port in _session(graph, plain).get_inputs():
                _fix_batch(settings, port, options.batch)
            _session(graph, settings)
            content = path.read_bytes()
        head = {"onnxruntime": ort.__version__, "precision": options.precision, "batch": options.batch}
        return blobs.seal(self.name, head, content)

    def load(self, blob: bytes, options: Options) -> ORTSession:
        """The blob must come from this release of ONNX Runtime."""
        head, content = blobs.unseal(self.name, blob, {"onnxruntime": str, "precision": str, "batch": int})
        here = _onnxruntime().__version__
        if head["onnxruntime"] != here:
            raise EngineError(
                f"compiled by ONNX Runtime {head['onnxruntime']!r:.60}, this is {here}: compile the graph again"
            )
        blobs.check_made_for(head, options)
        self._check_precision(options)
        check_self_contained(content)
        threads, streams = _threads(options)
        settings = _onnxruntime().SessionOptions()
        settings.intra_op_num_threads = max(1, threads // streams)
        # An idle thread that spins takes time from those at work: with 64 threads on 2 cores, 16 s a call became 0.1 s.
        if options.hint == THROUGHPUT or threads > cores():
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with _errors("cannot load the compiled graph"):
            return ORTSession(_session(content, settings), options.batch, streams)

    def _check_precision(self, options: Options) -> None:
        if options.precision not in self.precisions:
            raise EngineError(
                f"the ort engine has precisions {', '.join(self.precisions)}, got {options.precision!r:.60}"
            )


class ORTSession(Session):
    """One session of ONNX Runtime, which any number of threads may run."""

    def __init__(self, session: Any, batch: int, streams: int) -> None:
        inputs = {port.name: _input(port) for port in session.get_inputs()}
        super().__init__(inputs, [port.name for port in session.get_outputs()], batch, streams)
        self._session = session
        self._turns = BoundedSemaphore(streams)
        self._workers = ThreadPoolExecutor(streams, "cluinfer-ort") if streams > 1 else None

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        pieces = self.pieces(feeds)
        go_through = map if self._workers is None or len(pieces) == 1 else self._workers.map
        return self.joined(list(go_through(self._piece, pieces)), len(next(iter(feeds.values()))))

    def _piece(self, feeds: dict[str, Array]) -> list[Array]:
        with self._turns, _errors("failed"):
            outputs: list[Array] = self._session.run(None, feeds)
            return outputs

    def _free(self) -> None:
        self._session = None
        if self._workers is not None:
            self._workers.shutdown()


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """ONNX Runtime has a dozen kinds of errors; each becomes one line of ours."""
    try:
        yield
    except (EngineError, OSError, MemoryError):
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise EngineError(f"ONNX Runtime {what}: {one_line(first) or type(error).__name__}") from error


def _onnxruntime() -> Any:
    forks.use_engines()
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingPackageError(f"the ort engine needs a package ({error}): pip install 'cluinfer[ort]'") from error
    return onnxruntime


def _session(graph: bytes, settings: Any) -> Any:
    settings.log_severity_level = 4  # what goes wrong is raised as well
    return _onnxruntime().InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


@contextmanager
def _scratch() -> Iterator[Path]:
    """A file to write to: in memory where there is such a thing, so that nothing stays behind whoever is killed."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        handle = os.memfd_create("cluinfer")
        try:
            yield Path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
    else:
        with tempfile.TemporaryDirectory(prefix="cluinfer-") as folder:
            yield Path(folder) / "optimized.onnx"


def _threads(options: Options) -> tuple[int, int]:
    """Threads and streams in all."""
    threads = options.threads or cores()
    return threads, options.streams or (threads if options.hint == THROUGHPUT else 1)


def _fix_batch(settings: Any, port: Any, batch: int) -> None:
    if not port.shape:
        raise EngineError(f"input {port.name} has no batch")
    side = port.shape[0]
    if isinstance(side, str):
        settings.add_free_dimension_override_by_name(side, batch)
    elif side is not None and side != batch:
        raise EngineError(f"the graph's batch is fixed to {side}, {batch} is wanted")


def _input(port: Any) -> Input:
    """What an input must be, its batch left free."""
    sides: list[Any] = list(port.shape)[1:]
    shape = (None, *(side if isinstance(side, int) else None for side in sides))
    return Input(shape, np.dtype(_DTYPES.get(port.type, "float32")).name)
