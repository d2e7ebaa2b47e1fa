"""`make demo` shows commands that cluinfer understands, on files that are there; running it is for `make demo`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cluinfer.cli import _parser

ROOT = Path(__file__).parent.parent.parent


def commands() -> list[list[str]]:
    script = (ROOT / "examples" / "demo.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^run (.*)$", script.replace("$shapes", "examples/shapes"), re.M)
    return [shlex.split(line) for line in lines]


def test_every_command_is_understood() -> None:
    found = [words[1:] for words in commands() if words[0] == "cluinfer"]
    parsed = [_parser().parse_args(words) for words in found]
    assert [each.command for each in parsed] == ["build", "predict", "bench"]
    assert parsed[0].output == parsed[1].model == parsed[2].model == "demo/shapes.clu"
    assert parsed[1].report == "demo/report.html"


def test_every_file_is_there() -> None:
    paths = [word for words in commands() for word in words if word.startswith("examples/")]
    assert len(paths) == 3
    assert all((ROOT / path).is_file() for path in paths)
