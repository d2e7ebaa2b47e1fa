"""What an interrupted calibration has seen, in a file: arrays and a JSON object, written whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import CalibrationError

_HEAD = "head"


def save(path: Path, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Under a temporary name, then renamed."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    try:
        with temporary.open("xb") as file:
            np.savez(file, allow_pickle=False, **{_HEAD: text}, **dict(arrays))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot keep the state of the calibration there: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was saved; nothing where there is no such file, or none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays.pop(_HEAD).tobytes())
    except Exception:  # a damaged file can fail in any of NumPy's and zipfile's readers; then one begins anew
        return {}, {}
    return (head, arrays) if isinstance(head, dict) else ({}, {})
