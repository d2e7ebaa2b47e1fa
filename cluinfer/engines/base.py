"""The contract of an engine: it compiles a graph once and runs it many times.

    engine.compile(graph, options)  -> blob      ONNX bytes in; bytes that load() takes, on this kind of machine
    engine.load(blob, options)      -> session   threads, streams and hint may differ from compile(), the rest may not
    session.run({name: array})      -> {name: array}    from any number of threads at once; the batch is free
    session.close()                              waits for runs at work and frees everything; run() then raises
                                                 EngineError; twice is harmless
    session.stages(feeds)    -> {stage: seconds}   of one run, where the engine can tell them apart; else nothing
    session.notes()          -> {name: text}       how it runs, for the record of a measurement
    session.batch, .streams                      images of one piece, and how many pieces are worked on side by side

    engine.name, .extra, .precisions             its name, the extra of pyproject.toml, what `precision` may be
    engine.device                                CPU or GPU
    engine.check()                               raises MissingPackageError or EngineError where it cannot work here
    engine.versions(), .machine()   -> {name: text}    what there is here: packages and their versions; the hardware
    engine.bound_to                              the names of those that a blob depends on
    engine.misfit(versions, machine)-> text      why a blob from there does not fit here; empty if it does

Every array is NumPy's; what comes back belongs to the caller. What is wrong with a graph, a blob or an input is an
EngineError or a ShapeError. The cluster operators compute in float32 in every precision.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer import forks
from cluinfer.door import Door
from cluinfer.engines.hardware import cpu
from cluinfer.errors import EngineError, ShapeError

Array = NDArray[Any]
LATENCY, THROUGHPUT = "latency", "throughput"


@dataclass(frozen=True)
class Options:
    """How to compile and to run.

    batch: the size that the graph is compiled for; a run of any other is cut into pieces, the last one padded.
    threads, streams: None leaves them to the engine. own: for one engine alone (trt/settings.py).
    """

    precision: str = "fp32"
    hint: str = LATENCY
    threads: int | None = None
    streams: int | None = None
    batch: int = 1
    own: object = None

    def __post_init__(self) -> None:
        if self.hint not in (LATENCY, THROUGHPUT):
            raise EngineError(f"hint must be {LATENCY} or {THROUGHPUT}, got {self.hint!r}")
        for name in ("threads", "streams", "batch"):
            value = getattr(self, name)
            if not (value is None and name != "batch") and not (isinstance(value, int) and 1 <= value <= 1 << 16):
                raise EngineError(f"{name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Input:
    """What one input must be; None is a side that is free, as the batch is."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if side is None else str(side) for side in self.shape)}]"


class Session(ABC):
    """A compiled graph, ready to run. An engine's own session gives `_run` and `_free`."""

    def __init__(self, inputs: Mapping[str, Input], outputs: Sequence[str], batch: int, streams: int) -> None:
        self.inputs = inputs
        self.outputs = tuple(outputs)
        self.batch = batch
        self.streams = streams
        self._door = Door("the session is closed: load it again")
        forks.watch(self)

    @abstractmethod
    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """All outputs for inputs that `check` has let through."""

    @abstractmethod
    def _free(self) -> None:
        """Free what the session holds; called once, when nothing runs."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs for these inputs."""
        with self._door:
            return self._run(self.check(feeds))

    def stages(self, feeds: Mapping[str, Array]) -> Mapping[str, float]:
        """Seconds of each stage of one run; empty where the engine cannot tell them apart."""
        return {}

    def notes(self) -> Mapping[str, str]:
        """How it runs, for the record of a measurement."""
        return {}

    def close(self) -> None:
        """Wait for the runs at work, then free what the session holds."""
        if self._door.shut():
            self._free()

    def after_fork(self) -> None:
        """The child has a session without threads, which may be neither run nor freed."""
        forks.keep_for_ever(self)
        self._door = Door("the session belongs to the process that this one was forked from: load it here", shut=True)

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
        sizes = {len(array) for array in checked.values()}
        if len(sizes) > 1:
            raise ShapeError("the inputs have different batches")
        if 0 in sizes:
            raise ShapeError("an empty batch: at least one image is needed")
        return checked

    def pieces(self, feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
        """The feeds cut into batches of the size that the graph was compiled for, the last one padded with zeros."""
        total = len(next(iter(feeds.values())))
        return [
            {name: _pad(array[start : start + self.batch], self.batch) for name, array in feeds.items()}
            for start in range(0, total, self.batch)
        ]

    def joined(self, pieces: Sequence[Sequence[Array]], total: int) -> dict[str, Array]:
        """The outputs of all pieces, in the order of `outputs`, as one batch of this size."""
        if len(pieces) == 1:
            return {name: array[:total] for name, array in zip(self.outputs, pieces[0], strict=True)}
        columns = zip(*pieces, strict=True)
        return {name: np.concatenate(parts)[:total] for name, parts in zip(self.outputs, columns, strict=True)}


class Engine(ABC):
    """Compiles graphs and loads what it compiled."""

    name: str
    extra: str
    precisions: tuple[str, ...]
    device: str
    bound_to: tuple[str, ...]

    def half_beside_int8(self) -> bool:
        """Whether what int8 leaves may be in fp16, for an engine that takes its types from the graph."""
        return True

    @abstractmethod
    def check(self) -> None:
        """Raise where this engine cannot work on this machine, saying why."""

    @abstractmethod
    def compile(self, graph: bytes, options: Options) -> bytes:
        """Compile an ONNX graph with cluinfer operators."""

    @abstractmethod
    def load(self, blob: bytes, options: Options) -> Session:
        """Make what `compile` gave ready to run."""

    def as_compiled(self, blob: bytes, options: Options) -> Options:
        """The options to compile its graph anew with, where this blob does not fit: whatever else it was made for."""
        return options

    @abstractmethod
    def package(self) -> tuple[str, str]:
        """The name of the package that does the work, and its version."""

    def machine(self) -> dict[str, str]:
        """The hardware here."""
        return dict(cpu())

    def versions(self) -> dict[str, str]:
        """The software here."""
        from cluinfer import __version__

        package, version = self.package()
        return {
            "cluinfer": __version__,
            package: version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }

    def misfit(self, versions: Mapping[str, str], machine: Mapping[str, str]) -> str:
        """Why a blob that was compiled there does not fit here."""
        here, there = {**self.versions(), **self.machine()}, {**versions, **machine}
        differing = [name for name in self.bound_to if here.get(name) != there.get(name)]
        unknown = "unknown"
        return ", ".join(
            f"{name} {there.get(name) or unknown:.200} there, {here.get(name) or unknown} here" for name in differing
        )


def _pad(array: Array, batch: int) -> Array:
    if len(array) == batch:
        return array
    return np.concatenate([array, np.zeros((batch - len(array), *array.shape[1:]), array.dtype)])
