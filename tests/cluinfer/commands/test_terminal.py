"""What the commands print: aligned, on the right stream, and no more than is wanted."""

from __future__ import annotations

import sys
import warnings

import pytest

from cluinfer.commands import terminal
from cluinfer.errors import CluinferWarning


class Terminal:
    """Standard error as a terminal gives it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def two_steps(keep: bool = True) -> None:
    with terminal.progress(keep) as step:
        step("reading")
        step("writing")


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("name", "ms", "why"), [("a", "1.5", "it is"), ("long", "10.25", "")], text=(0, 2))
    assert capsys.readouterr().out == "name     ms  why\na       1.5  it is\nlong  10.25\n"


def test_fields(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_fields([("engine", "ort"), ("", "because"), ("size", "")])
    assert capsys.readouterr().out == "engine  ort\n        because\nsize\n"


def test_progress_where_nobody_watches_is_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    two_steps()
    assert capsys.readouterr() == ("", "reading ...\nwriting ...\n")
    two_steps(keep=False)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_keeps_the_steps_and_their_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    two_steps()
    assert "reading  " in screen.text
    assert screen.text.index("reading  ") < screen.text.index("writing  ")
    assert " s" in screen.text


def test_progress_of_a_file_whose_name_looks_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress() as step:
        step("reading [/a].pt")
    assert "reading [/a].pt  " in screen.text


def test_progress_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    two_steps()
    assert screen.text == "reading ...\nwriting ...\n"


def test_only_our_warnings_are_shown_and_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), terminal.warnings_as_lines():
        warnings.warn("deep in another package", DeprecationWarning, stacklevel=1)
        for _ in range(2):
            warnings.warn("runs slower here", CluinferWarning, stacklevel=1)
        raise KeyError
    assert capsys.readouterr() == ("", "cluinfer: warning: runs slower here\n")


def test_warnings_paint_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.warnings_as_lines():
        warnings.warn("an engine says \x1b[2J\nthis", CluinferWarning, stacklevel=1)
    assert capsys.readouterr().err == "cluinfer: warning: an engine says \\x1b[2J this\n"
