"""Small checks of parsed JSON, to be put together: each gives a clean copy of a value, or says what is wrong with it.

A check is called with a value and where it stands in the document.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], Any]

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


class WrongError(ValueError):
    """What the file holds cannot be taken; the message says what, in one line, without the file's name."""


class UnknownError(WrongError):
    """Something that torch might write, but that is not known here: perhaps of another version."""


def show(value: Any) -> str:
    """A value from the file as short, printable ASCII on one line."""
    written = _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    return written if len(written) <= 160 else f"{written[:157]}..."


def integer(low: int = -(2**63), high: int = 2**63 - 1) -> Check:
    """An integer within bounds, by default those of int64; true and false are none."""

    def check(value: Any, where: str) -> Any:
        if type(value) is not int or not low <= value <= high:
            raise WrongError(f"{where}: wanted an integer from {low} to {high}, found {show(value)}")
        return value

    return check


def boolean(value: Any, where: str) -> Any:
    """True or false."""
    if not isinstance(value, bool):
        raise WrongError(f"{where}: wanted true or false, found {show(value)}")
    return value


def number(value: Any, where: str) -> Any:
    """A number, or what torch writes for the three that JSON does not have."""
    if type(value) not in (int, float) and value not in ("Infinity", "-Infinity", "NaN"):
        raise WrongError(f"{where}: wanted a number, found {show(value)}")
    return value


def text(pattern: str, limit: int = 500) -> Check:
    """A string that a regular expression matches as a whole."""
    compiled = re.compile(pattern)

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, str) or len(value) > limit or not compiled.fullmatch(value):
            raise WrongError(f"{where}: not as torch writes it: {show(value)}")
        return value

    return check


def one_of(*allowed: Any) -> Check:
    """One of a few values."""

    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(known) and value == known for known in allowed):
            raise UnknownError(f"{where}: {show(value)} is none of those known here")
        return value

    return check


def nullable(check: Check) -> Check:
    """Null, or a value that passes the check."""
    return lambda value, where: None if value is None else check(value, where)


def list_of(check: Check, limit: int = 100_000) -> Check:
    """A list whose elements all pass the check."""

    def check_list(value: Any, where: str) -> Any:
        if not isinstance(value, list) or len(value) > limit:
            raise WrongError(f"{where}: wanted a list of up to {limit}, found {show(value)}")
        return [check(element, f"{where}[{i}]") for i, element in enumerate(value)]

    return check_list


def mapping(key: Check, check: Check, limit: int = 200_000) -> Check:
    """An object whose keys and values all pass their checks."""

    def check_mapping(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or len(value) > limit:
            raise WrongError(f"{where}: wanted an object of up to {limit} entries, found {show(value)}")
        return {key(k, f"a name in {where}"): check(v, f"{where}[{show(k)}]") for k, v in value.items()}

    return check_mapping


def record(fields: Mapping[str, Check], optional: Mapping[str, Any] | None = None) -> Check:
    """An object with these fields and no others; a missing optional one gets its default."""
    defaults = optional or {}

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise WrongError(f"{where}: wanted an object, found {show(value)}")
        for name in value:
            if name not in fields:
                raise UnknownError(f"{where}: has a field {show(name)}, which is not known here")
        clean = {}
        for name, check_field in fields.items():
            if name in value:
                clean[name] = check_field(value[name], f"{where}.{name}")
            elif name in defaults:
                clean[name] = defaults[name]
            else:
                raise UnknownError(f"{where}: has no field {name}")
        return clean

    return check


def union(tags: Mapping[str, Check]) -> Check:
    """An object with exactly one of these fields."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or len(value) != 1:
            raise WrongError(f"{where}: wanted an object with one field, found {show(value)}")
        ((tag, held),) = value.items()
        if tag not in tags:
            raise UnknownError(f"{where}: {show(tag)} is not read from files")
        return {tag: tags[tag](held, f"{where}.{tag}")}

    return check
