"""What an interrupted calibration has seen, in a file: arrays and a JSON object, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import CalibrationError
from cluinfer.whole import whole_file

_HEAD = "head"


def save(path: Path, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Replaces what was saved there before."""
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    try:
        with whole_file(path) as file:
            np.savez(file, allow_pickle=False, **{_HEAD: text}, **dict(arrays))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot keep the state of the calibration there: {error.strerror}") from error


def load(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was saved; nothing where there is no such file, or none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays.pop(_HEAD).tobytes())
    except Exception:  # a damaged file can fail in any of NumPy's and zipfile's readers; then one begins anew
        return {}, {}
    return (head, arrays) if isinstance(head, dict) else ({}, {})
