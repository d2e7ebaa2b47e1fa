"""The contract of an engine: it compiles a graph once and runs it many times.

    engine.compile(graph, options)  -> blob      ONNX bytes in; bytes that load() takes, on this kind of machine
    engine.load(blob, options)      -> session   threads and streams may differ from compile(), the rest may not
    session.run({name: array})      -> {name: array}    from any number of threads at once; the batch is free
    session.close()                              frees everything; run() then raises EngineError; twice is harmless

    engine.name, .extra, .precisions             its name, the extra of pyproject.toml, what `precision` may be
    engine.check()                               raises MissingPackageError or EngineError where it cannot work here

Every array is NumPy's; what comes back belongs to the caller. What is wrong with a graph, a blob or an input is an
EngineError or a ShapeError. The cluster operators compute in float32 in every precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import EngineError, ShapeError

Array = NDArray[Any]
LATENCY, THROUGHPUT = "latency", "throughput"


@dataclass(frozen=True)
class Options:
    """How to compile and to run.

    batch: the size that the graph is compiled for; a run of any other is cut into pieces, the last one padded.
    threads, streams: None leaves them to the engine.
    """

    precision: str = "fp32"
    hint: str = LATENCY
    threads: int | None = None
    streams: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.hint not in (LATENCY, THROUGHPUT):
            raise EngineError(f"hint must be {LATENCY} or {THROUGHPUT}, got {self.hint!r}")
        for name in ("threads", "streams", "batch"):
            value = getattr(self, name)
            if not (value is None and name != "batch") and not (isinstance(value, int) and 1 <= value <= 1 << 16):
                raise EngineError(f"{name} must be a positive number, got {value!r}")

    def at_load(self, threads: int | None, streams: int | None) -> Options:
        """The same, to be run with other threads and streams."""
        return replace(self, threads=threads, streams=streams)


@dataclass(frozen=True)
class Input:
    """What one input must be; None is a side that is free, as the batch is."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if side is None else str(side) for side in self.shape)}]"


class Session(ABC):
    """A compiled graph, ready to run."""

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for these inputs."""

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The feeds as contiguous arrays; refuses what the graph does not take."""
        if set(feeds) != set(self.inputs):
            raise ShapeError(f"inputs {sorted(self.inputs)} are wanted, got {sorted(feeds)}")
        checked = {}
        for name, wanted in self.inputs.items():
            array = np.asarray(feeds[name])
            fits = len(wanted.shape) == array.ndim and all(
                w is None or w == g for w, g in zip(wanted.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != wanted.dtype:
                raise ShapeError(f"{name} must be {wanted}, got {array.dtype} {list(array.shape)}")
            checked[name] = np.ascontiguousarray(array)
        if len({len(array) for array in checked.values()}) > 1:
            raise ShapeError("the inputs have different batches")
        return checked


class Engine(ABC):
    """Compiles graphs and loads what it compiled."""

    name: str
    extra: str
    precisions: tuple[str, ...]

    @abstractmethod
    def check(self) -> None:
        """Raise where this engine cannot work on this machine, saying why."""

    @abstractmethod
    def compile(self, graph: bytes, options: Options) -> bytes:
        """Compile an ONNX graph with cluinfer operators."""

    @abstractmethod
    def load(self, blob: bytes, options: Options) -> Session:
        """Make what `compile` gave ready to run."""
