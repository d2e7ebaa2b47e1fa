"""A folder prepared without a GPU: what is in it, that it is whole, and that nothing strange is read from one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import BuiltModel

from cluinfer import emit
from cluinfer.calibration import trt_rules
from cluinfer.cli import main
from cluinfer.emit import Emitted, read_emitted
from cluinfer.engines.trt.gpu import check_driver
from cluinfer.engines.trt.graph import standard, with_plugins
from cluinfer.engines.trt.precision import check_types
from cluinfer.errors import EngineError
from cluinfer.export.images import synthetic_images

pytest.importorskip("cuda.bindings")

COMMAND = ["--engine", "trt", "--target", "sm_90", "--emit-only"]


@pytest.fixture(scope="module")
def folder(built_model: BuiltModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emitted") / "prepared"
    assert main(["build", str(built_model.graph), *COMMAND, "--batch", "1:4:8", "-o", str(path)]) == 0
    return path


def test_what_is_in_it(built_model: BuiltModel, folder: Path) -> None:
    emitted = read_emitted(folder)
    content, calls = with_plugins(built_model.graph.read_bytes())
    assert (emitted.target, emitted.precision, emitted.plugins, emitted.profile) == ("sm_90", "fp32", True, (1, 4, 8))
    assert emitted.read("graph.onnx") == content
    assert onnx.load_model_from_string(emitted.read("portable.onnx")) == onnx.load_model_from_string(
        built_model.graph.read_bytes()
    )
    ptx = emitted.ptx()
    assert ptx.keys() == {hashlib.sha256(call.kernel().source.encode()).hexdigest() for call in calls}
    for call in calls:
        text = ptx[hashlib.sha256(call.kernel().source.encode()).hexdigest()].decode()
        assert f".visible .entry {call.kernel().entry}(" in text
        assert ".target sm_90" in text
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == {*emitted.files, "emitted.json"}
    assert "cluinfer build prepared -o model.clu" in (folder / "COMMAND.txt").read_text()


def test_without_plugins_an_older_one_is_replaced(
    built_model: BuiltModel, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "prepared"
    shutil.copytree(folder, target)
    command = ["build", str(built_model.graph), *COMMAND, "--no-plugins", "--json", "-o", str(target)]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["plugins"], said["profile"], said["path"]) == (False, [1, 1, 1], str(target))
    assert sorted(path.name for path in target.iterdir()) == sorted([*said["files"], "emitted.json"])
    assert read_emitted(target).read("graph.onnx") == standard(built_model.graph.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


@pytest.mark.parametrize("how", [[], ["--no-plugins"]], ids=["plugins", "standard"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_below_fp32_the_graph_is_converted_and_what_it_keeps_is_told(
    built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, how: list[str]
) -> None:
    target, images = tmp_path / "prepared", tmp_path / "images.npy"
    np.save(images, synthetic_images(10, (32, 32)))
    more = ["--calibration", str(images), "--explain"] if precision == "int8" else []
    command = ["build", str(built_model.graph), *COMMAND, *how, "--precision", precision, *more, "-o", str(target)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"sm_90, {precision}" in said and "fidelity" in said
    assert ("cluster operators, norms" in said) is (precision == "int8")
    emitted = read_emitted(target)
    assert emitted.precision == precision
    check_types(emitted.read("portable.onnx"), precision)
    for name in ("portable.onnx", "graph.onnx"):
        assert not trt_rules.check(onnx.load_model_from_string(emitted.read(name)))
    assert [path.name for path in tmp_path.iterdir() if path != images] == ["prepared"]
    # what was converted is taken as it is; what is in int8 wants no images
    again = tmp_path / "again"
    emit.emit(_file(tmp_path, emitted), again, target="sm_90", precision=precision, plugins=False)
    assert read_emitted(again).read("portable.onnx") == emitted.read("portable.onnx")


def _file(folder: Path, emitted: Emitted) -> Path:
    path = folder / "converted.onnx"
    path.write_bytes(emitted.read("portable.onnx"))
    return path


def test_int8_of_a_checkpoint_wants_images(built_model: BuiltModel, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="int8 needs pictures like those"):
        emit.emit(built_model.checkpoint, tmp_path / "x", target="sm_90", precision="int8")


def test_a_failure_leaves_what_was_there(
    built_model: BuiltModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "prepared"
    shutil.copytree(folder, target)
    before = (target / "emitted.json").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EngineError, match=r"cannot write there: No space left"):
        emit.emit(built_model.graph, target, target="sm_80", plugins=False)
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
    assert (target / "emitted.json").read_bytes() == before


def test_folders_that_are_not_ours_are_left_alone(built_model: BuiltModel, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    for name, reason in (("mine", "other things in it"), ("mine/thesis.txt", "found a file"), ("no/x", "not exist")):
        with pytest.raises(EngineError, match=reason):
            emit.emit(built_model.graph, tmp_path / name, target="sm_90")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "kept"


@pytest.mark.parametrize(
    "more, said",
    [
        (["--target", "sm_91"], "there is no target 'sm_91'"),
        (["--target", "sm_91x", "--no-plugins"], "a target is a GPU such as sm_90, got 'sm_91x'"),
        (["--precision", "fp16", "--calibration", "."], "calibration is for --precision int8 or auto, got fp16"),
        (["--precision", "auto"], "the trt engine has precisions fp32, fp16, int8, got 'auto'"),
        (["--precision", "bf16"], "the trt engine has precisions fp32, fp16, int8, got 'bf16'"),
        (["--batch", "4:2:8"], "wanted a number of images such as 8, or MIN:OPT:MAX such as 1:8:64, in rising order"),
        (["--batch", "four"], "wanted a number of images"),
        (["--engine", "ort"], "--emit-only is for --engine trt, got --engine ort"),
    ],
)
def test_what_cannot_be_emitted(
    built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    target = tmp_path / "prepared"
    assert main(["build", str(built_model.graph), *COMMAND, "-o", str(target), *more]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options, said",
    [
        (["--engine", "trt", "--emit-only", "-o", "x"], "--emit-only needs --target, such as sm_90, and -o FOLDER"),
        (["--engine", "trt", "--target", "sm_90"], "--target is for --emit-only"),
        (["--engine", "ort", "--no-plugins"], "--no-plugins is for --engine trt"),
        (["--engine", "ort", "--batch", "1:2:3"], "--batch 1:2:3 is for --engine trt"),
    ],
)
def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert main(["build", "model.pt", *options]) == 2
    assert said in capsys.readouterr().err


def changed(folder: Path, to: Path, **fields: object) -> Emitted:
    shutil.copytree(folder, to)
    held = json.loads((to / "emitted.json").read_text())
    (to / "emitted.json").write_text(json.dumps({**held, **fields}))
    return read_emitted(to)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"version": 2}, "written in version 2"),
        ({"files": {}}, "files must be graph.onnx"),
        ({"profile": [2, 1, 3]}, "three batches in rising order"),
        ({"profile": [1, 1]}, "three batches in rising order"),
        ({"kernels": {"00": "kernels/other.ptx"}}, "files that are not listed"),
        ({"target": "sm_90\x1b[2J"}, "not plain text"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_descriptions_that_are_wrong(folder: Path, tmp_path: Path, fields: dict[str, object], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        changed(folder, tmp_path / "x", **fields)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "kernels/../../x.ptx", "kernels/X.ptx", "weights.bin"])
def test_files_outside_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    files = json.loads((folder / "emitted.json").read_text())["files"]
    with pytest.raises(EngineError, match="files must be"):
        changed(folder, tmp_path / "x", files={**files, name: "00"})


def test_files_that_were_changed(folder: Path, tmp_path: Path) -> None:
    emitted = changed(folder, tmp_path / "x")
    (tmp_path / "x" / "graph.onnx").write_bytes(b"other")
    with pytest.raises(EngineError, match="its sha256 is wrong"):
        emitted.read("graph.onnx")
    (tmp_path / "x" / "portable.onnx").unlink()
    with pytest.raises(EngineError, match="cannot be read: No such file"):
        emitted.read("portable.onnx")


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"wanted a folder that `cluinfer build --emit-only` wrote"):
        read_emitted(tmp_path)
    (tmp_path / "emitted.json").write_text("{")
    with pytest.raises(EngineError, match="not JSON"):
        read_emitted(tmp_path)


def test_building_it_where_there_is_no_gpu(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        check_driver()
    except EngineError:
        assert main(["build", str(folder), "-o", str(tmp_path / "model.clu")]) == 2
        assert "no NVIDIA GPU with a driver here" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    assert main(["build", str(folder), "--engine", "ort"]) == 2
    assert "a folder is built into an artifact by --engine trt" in capsys.readouterr().err
