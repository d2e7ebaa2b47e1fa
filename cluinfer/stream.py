"""Pictures one after another: read and prepared while others are at work in the engine, handed out in their order.

- A thread of its own reads the iterable, so a result is handed out as soon as it is there, however long the next
  picture takes. It reads at most `ahead` pictures that have not been handed out.
- Pictures are prepared by a pool of threads and run in groups of `batch`; the last group may be smaller.
- A picture that cannot be prepared becomes a Failure in its place. What the iterable raises, or the engine, is raised
  in its place and ends the stream.
- Whoever leaves the iteration ends the work: what has not begun never does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, Generic, TypeVar

from cluinfer import forks
from cluinfer.errors import EngineError

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """A picture of a stream that could not be served, in its place."""

    index: int  # in the stream, from 0
    picture: Any  # as it was given
    error: Exception  # a PictureError, as a rule

    def __str__(self) -> str:
        return f"picture {self.index} of the stream: {self.error}"


class Stream(Generic[Prepared, Result]):
    """One iteration. `prepare` is called for each picture, `run` for each group of prepared ones."""

    def __init__(
        self,
        pictures: Iterable[Any],
        prepare: Callable[[Any], Prepared],
        run: Callable[[Sequence[Prepared]], Sequence[Result]],
        preparers: Executor,
        runners: Executor,
        batch: int,
        ahead: int,
    ) -> None:
        self._pictures, self._prepare, self._run = pictures, prepare, run
        self._preparers, self._runners = preparers, runners
        self._batch = batch
        self._slots = Semaphore(max(ahead, batch))  # less could never fill a group
        self._groups: SimpleQueue[Future[list[Result | Failure]] | BaseException | None] = SimpleQueue()
        self._stopped = Event()
        self._why: str | None = None
        forks.watch(self)

    def results(self) -> Generator[Result | Failure, None, None]:
        """The results in order; the work begins with the first that is asked for."""
        self._check()
        Thread(target=self._read, name="cluinfer-stream", daemon=True).start()
        try:
            while True:
                group = self._groups.get()
                self._check()
                if group is None:
                    return
                if isinstance(group, BaseException):
                    raise group
                for result in group.result():
                    self._slots.release()
                    yield result
                    self._check()
        finally:
            if self._why is None:
                self.stop(None)

    def stop(self, why: str | None) -> None:
        """End the work; whoever goes on iterating gets an EngineError that says why."""
        self._why = why
        self._stopped.set()
        self._slots.release()  # the reader may be waiting for one
        self._groups.put(None)  # and whoever iterates, for a group

    def after_fork(self) -> None:
        """The threads of this stream are not here."""
        self._why = "the stream belongs to the process that this one was forked from: begin one here"
        self._groups = SimpleQueue()

    def _check(self) -> None:
        if self._why is not None:
            raise EngineError(self._why)

    def _read(self) -> None:
        group: list[Future[Prepared | Failure]] = []
        index = 0
        end: BaseException | None = None
        try:
            pictures = iter(self._pictures)
            while True:
                self._slots.acquire()
                if self._stopped.is_set():
                    return
                try:
                    picture = next(pictures)
                except StopIteration:
                    break
                group.append(self._preparers.submit(self._prepared, index, picture))
                index += 1
                if len(group) == self._batch:
                    self._hand_over(group)
                    group = []
        except BaseException as error:  # also what only ends a thread: whoever iterates must not wait for ever
            end = error
        finally:
            if not self._stopped.is_set():
                self._finish(group, end)

    def _finish(self, group: list[Future[Prepared | Failure]], end: BaseException | None) -> None:
        try:
            if group:
                self._hand_over(group)
        except RuntimeError as error:  # the pool was shut down just now
            end = end or error
        self._groups.put(end)

    def _hand_over(self, group: list[Future[Prepared | Failure]]) -> None:
        self._groups.put(self._runners.submit(self._results_of, group))

    def _prepared(self, index: int, picture: Any) -> Prepared | Failure:
        if self._stopped.is_set():
            return Failure(index, picture, EngineError("the stream was left"))
        try:
            return self._prepare(picture)
        except Exception as error:  # whatever is wrong with this picture, the others are served
            return Failure(index, picture, error)

    def _results_of(self, group: list[Future[Prepared | Failure]]) -> list[Result | Failure]:
        prepared = [each.result() for each in group]
        good = [each for each in prepared if not isinstance(each, Failure)]
        if self._stopped.is_set() or not good:
            return [each for each in prepared if isinstance(each, Failure)]
        results = iter(self._run(good))
        return [each if isinstance(each, Failure) else next(results) for each in prepared]
