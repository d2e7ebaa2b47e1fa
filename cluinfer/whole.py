"""Files and folders that are there whole or not at all: made under a temporary name beside their own, then renamed.

An error, or an interrupt, leaves what was there and nothing else. Killed by force, a temporary file or folder stays
(.<name>.<32 digits>.tmp), never a half-written one under the name itself. Artifacts do more than that: theirs are
locked while they are written, so that what a killed build left is known and removed (cluinfer/artifact.py).
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of `path` once the block is left and the disk has it."""
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:  # not tempfile's: others may read it as the umask says
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` once the block is left; if it cannot, an old one stays."""
    made, old = _beside(path), _beside(path)
    try:
        made.mkdir()
        yield made
        replaces = path.exists()
        if replaces:  # no system renames a folder over one that holds something
            path.rename(old)
        try:
            made.rename(path)
        except OSError:
            if replaces:
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _beside(path: Path) -> Path:
    """With a part of the name, to tell whose a leftover is; all of it might be too long with the rest."""
    return path.with_name(f".{path.name[:32]}.{uuid.uuid4().hex}.tmp")
