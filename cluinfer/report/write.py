"""The page itself: its parts put together, and the file written."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cluinfer
from cluinfer.errors import CluinferError
from cluinfer.graph import Promise
from cluinfer.prediction import Prediction
from cluinfer.report.contents import contents
from cluinfer.whole import whole_file

_SCRIPTS = ("data.js", "paint.js", "state.js", "panels.js", "facts.js", "page.js")


def write_report(
    path: str | os.PathLike[str],
    predictions: Sequence[tuple[str, Prediction]],
    promise: Promise,
    against: Sequence[tuple[str, Prediction]] | None = None,
    *,
    engines: tuple[str, str] = ("this engine", "the other"),
) -> None:
    """Write the report of these predictions, each with the name of its picture, to `path`.

    `against`: what another artifact predicted on the same pictures, in the same order; the report then shows both, and
    which points changed their cluster. `engines` names the two.
    """
    content = page(contents(predictions, promise, against, engines)).encode()
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise CluinferError(f"{path}: cannot write a report there: {error.strerror or error}") from error


def page(data: dict[str, Any]) -> str:
    """The HTML that shows what `contents` gave."""
    style, script = _part("page.css"), "\n".join(map(_part, _SCRIPTS))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    parts = {
        "policy": policy,
        "version": cluinfer.__version__,
        "title": html.escape(data["title"]),
        "style": style,
        "script": script,
        "data": _json(data),
    }
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _part("page.html"))


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(data: dict[str, Any]) -> str:
    """JSON that no parser of HTML takes for anything but text, whatever the names in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
