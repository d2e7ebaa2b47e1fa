"""What layers read: ranges over all images, points by the seed; resumed to the bit, or begun anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import calibration_cases as cases
import numpy as np
import onnx
import onnx_ir as ir
import pass_cases
import pytest

from cluinfer.calibration import observe as module
from cluinfer.calibration.data import Image, Images, split
from cluinfer.calibration.observe import Observation, observe
from cluinfer.calibration.watch import run_with
from cluinfer.errors import CalibrationError
from cluinfer.graph import Promise

PROMISE = Promise("own", "custom", (4, 4), 2)
COUNT = 10


def graph() -> onnx.ModelProto:
    """What the second layer reads may be NaN: it is the root of the first one's."""
    body = "h = Conv(image, a)\n r = Sqrt(h)\n m = ReduceMean<keepdims = 0>(r, sides)\n logits = MatMul(m, b)"
    weight = np.eye(5, 3, dtype=np.float32).reshape(5, 3, 1, 1)
    model = pass_cases.build(
        "float[B, 3, 4, 4] image",
        "float[B, 2] logits",
        body,
        a=weight,
        b=pass_cases.normal(5, 2),
        sides=pass_cases.ints(2, 3),
    )
    return ir.to_proto(model)


GRAPH = graph()
AXES = {"image": 1, "m": 1}


def tensors() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 2, (COUNT, 3, 4, 4)).astype(np.float32)


def images(array: np.ndarray | None = None) -> Images:
    """In their order, none held back."""
    found = split([tensors() if array is None else array], PROMISE)
    entries = [*found.calibrating.entries, *found.held_back.entries]
    return Images(sorted(entries, key=lambda entry: int(entry.mark.split()[1])))


def assert_same(one: dict[str, Observation], other: dict[str, Observation]) -> None:
    assert one.keys() == other.keys()
    for name, seen in one.items():
        for field in ("low", "high", "points"):
            np.testing.assert_array_equal(getattr(seen, field), getattr(other[name], field))


def interrupt_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """The graph runs so many times more."""

    def patched(*given: object) -> Callable[[Image], dict[str, np.ndarray]]:
        left, run = iter(range(count)), run_with(GRAPH, list(AXES))

        def limited(image: Image) -> dict[str, np.ndarray]:
            if next(left, None) is None:
                raise error
            return run(image)

        return limited

    monkeypatch.setattr(module, "run_with", patched)


def test_ranges_and_points() -> None:
    array, seen = tensors(), observe(GRAPH, AXES, images())
    np.testing.assert_array_equal(seen["image"].low, array.min((0, 2, 3)))
    np.testing.assert_array_equal(seen["image"].high, array.max((0, 2, 3)))
    assert seen["image"].points.shape == (COUNT * 16, 3)  # fewer than POINTS: all there are
    means = np.concatenate([run_with(GRAPH, ["m"])(image)["m"] for image in array])
    np.testing.assert_array_equal(seen["m"].points, means)
    np.testing.assert_array_equal(seen["m"].high, means.max(0))


def test_points_are_chosen_by_the_seed_the_same_number_from_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POINTS", 45)
    one, again, other = (observe(GRAPH, AXES, images(), seed)["image"].points for seed in (1, 1, 2))
    assert one.shape == (COUNT * 5, 3)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    for image, five in zip(tensors(), one.reshape(COUNT, 5, 3), strict=True):
        places = [tuple(row) for row in image.reshape(3, 16).T]
        assert len({tuple(row) for row in five}) == 5
        assert all(tuple(row) in places for row in five)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), MemoryError()])
def test_what_is_interrupted_goes_on_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(module, "POINTS", 45)
    state, said = tmp_path / "state", []
    whole = observe(GRAPH, AXES, images())
    interrupt_at(monkeypatch, 3, error)
    with pytest.raises(type(error)):
        observe(GRAPH, AXES, images(), saved=state)
    interrupt_at(monkeypatch, 4, error)
    with pytest.raises(type(error)):
        observe(GRAPH, AXES, images(), saved=state)
    interrupt_at(monkeypatch, 3, error)
    assert_same(observe(GRAPH, AXES, images(), saved=state, progress=said.append), whole)
    assert said == ["calibration goes on from image 7 of 10"]


def test_an_image_is_seen_as_a_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = observe(GRAPH, AXES, images())
    calls = iter(range(100))

    class Interrupted(np.random.Generator):
        def choice(self, *given: object, **more: object) -> np.ndarray:
            if next(calls) == 5:  # the second value of the third image
                raise KeyboardInterrupt
            return super().choice(*given, **more)  # type: ignore[no-any-return, call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(module.np.random, "default_rng", lambda seed: Interrupted(np.random.PCG64(seed)))
        with pytest.raises(KeyboardInterrupt):
            observe(GRAPH, AXES, images(), saved=tmp_path / "state")
    assert_same(observe(GRAPH, AXES, images(), saved=tmp_path / "state"), whole)


def test_it_is_saved_now_and_then_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, said = tmp_path / "state", []
    observe(GRAPH, AXES, images(), saved=state)
    assert not state.exists()  # nothing took long
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    whole = observe(GRAPH, AXES, images(), saved=state)
    interrupt_at(monkeypatch, 0, AssertionError("nothing is to be run again"))
    assert_same(observe(GRAPH, AXES, images(), saved=state, progress=said.append), whole)
    assert said == ["calibration goes on from image 10 of 10"]


def test_a_state_of_something_else_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    interrupt_at(monkeypatch, 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        observe(GRAPH, AXES, images(), saved=state)
    kept = state.read_bytes()
    monkeypatch.undo()
    changed = tensors()
    changed[9, 0, 0, 0] += 1
    other_graph = onnx.ModelProto()
    other_graph.CopyFrom(GRAPH)
    other_graph.doc_string = "another"
    for given in (
        (GRAPH, AXES, images(changed), 0),
        (GRAPH, AXES, images(), 1),
        (GRAPH, {"m": 1}, images(), 0),
        (other_graph, AXES, images(), 0),
    ):
        said: list[str] = []
        state.write_bytes(kept)
        assert_same(observe(*given, saved=state, progress=said.append), observe(*given))
        assert said == ["calibrating, image 1 of 10"]
    said = []
    state.write_bytes(kept)
    observe(GRAPH, AXES, images(), saved=state, progress=said.append)
    assert said == ["calibration goes on from image 3 of 10"]


@pytest.mark.parametrize("head", [{"done": "x"}, {"values": 3}, {"values": ["m"]}, {"skipped": []}])
def test_a_damaged_state_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: dict[str, object]
) -> None:
    state = tmp_path / "state"
    identity = module._identity(GRAPH, AXES, images(), 0)
    module.state.save(state, {"identity": identity, "done": 1, "skipped": {}, "values": [], **head}, {})
    assert_same(observe(GRAPH, AXES, images(), saved=state), observe(GRAPH, AXES, images()))


def test_images_left_out_stay_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = tensors()
    array[1] = np.nan
    array[4] = 0.5
    whole = observe(GRAPH, AXES, images(array))
    interrupt_at(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        observe(GRAPH, AXES, images(array), saved=tmp_path / "state")
    monkeypatch.undo()
    again = images(array)
    assert_same(observe(GRAPH, AXES, again, saved=tmp_path / "state"), whole)
    assert sorted(again.skipped) == [1, 4]
    assert len(whole["m"].points) == 8


def test_nan_that_the_model_makes_is_an_error() -> None:
    array = tensors()
    array[5, 0, 0, 0] = -1
    with pytest.raises(CalibrationError) as error:
        observe(GRAPH, AXES, images(array))
    assert str(error.value) == "m: the model makes NaN or infinity of an image; wanted finite numbers"


def test_images_of_which_none_can_be_used() -> None:
    with pytest.raises(
        CalibrationError, match="none of the 10 calibration images can be used, the last: the array: an"
    ):
        observe(GRAPH, AXES, images(np.zeros((COUNT, 3, 4, 4), np.float32)))


def test_of_a_graph_without_layers_nothing_is_wanted() -> None:
    assert observe(GRAPH, {}, images()) == {}


def test_layers_of_a_real_model_read_what_they_read() -> None:
    (layer,) = [each for each in cases.subject("fec").layers if each.name == "network.0.0.mlp.fc1"]
    given = cases.subject("fec").images.calibrating
    seen = observe(cases.graph("fec"), {layer.reads: layer.channel_axis}, given)[layer.reads]
    assert seen.low.shape == (layer.matrix().shape[1],)
    assert (seen.low <= seen.points.min(0)).all() and (seen.points.max(0) <= seen.high).all()
