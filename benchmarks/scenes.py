"""The scenes of examples/shapes as images of any size, with their classes: what int8 is calibrated and measured on."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples" / "shapes"
TRAINING, HELD_BACK = 1, 2  # seeds


@cache
def _module() -> Any:
    """The module scenes.py, loaded by path: the examples are no package."""
    spec = importlib.util.spec_from_file_location("shapes_scenes", EXAMPLES / "scenes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def images(count: int, size: int, seed: int, start: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """So many, float32 [N, 3, size, size], and their classes."""
    from cluinfer.graph import Preprocess
    from cluinfer.preprocess import prepare

    pictures, _, labels = _module().draw_many(seed, range(start, start + count))
    return np.stack([prepare(each, (size, size), Preprocess()) for each in pictures]), labels
