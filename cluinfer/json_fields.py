"""A JSON object from a file that may come from anyone, taken apart field by field.

Every field is taken once, by the kind that it must have; `end` refuses what is left. Errors name the field at fault and
show at most 60 characters of what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from cluinfer.errors import CluinferError, one_line

LIMIT = 1 << 16  # no side, count or index of a real graph exceeds this

Pair = tuple[int, int]


class Fields:
    """One object; a subclass says what file it comes from and what its errors are."""

    what: ClassVar[str]  # "the manifest"
    error: ClassVar[type[CluinferError]]

    def __init__(self, held: Any, path: str = "") -> None:
        self.path = path
        if not isinstance(held, dict):
            raise self.wrong(f"{path or 'it'} must be an object, got {held!r:.60}")
        self.held = dict(held)

    def wrong(self, message: str) -> CluinferError:
        """The error to raise."""
        return self.error(f"{self.what} is wrong: {message}")

    def take(self, name: str | int, kind: type | tuple[type, ...]) -> Any:
        """The value, of this kind; True is no number."""
        value = self.held.pop(name, None)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise self.wrong(f"{self.path}{name} must be {wanted}, got {value!r:.60}")
        return value

    def text(self, name: str | int) -> str:
        """Text that a terminal can show: nothing in it moves a cursor or paints."""
        value: str = self.take(name, str)
        if not value.isprintable():
            raise self.wrong(f"{self.path}{name} = {value!r:.60} is not plain text")
        return value

    def number(self, name: str | int, low: int = 0, high: int = LIMIT) -> int:
        """A whole number in low..high."""
        value: int = self.take(name, int)
        if not low <= value <= high:
            raise self.wrong(f"{self.path}{name} = {value!r:.60} is not in {low}..{high}")
        return value

    def real(self, name: str | int) -> float:
        """A finite number."""
        value = self.take(name, (int, float))
        if not abs(value) <= LIMIT:  # NaN, too
            raise self.wrong(f"{self.path}{name} = {value!r:.60} is not in -{LIMIT}..{LIMIT}")
        return float(value)

    def pair(self, name: str) -> Pair:
        """A list of two whole numbers from 1."""
        inner = type(self)(dict(enumerate(self.take(name, list))), f"{self.path}{name}.")
        pair = inner.number(0, 1), inner.number(1, 1)
        inner.end()
        return pair

    def floats(self, name: str) -> tuple[float, float, float]:
        """A list of three finite numbers."""
        inner = type(self)(dict(enumerate(self.take(name, list))), f"{self.path}{name}.")
        three = inner.real(0), inner.real(1), inner.real(2)
        inner.end()
        return three

    def texts(self, name: str) -> Mapping[str, str]:
        """An object of plain texts."""
        inner = type(self)(self.take(name, dict), f"{self.path}{name}.")
        for key in inner.held:
            if not key.isprintable():
                raise self.wrong(f"{self.path}{name} has a name {key!r:.60} that is not plain text")
        return {key: inner.text(key) for key in list(inner.held)}

    def end(self) -> None:
        """Refuse what has not been taken."""
        if self.held:
            raise self.wrong(f"unknown field {self.path}{one_line(str(next(iter(self.held))), 60)}")
