"""Files, folders and patterns as one list of picture files.

- A folder is every picture below it, by its ending, in order of the paths; hidden files and folders are left out.
- A pattern (*, ?, [...]; ** for folders) is what it matches, in order; the shell has replaced most before.
- Anything else stands for itself, whether or not it is there: what is wrong with it is said when it is opened.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from cluinfer.errors import PictureError

ENDINGS = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_pictures(given: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files, without those that come a second time."""
    found: dict[Path, None] = {}
    for one in given:
        each, path = os.fspath(one), Path(one)
        if _is(path.is_dir):
            pictures = [file for file in _below(path) if file.suffix.lower() in ENDINGS]
            if not pictures:
                raise PictureError(f"{path}: wanted a folder with pictures, found none ending in {', '.join(ENDINGS)}")
        elif glob.has_magic(each) and not _is(path.exists):
            matches = sorted(glob.glob(each, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            pictures = [Path(match) for match in matches if Path(match).is_file()]
            if not pictures:
                raise PictureError(f"{each}: no file has such a name")
        else:
            pictures = [path]
        found |= dict.fromkeys(pictures)
    return list(found)


def _is(what: Callable[[], bool]) -> bool:
    """Whether it is that; what cannot be asked, as for its name being too long, is not."""
    try:
        return what()
    except (OSError, ValueError):
        return False


def _below(folder: Path) -> list[Path]:
    files: list[Path] = []

    def refuse(error: OSError) -> None:
        raise PictureError(f"{error.filename}: wanted a folder to look for pictures in: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)
