"""Whole or not at all: what is there after an error, an interrupt, a full disk and a kill."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluinfer.whole import whole_file, whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from cluinfer.whole import whole_file

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"new")
"""


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"old")
    return tmp_path / "a.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"old")
    return tmp_path / "a"


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["a.bin", "b.bin", "." + "é" * 127])  # 255 bytes, the longest that there is
def test_a_file_takes_its_name_at_the_end(path: Path, name: str) -> None:
    before = content(path.parent)
    with whole_file(path.with_name(name)) as file:
        file.write(b"new")
        assert {**content(path.parent), **before} == content(path.parent)
        assert len(content(path.parent)) == 2
    assert content(path.parent) == {**before, name: b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_file_alone(path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), whole_file(path) as file:
        file.write(b"new")
        raise error
    assert content(path.parent) == {"a.bin": b"old"}


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match="No space left"), whole_file(path) as file:
        file.write(b"new")
    assert content(path.parent) == {"a.bin": b"old"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_before_the_rename_the_old_file_stays(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    ran = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (-signal.SIGKILL, "")
    left = content(path.parent)
    assert left.pop("a.bin") == b"old"
    ((name, written),) = left.items()
    assert re.fullmatch(r"\.a\.bin\.[0-9a-f]{32}\.tmp", name)  # tells whose it is: scale/files.py sweeps by it
    assert written == b"new"


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_rights_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "file"), whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "no" / "file"):
        pass
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "no" / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_folder_takes_its_name_at_the_end(folder: Path, name: str) -> None:
    before = content(folder.parent)
    with whole_folder(folder.with_name(name)) as made:
        (made / "new").write_bytes(b"new")
        assert made.name.startswith(f".{name}.")
        assert content(folder) == {"old": b"old"}
    assert content(folder.parent) == {**(before if name == "b" else {}), f"{name}/new": b"new"}
    assert {path.name for path in folder.parent.iterdir()} == {"a", name}


def test_an_error_in_the_block_leaves_the_old_folder_alone(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as made:
        (made / "new").write_bytes(b"new")
        raise KeyboardInterrupt
    assert content(folder.parent) == {"a/old": b"old"}
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_an_old_folder_comes_back_where_the_new_one_cannot_take_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    calls: list[Path] = []

    def second_fails(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            full()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="No space left"), whole_folder(folder) as made:
        (made / "new").write_bytes(b"new")
    assert calls[1:] == [folder, folder]
    assert content(folder.parent) == {"a/old": b"old"}
    assert [path.name for path in folder.parent.iterdir()] == ["a"]
