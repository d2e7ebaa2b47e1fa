"""Which graph an engine compiles for a precision, and what calibration options are refused before any work."""

from __future__ import annotations

from typing import Any

import engine_cases
import numpy as np
import pytest

from cluinfer.build_graphs import NO_IMAGES, Calibration, make_graph
from cluinfer.engines import Options, get_engine
from cluinfer.errors import CalibrationError, EngineError
from cluinfer.export.source import Source

CONTENT = engine_cases.small("fec")
NONE = Calibration()


def made(precision: str, calibration: Calibration = NONE, engine: str = "ort", content: bytes = CONTENT) -> Any:
    def reference(*given: object) -> Any:
        raise AssertionError("nothing is compared here")

    source = Source(content, engine_cases.promise("fec"), reference, "")
    return make_graph(precision, source, calibration, get_engine(engine), Options(threads=1), lambda step: None)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_engine_that_lowers_by_itself_gets_the_graph_as_it_is(precision: str) -> None:
    assert made(precision).content is CONTENT


def test_fp16_is_in_the_graph_for_an_engine_that_wants_it_there() -> None:
    assert b"Cast" in made("fp16", engine="trt").content


def test_int8() -> None:
    import calibration_cases as cases

    found = made("int8", Calibration([cases.images()]))
    assert found.calibrated is not None and b"QuantizeLinear" in found.content
    again = made("int8", content=found.content)  # it needs no images any more
    assert (again.content, again.calibrated) == (found.content, None)
    with pytest.raises(EngineError) as error:
        made("int8")
    assert str(error.value) == NO_IMAGES


@pytest.mark.parametrize(
    ("precision", "given", "message"),
    [
        ("fp32", {"images": ["pictures"]}, "calibration is for --precision int8 or auto, got fp32"),
        ("bf16", {"max_top1_drop": 0.1}, "calibration is for --precision int8 or auto, got bf16"),
        ("int8", {"min_agreement": 0.9}, "no calibration images: wanted a folder of pictures, or a .npy or .npz file"),
        ("auto", {"images": [np.zeros(3)], "min_agreement": 2}, "min agreement 2: wanted a share from 0 to 1"),
    ],
)
def test_what_is_refused(precision: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises((EngineError, CalibrationError)) as error:
        Calibration(**given).check(precision)
    assert str(error.value) == message


def test_bounds_are_none_without_any() -> None:
    assert Calibration().bounds() is None
    both = Calibration(min_agreement=0.9).bounds()
    assert (both.min_agreement, both.max_top1_drop) == (0.9, 0.005)
    Calibration().check("fp32")
