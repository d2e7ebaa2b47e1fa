"""`cluinfer export` as its user meets it: a file in, a file out, and nothing lost when it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from cluinfer.cli import main
from cluinfer.export.models import ARCHS, build
from cluinfer.export.models.config import config

TINY = config("coc", (1, 1), (16, 24), (1, 1), 24, (2, 2), (2, 1), (2, 2), num_classes=3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(build(TINY).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_export_writes_the_graph_and_says_what_it_did(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = checkpoint.with_name("names.txt")
    names.write_text("cat\ndog\nhorse\n", encoding="utf-8")
    done = main(["export", str(checkpoint), "--size", "32", "--explain", "--evidence", "2", "--classes", str(names)])
    out, err = capsys.readouterr()
    assert done == 0
    graph = onnx.load(checkpoint.with_suffix(".onnx"))
    assert graph.graph.output[0].name == "logits"
    assert "linear_to_conv" in out
    assert f"{checkpoint.with_suffix('.onnx')}: " in out
    assert "warning: " in err and "not a published size" in err and "images of" not in err
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["model.onnx", "model.pt", "names.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["."], ".: wanted a checkpoint file, found a folder"),
        (["none.pt"], "none.pt: wanted a checkpoint file, found nothing"),
        (["model.pt", "-o", "model.pt"], "-o model.pt: wanted the name of a file to write, but this is what is read"),
        (
            ["model.pt", "-o", "none/model.onnx"],
            "-o none/model.onnx: wanted the name of a file to write, but its folder does not exist",
        ),
        (["model.pt", "--attention", "cat"], "--attention cat: wanted class numbers such as 3,17"),
        (["model.pt", "--classes", "none.txt"], "--classes none.txt: wanted a text file with one name a line"),
        (["model.pt", "--set", "gird=3"], "--set gird=3: wanted grid, fold, heads, size"),
        (["model.pt", "--size", "9999999x32"], "size '9999999x32': wanted a positive number up to 65536"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_loses_nothing(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    before = checkpoint.read_bytes()
    assert main(["export", *arguments]) == 2
    assert f"cluinfer: error: {message}" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.pt"]


def test_a_size_that_nobody_gave_is_said(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "--maps", "none"]) == 0
    assert "warning: images of 224x224 were assumed, a checkpoint does not say" in capsys.readouterr().err
    assert main(["export", str(checkpoint), "--maps", "none", "--set", "size=32"]) == 0
    assert "images of" not in capsys.readouterr().err


def test_what_was_assumed_is_said_when_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build(replace(ARCHS["coc_tiny"], num_classes=2)).state_dict(), tmp_path / "model.pt")
    assert main(["export", str(tmp_path / "model.pt"), "--size", "250"]) == 2
    err = capsys.readouterr().err
    assert "its shapes fit coc_tiny, coc_tiny2, coc_tiny_plain" in err
    assert "nearest sizes that work: " in err
