"""Every Python block of README.md and docs runs, on one small checkpoint, and prints what the page says; every command
line is one that cluinfer understands.

A page's blocks share their names, as if typed one after another. Those of the quick start run where its commands have
run, in test_quick_start.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_blocks import QUICK_START, ROOT, blocks
from PIL import Image

from cluinfer.cli import _parser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPORTS = "graph = to_onnx(model, "  # the block of README.md that makes the graph all others run on


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
    every = [block for page in PAGES if page != QUICK_START for block in blocks(page) if block.reason is None]
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
    """As model.onnx, and as an artifact."""
    import onnx

    from cluinfer.artifact import Built, write_artifact
    from cluinfer.engines import Options, get_engine
    from cluinfer.graph import KEY, Promise

    (folder / "model.onnx").write_bytes(graph)
    held = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    engine = get_engine("ort")
    built = Built("ort", "fp32", "latency", 1, engine.versions(), engine.machine(), "2026-01-01")
    compiled = engine.compile(graph, Options())
    write_artifact(folder / "model.clu", graph, compiled, Promise.from_json(held[KEY]), built)
