"""docs/quickstart.md from top to bottom: its commands are run, then its Python, and what the page shows comes out.

In what a command prints, numbers and the choice of the engine differ from machine to machine and are not compared.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import QUICK_START, ROOT, blocks

from cluinfer.cli import main

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
DIFFERS = re.compile(r"\d[\d.]*(?:e[+-]\d+)?|(?<=^engine ).*", re.M)


@dataclass(frozen=True)
class Command:
    """A line after a $, and what the page says that it prints: nothing where that is left to the reader."""

    line: str
    output: str


def commands() -> list[Command]:
    blocks_ = CONSOLE.findall(QUICK_START.read_text(encoding="utf-8"))
    parts = [part.partition("\n") for block in blocks_ for part in block.split("$ ")[1:]]
    return [Command(line, output) for line, _, output in parts]


def run(command: Command, folder: Path) -> str:
    program, *arguments = shlex.split(command.line)
    if program == "cluinfer":
        assert main(arguments) == 0
        return ""
    assert program == "python"
    ran = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout


def test_the_quick_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    Path("examples").symlink_to(ROOT / "examples")
    shown = commands()
    assert [command.line.split()[1] for command in shown[1:3]] == ["build", "predict"]
    for command in shown:
        printed = run(command, tmp_path) + capsys.readouterr().out
        assert printed
        if command.output:
            assert DIFFERS.sub("#", printed) == DIFFERS.sub("#", command.output), command.line
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks(QUICK_START):
        block.run(names)
    assert {"stage1.png", "segments.png", "evidence.png"} <= {path.name for path in tmp_path.iterdir()}
