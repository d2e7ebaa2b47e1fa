"""The trained FEC of examples/shapes, exported and calibrated once a process."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import onnx

from benchmarks import scenes
from cluinfer.calibration import Calibrated, calibrate
from cluinfer.export import load_model, to_onnx
from cluinfer.export.load import AssumptionWarning

SIZE, CALIBRATING, HELD_BACK = 64, 100, 200


@cache
def graph(name: str = "fec") -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        model = load_model(scenes.EXAMPLES / "checkpoints" / f"{name}.pt")
    return to_onnx(model, SIZE, maps="none")


@cache
def calibrating() -> np.ndarray:
    return scenes.images(CALIBRATING, SIZE, scenes.TRAINING)[0]


@cache
def held_back() -> tuple[np.ndarray, np.ndarray]:
    """Scenes that neither training nor calibration has seen, and their classes."""
    return scenes.images(HELD_BACK, SIZE, scenes.HELD_BACK)


@cache
def calibrated(name: str = "fec") -> Calibrated:
    return calibrate(graph(name), [calibrating()])
