"""`cluinfer predict` on an artifact that was built: lines, JSON, report, overlays, and pictures that are none."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import BuiltModel
from onnx_models import clustering
from PIL import Image

from cluinfer.artifact import Artifact, read_artifact, write_artifact
from cluinfer.build import build
from cluinfer.cli import main
from cluinfer.commands.predict import short_names
from cluinfer.export.onnx_file import write_onnx
from cluinfer.runtime import Runtime


@pytest.fixture
def pictures(built_model: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the pictures and model.clu."""
    shutil.copytree(built_model.pictures, tmp_path / "pictures")
    (tmp_path / "model.clu").symlink_to(built_model.artifact)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pictures"


def changed(built_model: BuiltModel, path: Path, **promise: object) -> Path:
    """The artifact with another promise."""
    artifact: Artifact = read_artifact(built_model.artifact)
    told = replace(artifact.manifest.promise, **promise)  # type: ignore[arg-type]
    write_artifact(path, artifact.graph(), artifact.engine(), told, artifact.manifest.built)
    return path


@pytest.mark.usefixtures("pictures")
def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "model.clu", "pictures/*.png", "pictures/b.jpg", "--threads", "1", "--top", "2"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    with Runtime("model.clu", threads=1) as runtime:
        scores = runtime("pictures/a.png").top(2)  # type: ignore[union-attr]
    said = ", ".join(f"{score.name} {score.probability * 100:.1f} %" for score in scores)
    assert lines[0] == f"pictures/a.png: {said}"
    assert re.fullmatch(r"pictures/c\.png: (cat|dog|horse) [\d.]+ %, (cat|dog|horse) [\d.]+ %", lines[1])
    assert lines[2] == "pictures/damaged.png: wanted a picture, found a file of no format that Pillow reads"
    assert lines[3].startswith("pictures/b.jpg: ")
    assert lines[4:] == ["4 pictures, 1 not served"]
    assert printed.err == ""


@pytest.mark.usefixtures("pictures")
def test_one_picture_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "model.clu", "pictures/a.png", "--threads", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    assert printed.out.count("%") == 3


@pytest.mark.usefixtures("pictures")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "model.clu", "pictures", "gone.png", "--json", "--batch", "2", "--top", "1"]) == 1
    printed = capsys.readouterr()
    held = json.loads(printed.out)
    assert (held["model"], held["against"], held["failed"]) == ("model.clu", None, 2)
    names = ["pictures/a.png", "pictures/b.jpg", "pictures/c.png", "pictures/damaged.png", "gone.png"]
    assert [each["picture"] for each in held["pictures"]] == names
    first, damaged, gone = held["pictures"][0], *held["pictures"][3:]
    with Runtime("model.clu") as runtime:
        (score,) = runtime("pictures/a.png").top(1)  # type: ignore[union-attr]
    (top,) = first["top"]
    assert (top["index"], top["name"]) == (score.index, score.name)
    assert top["probability"] == pytest.approx(score.probability, abs=1e-6)
    assert list(first["clusters"]) == ["stage1", "stage2"]
    assert first["timings"].keys() == {"preprocess", "inference", "postprocess"}
    said = "pictures/damaged.png: wanted a picture, found a file of no format that Pillow reads"
    assert damaged == {"picture": "pictures/damaged.png", "error": said}
    assert gone == {"picture": "gone.png", "error": "gone.png: wanted a picture, found nothing"}
    assert printed.err == ""


def test_against_another(
    pictures: Path, built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "model.clu", "pictures", "--against", str(built_model.artifact), "--top", "1"]
    assert main([*command, "--report", "report.html"]) == 1
    lines = capsys.readouterr().out.splitlines()
    same = "likeliest class the same for 1 of 1; 100 % of the points in the same cluster"
    for picture, other in zip(lines[:6:2], lines[1:6:2], strict=True):
        said = picture.partition(": ")[2]
        assert other.startswith(f"    the other: {said}; {same}; logits off by at most ")
    assert lines[7] == "4 pictures, 1 not served"
    assert lines[8].startswith(f"{built_model.artifact}: likeliest class the same for 3 of 3; 100 % of the points")
    page = Path("report.html").read_text(encoding="utf-8")
    assert str(built_model.artifact) in page
    assert main([*command, "--json"]) == 1
    held = json.loads(capsys.readouterr().out)
    assert held["against"] == str(built_model.artifact)
    first = held["pictures"][0]
    assert first["against"]["top"] == first["top"]
    assert first["agreement"]["overall"] == {
        "points": 80,
        "same": 80,
        "near_ties": None,
        "flips": 0,
        "agreement": 1.0,
        "fair_agreement": 1.0,
        "clear": None,
        "clear_agreement": None,
        "heads": [],
    }


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["here/a.png"], ["a.png"]),
        (["here/a.png", "/elsewhere/b/../a.png"], None),
        (["here/a.png", "here/b/a.png", "./here/a.png"], ["a.png", "b/a.png", "a.png"]),
        (["../x/a.png", "../y/a.png"], ["x/a.png", "y/a.png"]),
    ],
)
def test_pictures_are_called_by_what_tells_them_apart(paths: list[str], names: list[str] | None) -> None:
    expected = names or [f"{Path.cwd().as_posix()[1:]}/here/a.png", "elsewhere/a.png"]
    assert short_names(list(map(Path, paths))) == expected


def test_report_and_overlays(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "again").mkdir()
    shutil.copy(pictures / "a.png", pictures / "again" / "a.png")
    command = ["predict", "model.clu", "pictures", "--report", "report.html", "--overlay", "over/lays"]
    assert main(command) == 1
    page = Path("report.html").read_text(encoding="utf-8")
    assert '"name":"again/a.png"' in page
    assert "pictures/" not in page
    assert "damaged" not in page
    names = ["a.map-2.png", "a.map.png", "b.map.png", "c.map.png"]
    assert sorted(path.name for path in Path("over/lays").iterdir()) == names
    with Image.open("over/lays/a.map.png") as painted, Image.open(pictures / "a.png") as picture:
        assert painted.format == "PNG"
        assert painted.width <= picture.width
    with Runtime("model.clu") as runtime:
        expected = runtime(str(pictures / "a.png")).overlay(None, pictures / "a.png")  # type: ignore[union-attr]
    with Image.open("over/lays/a.map.png") as painted:
        np.testing.assert_array_equal(np.asarray(painted), np.asarray(expected))
    assert main(["predict", "model.clu", "pictures/a.png", "--overlay", "over", "--show", "stage1"]) == 0
    assert Path("over/a.stage1.png").is_file()
    capsys.readouterr()


def test_names_that_would_paint_the_terminal(
    pictures: Path, built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(built_model, tmp_path / "odd.clu", names=("\x1b[31mred", "b", "c"))
    shutil.copy(pictures / "a.png", pictures / "x\x1b[2J.png")
    assert main(["predict", "odd.clu", "pictures/x\x1b[2J.png"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.startswith("'pictures/x\\x1b[2J.png': ")
    assert "'\\x1b[31mred' " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.clu", "pictures"], "gone.clu: wanted an artifact, which `cluinfer build` makes, found nothing"),
        (["model.clu", "*.bmp"], "*.bmp: no file has such a name"),
        (["model.clu", "pictures", "--report", "a.txt"], "--report a.txt: wanted a name ending in .html, in a folder"),
        (
            ["model.clu", "pictures", "--report", "gone/a.html"],
            "--report gone/a.html: wanted a name ending in .html, in",
        ),
        (
            ["model.clu", "pictures", "--overlay", "model.clu"],
            "--overlay model.clu: wanted a folder to write to: File ",
        ),
        (["model.clu", "pictures/a.png", "--top", "0"], "the top 0 classes were asked for; wanted 1 or more"),
        (["model.clu", "pictures/a.png", "--batch", "0"], "batch must be a positive number, got 0"),
        (
            ["model.clu", "pictures/a.png", "--show", "stage1"],
            "--show stage1 says which map --overlay DIR paints; give a folder to paint into",
        ),
        (
            ["model.clu", "pictures/a.png", "--overlay", ".", "--show", "stage9"],
            "no cluster map 'stage9'; there are stage1",
        ),
        (
            ["model.clu", "pictures/a.png", "--against", "tiny.clu"],
            "--against: a model of 2 classes cannot be compared with one of 3",
        ),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_what_cannot_be_done(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    if "tiny.clu" in arguments:
        write_onnx(clustering(), "tiny.onnx")
        build("tiny.onnx", engine="ort", threads=1)
    assert main(["predict", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cluinfer: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.usefixtures("pictures")
def test_no_picture_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "model.clu", "pictures/damaged.png", "--report", "report.html"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "cluinfer: warning: report.html: not written, since no picture could be served\n"
    assert not Path("report.html").exists()
