"""Every Python block of README.md and docs runs, on one small checkpoint, and prints what the page says; every command
line is one that cluinfer understands.

A page's blocks share their names, as if typed one after another. A ```text block that follows is what a block prints.
A block that cannot run here says why in a comment before it: <!-- not run: REASON -->.
"""

from __future__ import annotations

import io
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluinfer.cli import _parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.M | re.S,
)
EXPORTS = "graph = to_onnx(model, "  # the block of README.md that makes the graph all others run on


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    code: str
    output: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def run(self, names: dict[str, Any]) -> None:
        """Executed where it stands in the page, so that a traceback shows the page's own lines."""
        code = compile("\n" * (self.line - 1) + self.code, str(self.page), "exec")
        printed = io.StringIO()
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the checkpoint is of no published size, which loading it says
            exec(code, names)
        if self.output is not None:
            assert printed.getvalue() == self.output, f"{self} prints something else"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        yield Block(page, line, found["code"], found["output"], found["reason"])


def test_every_block_is_found_and_those_not_run_say_why() -> None:
    for page in PAGES:
        found = list(blocks(page))
        assert len(found) == len(re.findall(r"^ *```python", page.read_text(encoding="utf-8"), re.M)), page
        assert all(block.reason is None or len(block.reason.split()) >= 3 for block in found), page
    assert len(list(blocks(ROOT / "README.md"))) > 2


def test_every_command_line_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line for page in PAGES for line in re.findall(r"^\$ (cluinfer .*)$", page.read_text(encoding="utf-8"), re.M)
    ]
    assert len(lines) > 1
    for line in lines:
        try:
            _parser().parse_args(shlex.split(line, comments=True)[1:])
        except SystemExit as ending:  # --help and --version end, too
            assert not ending.code, f"{line}: {capsys.readouterr().err}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader would be: beside a checkpoint and a picture."""
    torch = pytest.importorskip("torch")
    import golden_cases

    from cluinfer.export.models import build
    from cluinfer.export.models.config import config

    model = build(config("fec", (1, 1, 1, 1), (16, 16, 32, 32), (4, 4, 8, 8), 24, (4, 4, 2, 2), num_classes=8))
    golden_cases.fill(model, "fec")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    rows, columns = np.mgrid[:300, :400]
    picture = np.stack([rows % 256, columns % 256, (rows * columns) // 500 % 256], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_runs(folder: Path) -> None:
    """One test, so that the checkpoint is exported once: by the block that shows how."""
    every = [block for page in PAGES for block in blocks(page) if block.reason is None]
    first = next(block for block in every if EXPORTS in block.code)
    exported: dict[str, Any] = {}
    first.run(exported)
    write(exported["graph"].SerializeToString(), folder)
    for page in PAGES:
        names: dict[str, Any] = {}
        for block in every:
            if block == first and page == first.page:
                names |= exported
            elif block.page == page:
                block.run(names)


def write(graph: bytes, folder: Path) -> None:
    """As model.onnx, and as an artifact that is compiled when it is opened."""
    import onnx

    from cluinfer.artifact import Built, write_artifact
    from cluinfer.graph import KEY, Promise

    (folder / "model.onnx").write_bytes(graph)
    held = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    built = Built("ort", "fp32", "latency", 1, {}, {}, "2026-01-01")
    write_artifact(folder / "model.clu", graph, None, Promise.from_json(held[KEY]), built)
