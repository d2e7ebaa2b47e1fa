"""The runtime: an artifact in, predictions out.

    with Runtime("model.clu") as runtime:
        runtime("cat.jpg").top(5)
        for prediction in runtime.stream(paths): ...

A picture is a path, a PIL image, a uint8 array [height, width(, channels)], or a tensor: a float32 array [3, height,
width], normalised already. Several are a list of these, or a float32 batch [B, 3, height, width].

Any number of threads may call one runtime; each gets what it would get alone. A runtime works in processes forked from
its own, where its engine runs in another process, and can be sent to a process as a path (pickled).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, overload
from weakref import WeakSet

import numpy as np
from PIL import Image

from cluinfer import forks
from cluinfer.artifact import Artifact, Manifest, read_artifact
from cluinfer.door import Door
from cluinfer.engine_process import RemoteSession
from cluinfer.engines import Array, Session
from cluinfer.engines.hardware import cores
from cluinfer.errors import ArtifactError, CluinferError, EngineError, PictureError
from cluinfer.graph import INPUT, Promise
from cluinfer.loading import engine_for, load, options_for
from cluinfer.prediction import Prediction, Timings, predictions
from cluinfer.preprocess import Picture, check_tensor, normalise, shown
from cluinfer.stream import Failure, Stream

__all__ = ["Failure", "Runtime"]

_CLOSED = "the runtime is closed: open the artifact again"
_PREPARERS = 8  # threads; more wait for memory
_AHEAD = 2  # groups of a list that are prepared while one is at work
_POOL = "cluinfer-worker"


class Runtime:
    """One artifact, open. It holds threads and memory until it is closed.

    `device`: CPU or GPU, to insist on one. `threads`, `streams` (pictures or batches worked on side by side) and `hint`
    (latency, throughput): as the engine takes them; by default the hint of the build, the rest left to the engine.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str | None = None,
        *,
        threads: int | None = None,
        streams: int | None = None,
        hint: str | None = None,
    ) -> None:
        self._path = Path(model).absolute()
        self._device, self._threads, self._streams, self._hint = device, threads, streams, hint
        artifact = read_artifact(self._path)
        self._manifest = artifact.manifest
        self._lock = threading.Lock()
        self._closed = False
        self._open: _Open | None = self._load(artifact)
        forks.watch(self)

    @property
    def manifest(self) -> Manifest:
        """What the artifact says of itself."""
        return self._manifest

    @property
    def promise(self) -> Promise:
        """What the graph says of itself: architecture, size, classes, maps."""
        return self._manifest.promise

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    @overload
    def __call__(self, pictures: Picture) -> Prediction: ...  # type: ignore[overload-overlap]  # a text is a sequence

    @overload
    def __call__(self, pictures: Sequence[Picture | Array]) -> list[Prediction]: ...

    @overload
    def __call__(self, pictures: Array) -> Prediction | list[Prediction]: ...

    def __call__(self, pictures: Picture | Array | Sequence[Picture | Array]) -> Prediction | list[Prediction]:
        """One picture: its prediction. A list or a batch of tensors: the predictions of all, in order."""
        opened = self._opened()
        with opened.door:
            return opened.predict(pictures)

    def stream(
        self, pictures: Iterable[Picture | Array], batch: int | None = None, *, ahead: int | None = None
    ) -> Generator[Prediction | Failure, None, None]:
        """The predictions of any number of pictures, in order; a `Failure` in the place of one that cannot be served.

        Pictures are prepared while others are at work in the engine. `batch`: how many the engine is given at once, by
        default as many as it was built for. `ahead`: how many pictures are read at most before the first of them is
        handed out. The iterable is read in a thread of its own; leaving the loop ends all work, as does `close()` of
        what this gives.
        """
        return self._opened().stream(pictures, batch, ahead)

    def predict_async(
        self, pictures: Picture | Array | Sequence[Picture | Array]
    ) -> Future[Prediction | list[Prediction]]:
        """What calling gives, as a future: the work is done in another thread."""
        return self._opened().submit(pictures)

    def run(self, tensor: Array) -> dict[str, Array]:
        """The outputs of the graph as they are, for a float32 batch [B, 3, height, width]."""
        opened = self._opened()
        with opened.door:
            return opened.session.run({INPUT: check_tensor(tensor, self.promise.size)})

    def close(self) -> None:
        """Let calls at work end, those of `predict_async` too; end streams; free threads, engine and memory."""
        with self._lock:
            opened, self._open, self._closed = self._open, None, True
        if opened is not None:
            opened.close()

    def after_fork(self) -> None:
        """The child opens the artifact anew when it needs it."""
        self._lock = threading.Lock()
        self._open = None

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None:
            with self._lock:
                if self._closed:
                    raise EngineError(_CLOSED)
                self._open = opened = self._open or self._load(self._same_artifact())
        return opened

    def _same_artifact(self) -> Artifact:
        """Read anew: neither the graph nor the engine is kept in memory."""
        artifact = read_artifact(self._path)
        if artifact.manifest != self._manifest:
            raise ArtifactError(f"{self._path}: the file has changed since this runtime was made; make another")
        return artifact

    def _load(self, artifact: Artifact) -> _Open:
        options = options_for(artifact, self._threads, self._streams, self._hint)
        if forks.engines_unsafe():
            return _Open(RemoteSession(self._path, self._device, options), self.promise)
        return _Open(load(artifact, engine_for(artifact, self._device), options), self.promise)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._closed:
            raise EngineError(_CLOSED)
        return _restored, (str(self._path), self._device, self._threads, self._streams, self._hint)

    def __repr__(self) -> str:
        built = self._manifest.built
        what = f"{self.promise.arch}, {built.engine} {built.precision}, batch {built.batch}"
        return f"Runtime({str(self._path)!r}: {what}{', closed' if self._closed else ''})"


def _restored(path: str, device: str | None, threads: int | None, streams: int | None, hint: str | None) -> Runtime:
    return Runtime(path, device, threads=threads, streams=streams, hint=hint)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What one picture has become: a tensor [n, 3, height, width], and the crops that the model sees in it."""

    tensor: Array
    crops: tuple[Image.Image | None, ...]  # None for tensors that were given
    seconds: float


class _Open:
    """What a runtime holds in one process."""

    def __init__(self, session: Session, promise: Promise) -> None:
        self.session = session
        self.promise = promise
        self.door = Door(_CLOSED)
        self.streams: WeakSet[Stream[_Prepared, Prediction]] = WeakSet()
        # Threads start when there is work. Callers: one more than are at work in the engine, to have the next at hand.
        self.preparers = ThreadPoolExecutor(min(cores(), _PREPARERS), _POOL)
        self.callers = ThreadPoolExecutor(session.streams + 1, _POOL)

    def predict(self, pictures: Any) -> Prediction | list[Prediction]:
        if isinstance(pictures, np.ndarray) and pictures.dtype != np.uint8 and pictures.ndim != 3:
            return self.infer([self.prepare(pictures)])
        if not isinstance(pictures, (list, tuple)):
            return self.infer([self.prepare(pictures)])[0]
        if not pictures:
            raise PictureError("wanted a picture or a list of them, got an empty list")
        return self.predict_list(pictures)

    def predict_list(self, pictures: Sequence[Any]) -> list[Prediction]:
        """Groups of a list are prepared by the pool while this thread has the one before at work in the engine."""
        size = self.session.batch * self.session.streams
        waiting: deque[tuple[int, Future[_Prepared]]] = deque()
        made: list[Prediction] = []
        try:
            for index, picture in enumerate(pictures):
                waiting.append((index, self.preparers.submit(self.prepare, picture)))
                if len(waiting) >= (1 + _AHEAD) * size:
                    made += self.infer([_result(*waiting.popleft()) for _ in range(size)])
            while waiting:
                made += self.infer([_result(*waiting.popleft()) for _ in range(min(size, len(waiting)))])
        finally:
            for _, each in waiting:
                each.cancel()
        return made

    def prepare(self, picture: Any) -> _Prepared:
        start = time.perf_counter()
        if isinstance(picture, np.ndarray) and picture.dtype != np.uint8:
            tensor = check_tensor(picture[None] if picture.ndim == 3 else picture, self.promise.size)
            return _Prepared(tensor, (None,) * len(tensor), time.perf_counter() - start)
        how = self.promise.preprocess
        crop = shown(picture, self.promise.size, how)
        return _Prepared(normalise(crop, how)[None], (crop,), time.perf_counter() - start)

    def infer(self, parts: Sequence[_Prepared]) -> list[Prediction]:
        start = time.perf_counter()
        tensor = parts[0].tensor if len(parts) == 1 else np.concatenate([part.tensor for part in parts])
        outputs = self.session.run({INPUT: tensor})
        ran = time.perf_counter()
        before, inference = sum(part.seconds for part in parts), ran - start
        crops = [crop for part in parts for crop in part.crops]
        made = predictions(outputs, self.promise, crops, Timings(before, inference, 0.0))
        timings = Timings(before, inference, time.perf_counter() - ran)
        for each in made:
            each.timings = timings
        return made

    def submit(self, pictures: Any) -> Future[Prediction | list[Prediction]]:
        self.door.enter()
        try:
            future = self.callers.submit(self.predict, pictures)
        except BaseException:
            self.door.leave()
            raise
        future.add_done_callback(lambda _: self.door.leave())
        return future

    def stream(
        self, pictures: Any, batch: int | None, ahead: int | None
    ) -> Generator[Prediction | Failure, None, None]:
        one = isinstance(pictures, (str, bytes)) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4)
        if one or not isinstance(pictures, Iterable):
            kind = type(pictures).__name__
            raise PictureError(f"wanted an iterable of pictures, got {kind}; for one picture, call the runtime")
        for name, number in (("batch", batch), ("ahead", ahead)):
            if number is not None and not (isinstance(number, int) and number >= 1):
                raise EngineError(f"{name} must be a positive number, got {number!r:.60}")
        batch = batch or self.session.batch
        ahead = ahead or batch * (self.session.streams + 2) + min(cores(), _PREPARERS)
        with self.door:
            made = Stream(pictures, self.prepare_one, self.run_group, self.preparers, self.callers, batch, ahead)
            self.streams.add(made)
        return made.results()

    def prepare_one(self, picture: Any) -> _Prepared:
        prepared = self.prepare(picture)
        if len(prepared.crops) != 1:
            raise PictureError(f"wanted one picture at a time, got a batch of {len(prepared.crops)}")
        return prepared

    def run_group(self, parts: Sequence[_Prepared]) -> list[Prediction]:
        with self.door:
            return self.infer(parts)

    def close(self) -> None:
        for stream in list(self.streams):
            stream.stop(_CLOSED)
        self.door.shut()
        # The last of the work may be what closes: a thread cannot wait for itself.
        wait = not threading.current_thread().name.startswith(_POOL)
        self.preparers.shutdown(wait)
        self.callers.shutdown(wait)
        self.session.close()


def _result(index: int, future: Future[_Prepared]) -> _Prepared:
    try:
        return future.result()
    except CluinferError as error:
        raise type(error)(f"picture {index} of the list: {error}") from error
