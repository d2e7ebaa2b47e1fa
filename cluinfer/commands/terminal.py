"""What the commands share on a terminal: exit codes, tables, JSON, progress, and warnings as lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

DONE, FAULTY, ERROR, INTERRUPTED, BROKEN_PIPE, TERMINATED = 0, 1, 2, 130, 141, 143

Progress = Callable[[str], None]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json

    print(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> None:
    """Columns as wide as their widest cell; those in `text` aligned left, the others, numbers, right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if i in text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """A name and what it is, a line each; an empty name goes on with the field above."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}  {value}".rstrip())


@contextmanager
def progress(keep: bool = True) -> Iterator[Progress]:
    """Shows on standard error what is being done: on a terminal a spinner, elsewhere a line a step.

    keep: steps stay to be read, on a terminal with the seconds each took; without it they vanish, or are not shown.
    """
    console = _terminal()
    if console is None:
        yield lambda step: print(f"{step} ...", file=sys.stderr, flush=True) if keep else None
        return
    from rich.markup import escape  # a step names files, which may look like markup

    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running and keep:
            step, start = running.pop()
            took = f"[dim]{time.perf_counter() - start:.1f} s[/dim]"
            console.print(f"{escape(step)}  {took}", highlight=False)

    with console.status("starting") as status:

        def show(step: str) -> None:
            finish()
            running[:] = [(step, time.perf_counter())]
            status.update(f"{escape(step)} ...")

        yield show
        finish()


def _terminal() -> Any:
    """A rich console on standard error where that is a terminal; rich comes with the extra `export` only."""
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(stderr=True)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Our own warnings as one line each, others not at all: other packages' are about themselves."""
    import warnings

    from cluinfer.errors import CluinferWarning, one_line

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:  # what was assumed may be why it failed
            said = (str(each.message) for each in caught if issubclass(each.category, CluinferWarning))
            for message in dict.fromkeys(said):
                print(f"cluinfer: warning: {one_line(message, 2000)}", file=sys.stderr)
