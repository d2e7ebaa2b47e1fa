"""Wheels of this checkout, for the tests of what is in them and of how they install."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


def build(
    folder: Path, *, source: Path = ROOT, settings: Iterable[str] = (), env: Mapping[str, str] = os.environ
) -> Path:
    """The wheel of `source`, written to `folder`.

    Without isolation, and in the build folder of `make test` unless `settings` name another: then only what has
    changed is compiled. The lock is for pytest's other workers.
    """
    env = {**env, "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])}  # cmake and ninja
    options = [f"--config-settings={setting}" for setting in settings]
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pip(["wheel", "--no-build-isolation", "--no-deps", f"--wheel-dir={folder}", *options, str(source)], env)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(arguments: list[str], env: Mapping[str, str] = os.environ) -> None:
    """Run pip; when it fails, the test shows what it said."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout}{ran.stderr}"


def has_compiler() -> bool:
    """Whether the build should have found a C++ compiler."""
    return any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")))
