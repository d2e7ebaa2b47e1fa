"""A door that calls go through: open until it is shut, and shutting it waits for those inside."""

from __future__ import annotations

from threading import Condition
from types import TracebackType

from cluinfer.errors import EngineError


class Door:
    """`with door: ...` is inside; once it is shut, that is an EngineError with this message."""

    def __init__(self, closed: str, shut: bool = False) -> None:
        self._closed = closed
        self._inside = 0
        self._shut = shut
        self._changed = Condition()

    @property
    def is_shut(self) -> bool:
        """Whether nobody comes in any more."""
        return self._shut

    def enter(self) -> None:
        """Go in; `leave` must follow, from any thread."""
        with self._changed:
            if self._shut:
                raise EngineError(self._closed)
            self._inside += 1

    def leave(self) -> None:
        """Come out."""
        with self._changed:
            self._inside -= 1
            if self._shut and not self._inside:
                self._changed.notify_all()

    def shut(self) -> bool:
        """Let nobody in any more and wait until all are out; false if it had been shut before."""
        with self._changed:
            first, self._shut = not self._shut, True
            self._changed.wait_for(lambda: not self._inside)
            return first

    def __enter__(self) -> Door:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
