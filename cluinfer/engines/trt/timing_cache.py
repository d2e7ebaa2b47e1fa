"""What TensorRT has measured, kept in the user's cache folder: a second build of a network measures nothing anew.

A file for each release and GPU. A cache that cannot be read or written is as good as none.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from cluinfer.whole import whole_file

_MAX_BYTES = 1 << 28


def folder() -> Path:
    """Where caches of this user are."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "cluinfer"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cluinfer"


def read(version: str, gpu: str) -> bytes:
    """What was kept, or nothing."""
    path = _path(version, gpu)
    try:
        return path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    except OSError:
        return b""


def write(version: str, gpu: str, content: bytes) -> None:
    """Keep it, whole or not at all."""
    path = _path(version, gpu)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)


def _path(version: str, gpu: str) -> Path:
    return folder() / (re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-{version}-{gpu}") + ".timing")
