"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from types import ModuleType

import pytest

import cluinfer
from cluinfer.cli import main
from cluinfer.commands import COMMANDS
from cluinfer.errors import CheckpointError


@dataclass(frozen=True)
class Row:
    """Stands in for an ArchSummary: these tests need no torch."""

    name: str
    family: str
    parameters: int
    macs: int
    size: tuple[int, int, int]
    classes: int


ROWS = [
    Row("cluenet_cifar", "cluenet", 3_020_000, 189_000_000, (3, 32, 32), 100),
    Row("coc_tiny", "coc", 5_280_123, 1_119_900_000, (3, 224, 224), 1000),
]


@pytest.fixture
def archs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("cluinfer.export.archs")
    module.summaries = lambda: ROWS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cluinfer.export", ModuleType("cluinfer.export"))
    monkeypatch.setitem(sys.modules, "cluinfer.export.archs", module)
    return module


def raise_in(archs: ModuleType, error: BaseException) -> None:
    def fail() -> None:
        raise error

    archs.summaries = fail  # type: ignore[attr-defined]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"cluinfer {cluinfer.__version__}\n", "")


def test_runs_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "cluinfer", "--version"], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (f"cluinfer {cluinfer.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see cluinfer --help"),
        (["archs", "--colour"], "unrecognized arguments: --colour; see cluinfer archs --help"),
        (["archs", "--json=1"], "argument --json: ignored explicit argument '1'; see cluinfer archs --help"),
    ],
)
def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"cluinfer: error: {message}\n")


@pytest.mark.usefixtures("archs")
def test_archs_is_an_aligned_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archs"]) == 0
    assert capsys.readouterr() == (
        "arch           family       input  classes  parameters (M)  GMACs\n"
        "cluenet_cifar  cluenet    3x32x32      100            3.02  0.189\n"
        "coc_tiny       coc      3x224x224     1000            5.28  1.120\n",
        "",
    )


@pytest.mark.usefixtures("archs")
def test_archs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {
        "name": "cluenet_cifar",
        "family": "cluenet",
        "parameters": 3_020_000,
        "macs": 189_000_000,
        "size": [3, 32, 32],
        "classes": 100,
    }


def test_errors_are_one_line(archs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    raise_in(archs, CheckpointError("wanted a checkpoint,\n  got a picture"))
    assert main(["archs"]) == 2
    assert capsys.readouterr() == ("", "cluinfer: error: wanted a checkpoint, got a picture\n")


def test_errors_paint_nothing(archs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    raise_in(archs, CheckpointError("found \x1b[2J\x07 and \udcff"))
    assert main(["archs"]) == 2
    assert capsys.readouterr() == ("", "cluinfer: error: found \\x1b[2J\\x07 and \\udcff\n")


def test_too_little_memory(archs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    raise_in(archs, MemoryError("cannot allocate 9 GiB"))
    assert main(["archs"]) == 2
    said = "cluinfer: error: this needs more memory than there is: cannot allocate 9 GiB\n"
    assert capsys.readouterr() == ("", said)


def test_what_the_output_cannot_encode_is_escaped(archs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    archs.summaries = lambda: [replace(ROWS[0], name="clué\udcff")]  # type: ignore[attr-defined]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["archs"]) == 0
    assert b"\nclu\\xe9\\udcff " in written.getvalue()


@pytest.mark.usefixtures("archs")
def test_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with >&- and 2>&-."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["archs"]) == 0
    assert main(["nonsense"]) == 2


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "export"), ("onnx.helper", "export"), ("openvino", "openvino"), ("tensorrt", "trt")],
)
def test_missing_packages_say_what_to_install(
    archs: ModuleType, capsys: pytest.CaptureFixture[str], module: str, extra: str
) -> None:
    raise_in(archs, ModuleNotFoundError(f"No module named {module!r}", name=module))
    package = module.partition(".")[0]
    assert main(["archs"]) == 2
    assert capsys.readouterr() == (
        "",
        f"cluinfer: error: cluinfer archs needs {package}, which is not installed: pip install 'cluinfer[{extra}]'\n",
    )


def test_a_bug_keeps_its_traceback(archs: ModuleType) -> None:
    raise_in(archs, ModuleNotFoundError("No module named 'cluinfer.gone'", name="cluinfer.gone"))
    with pytest.raises(ModuleNotFoundError, match=r"cluinfer\.gone"):
        main(["archs"])


def test_interrupted(archs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    raise_in(archs, KeyboardInterrupt())
    assert main(["archs"]) == 130
    assert capsys.readouterr() == ("", "cluinfer: interrupted\n")


@pytest.mark.usefixtures("archs")
def test_a_reader_that_has_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(os.fdopen(writer, "wb")) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["archs"]) == 141
        print("what is still written goes nowhere", flush=True)
    assert capsys.readouterr().err == ""


def test_terminated(archs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """As by Ctrl-C: `finally` runs; and the handler of whoever calls `main` is there again."""
    before = signal.getsignal(signal.SIGTERM)
    cleaned: list[bool] = []

    def fail() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    archs.summaries = fail  # type: ignore[attr-defined]
    assert main(["archs"]) == 143
    assert (cleaned, signal.getsignal(signal.SIGTERM)) == ([True], before)
    assert capsys.readouterr() == ("", "")


def test_runs_in_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["archs", "--help"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert capsys.readouterr().out.startswith("usage: cluinfer archs")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: cluinfer {name} [-h]")
    sentence = f"{COMMANDS[name].HELP[0].upper()}{COMMANDS[name].HELP[1:]}."
    assert sentence in " ".join(out.split())
