"""From a trained model to int8 that keeps its clusters, on scenes that nobody has seen; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import calibration_cases as cases
import calibration_example as example
import numpy as np
import onnx
import onnxruntime
import pytest

from cluinfer.calibration import Bounds, Settings, calibrate, to_half, trt_rules
from cluinfer.calibration.agreement import Kept, Measure, agreement_lines
from cluinfer.calibration.data import split
from cluinfer.engines import Options, get_engine
from cluinfer.errors import CalibrationError, CluinferWarning, GraphError
from cluinfer.export.onnx_file import read_promise


def logits(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(["logits"], {"image": images})[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def measure() -> Measure:
    promise = read_promise(example.graph())
    assert promise is not None
    return Measure(example.graph(), split([example.held_back()[0]], promise, seed=3).calibrating)


@pytest.fixture(scope="module")
def kept(measure: Measure) -> Kept:
    return measure(example.calibrated().graph)


def test_the_trained_example_keeps_its_clusters(kept: Kept) -> None:
    overall = kept.fidelity.overall
    assert overall.agreement >= 0.95
    assert overall.clear_agreement is not None and overall.clear_agreement >= 0.99
    assert 0.3 < overall.clear / overall.points < 1  # type: ignore[operator]


def test_so_does_what_is_emitted_for_tensorrt(measure: Measure) -> None:
    """The rest in fp16, as build and --emit-only make it."""
    overall = measure(to_half(example.calibrated().graph)).fidelity.overall
    assert overall.agreement >= 0.95
    assert overall.clear_agreement is not None and overall.clear_agreement >= 0.99


def test_the_other_example_too() -> None:
    overall = example.calibrated("cluenet").kept.fidelity.overall
    assert overall.agreement >= 0.95
    assert overall.clear_agreement is not None and overall.clear_agreement >= 0.99


def test_and_its_accuracy() -> None:
    images, labels = example.held_back()
    right = [
        (logits(proto, images).argmax(1) == labels).mean() for proto in (example.graph(), example.calibrated().graph)
    ]
    assert right[0] > 0.8
    assert right[1] >= right[0] - 0.005


def test_the_engines_give_the_same_logits() -> None:
    """Apart by less than a third of what int8 itself moves: a number on the edge of two steps falls either way."""
    pytest.importorskip("openvino")
    made, images = example.calibrated().graph, example.held_back()[0][:64]
    options, engine = Options(precision="int8", threads=1, batch=16), get_engine("openvino")
    with engine.load(engine.compile(made.SerializeToString(), options), options) as session:
        there = session.run({"image": images})["logits"]
    here, plain = logits(made, images), logits(example.graph(), images)
    moved = np.abs(here - plain).mean()
    assert 0 < moved < 0.1 * plain.std()
    assert np.abs(there - here).mean() < moved / 3


def test_fp16_keeps_nearly_all(measure: Measure) -> None:
    overall = measure(to_half(example.graph())).fidelity.overall
    assert overall.agreement >= 0.995


def test_what_is_told_of_it() -> None:
    made = example.calibrated()
    told = json.loads(json.dumps(made.to_dict()))
    assert (told["calibrating"], told["measured_on"], told["method"]) == (80, "20 images held back", "error")
    assert told["int8_layers"] == sum(choice.int8 for choice in made.choices) > 0
    assert told["layers"] == len(made.choices) > told["int8_layers"]
    assert 0.5 < told["int8_share"] < 1
    assert told["overall"]["agreement"] == made.kept.fidelity.overall.agreement >= 0.95
    assert told["search"] is None
    assert trt_rules.check(made.graph) == []
    lines = agreement_lines(made.kept)
    assert lines[0].split()[:3] == ["clustering", "points", "same"]
    assert len(lines) == 1 + len(made.kept.fidelity.maps) + 1 + 1 + len(made.kept.fidelity.numbers)


def test_again_it_is_the_same() -> None:
    again = calibrate(example.graph(), [example.calibrating()])
    assert again.graph.SerializeToString(deterministic=True) == example.calibrated().graph.SerializeToString(
        deterministic=True
    )


def test_searched_it_keeps_the_bounds_with_less_in_int8() -> None:
    bounds = Bounds(min_agreement=0.985, max_top1_drop=1.0)
    made = calibrate(example.graph(), [example.calibrating()[:40]], bounds=bounds)
    assert made.kept.fidelity.overall.agreement >= 0.985
    assert made.frontier is not None
    assert made.frontier.taken.name in {point.name for point in made.frontier.points}
    in_float = [choice.layer.name for choice in made.choices if choice.searchable and not choice.int8]
    assert sorted(in_float) == sorted(made.frontier.taken.in_float)
    assert all(point.graph is None for point in made.frontier.points)


def test_a_model_without_clusters() -> None:
    made = example.calibrated("icasc")
    assert made.kept.fidelity.maps == {} or made.kept.fidelity.overall.agreement >= 0.95
    images, labels = example.held_back()
    right = [(logits(p, images).argmax(1) == labels).mean() for p in (example.graph("icasc"), made.graph)]
    assert right[1] >= right[0] - 0.005
    assert made.kept.top1_drop is not None and made.kept.top1_drop < 0.005


def test_layers_left_in_float() -> None:
    made = calibrate(cases.graph("fec"), [cases.images()], Settings(in_float=("*.mlp.*",)))
    reasons = {choice.layer.name: choice.reason for choice in made.choices if not choice.int8}
    assert reasons["network.0.0.mlp.fc1"] == "as asked for"
    with pytest.raises(CalibrationError, match="no layer is left to run in int8; use the float32 graph as it is"):
        calibrate(cases.graph("fec"), [cases.images()], Settings(in_float=("*",)))


def test_few_images_calibrate_and_measure() -> None:
    made = calibrate(cases.graph("fec"), [cases.images()[:3]])
    assert made.measured_on == "3 of the calibrating images, since none could be held back"


def test_what_was_left_out_is_said_and_the_state_is_gone(tmp_path: Path) -> None:
    images = cases.images().copy()
    images[3] = np.nan
    (tmp_path / "state").write_bytes(b"damaged")
    with pytest.warns(CluinferWarning, match="1 of 30 calibration images were left out, the last: the array: image 3"):
        made = calibrate(cases.graph("fec"), [images], saved=tmp_path / "state")
    assert made.skipped
    assert list(tmp_path.iterdir()) == []


def test_what_is_int8_already() -> None:
    with pytest.raises(CalibrationError) as error:
        calibrate(cases.default("fec"), [cases.images()])
    assert str(error.value) == "the graph holds int8 already; calibrate the float32 graph that it was made of"


def test_what_does_not_say_what_it_is() -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(cases.graph("fec"))
    del bare.metadata_props[:]
    with pytest.raises(
        GraphError, match="the graph does not say what it is; export the checkpoint with cluinfer export"
    ):
        calibrate(bare, [cases.images()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "best"}, "there is no method 'best'; there are: error, minmax, percentile, entropy"),
        ({"seed": -1}, "seed -1: wanted 0 or more"),
    ],
)
def test_settings_that_are_none(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError) as error:
        Settings(**settings)  # type: ignore[arg-type]
    assert str(error.value) == message
