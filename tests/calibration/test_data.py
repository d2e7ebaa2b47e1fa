"""Images to calibrate on: found, shuffled, divided; what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluinfer.calibration.data import check_given, split
from cluinfer.errors import CalibrationError
from cluinfer.graph import Promise
from cluinfer.preprocess import prepare

PROMISE = Promise("own", "custom", (8, 12), 2)


def tensors(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 12)).astype(np.float32)


def paint(folder: Path, *names: str) -> None:
    random = np.random.default_rng(1)
    for name in names:
        Image.fromarray(random.integers(0, 256, (9, 14, 3), np.uint8)).save(folder / name)


def refused(*given: Any) -> str:
    with pytest.raises(CalibrationError) as error:
        list(split(given, PROMISE).calibrating)
    return str(error.value)


def test_a_fifth_is_held_back_and_the_seed_says_which() -> None:
    array = tensors(20)
    one, again, other = (split([array], PROMISE, seed=seed) for seed in (0, 0, 1))
    assert (len(one.calibrating), len(one.held_back), one.shared) == (16, 4, False)
    seen = [image.tobytes() for images in (one.calibrating, one.held_back) for image in images]
    assert sorted(seen) == sorted(image.tobytes() for image in array)
    assert [image.tobytes() for image in again.calibrating] == seen[:16]
    assert [image.tobytes() for image in other.calibrating] != seen[:16]
    assert one.calibrating.identity == again.calibrating.identity != other.calibrating.identity


def test_no_more_than_asked_for_and_no_more_than_64_held_back() -> None:
    few = split([tensors(20)], PROMISE, count=3)
    assert (len(few.calibrating), len(few.held_back)) == (3, 4)
    assert len(split([tensors(400)], PROMISE).held_back) == 64


def test_of_four_images_none_is_held_back() -> None:
    few = split([tensors(4)], PROMISE)
    assert few.shared
    assert few.held_back is few.calibrating


def test_pictures_arrays_and_folders_together(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.jpg")
    np.save(tmp_path / "c.npy", tensors(2))
    np.savez(tmp_path / "d.npz", images=tensors(1), labels=np.arange(3))
    in_memory = np.random.default_rng(2).integers(0, 256, (9, 14, 3), np.uint8)
    found = split([tmp_path, in_memory, tensors(1)], PROMISE)
    images = [*found.calibrating, *found.held_back]
    assert len(images) == 2 + 2 + 1 + 1 + 1
    wanted = [prepare(tmp_path / "a.png", PROMISE.size, PROMISE.preprocess), *tensors(2)]
    for each in wanted:
        assert any(np.array_equal(each, image) for image in images)
    assert [len(split([str(tmp_path / "*.png")], PROMISE).calibrating)] == [1]


def test_the_identity_changes_with_a_file(tmp_path: Path) -> None:
    paint(tmp_path, "a.png")
    before = split([tmp_path], PROMISE).calibrating.identity
    assert split([tmp_path], PROMISE).calibrating.identity == before
    np.save(tmp_path / "b.npy", tensors(1))
    assert split([tmp_path], PROMISE).calibrating.identity != before


def test_what_cannot_be_used_is_left_out_counted_and_explained(tmp_path: Path) -> None:
    paint(tmp_path, "a.png", "b.png")
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    Image.new("RGB", (9, 14), "red").save(tmp_path / "red.png")
    array = tensors(2)
    array[1, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", array)
    found = split([tmp_path], PROMISE)
    read = [images.read(i) for images in (found.calibrating, found.held_back) for i in range(len(images))]
    assert sum(image is not None for image in read) == 3
    reasons = " ".join([*found.calibrating.skipped.values(), *found.held_back.skipped.values()])
    assert "damaged.png: wanted a picture, found a file of no format that Pillow reads" in reasons
    assert "red.png: an image of one colour alone tells nothing of what a model will see" in reasons
    assert "nan.npy: image 1 holds NaN or infinity" in reasons
    assert found.skipped().startswith("3 of 6 calibration images were left out, the last: ")


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    found = split([tensors(6)], PROMISE)
    assert len(list(found.calibrating)) == 5
    assert found.skipped() == ""


def test_images_of_which_none_can_be_used(tmp_path: Path) -> None:
    Image.new("RGB", (9, 14)).save(tmp_path / "black.png")
    assert refused(tmp_path) == (
        f"none of the 1 calibration images can be used, the last: {tmp_path}/black.png: an image of one colour alone "
        "tells nothing of what a model will see"
    )


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), "got float32 [2, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 12), np.float64), "got float64 [2, 3, 8, 12]"),
        (np.zeros((2, 8, 12, 3), np.uint8), "got uint8 [2, 8, 12, 3]"),
        (np.zeros((3, 8, 12), np.float32), "got float32 [3, 8, 12]"),
        (np.zeros((0, 3, 8, 12), np.float32), "got an empty array"),
    ],
)
def test_arrays_of_the_wrong_kind(tmp_path: Path, array: np.ndarray, came: str) -> None:
    np.save(tmp_path / "a.npy", array)
    wanted = "wanted images as float32 [N, 3, 8, 12], which the graph takes"
    assert refused(tmp_path / "a.npy") == f"{tmp_path}/a.npy: {wanted}, {came}"


def test_arrays_of_mixed_sizes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", tensors(1), np.zeros((1, 3, 16, 24), np.float32))
    assert refused(tmp_path).endswith("got float32 [1, 3, 16, 24]")
    np.savez(tmp_path / "a.npz", labels=np.zeros(3), more=np.zeros((3, 2)))
    assert refused(tmp_path).endswith("wanted images as float32 [N, 3, 8, 12], found no such array")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"hello")
    assert refused(tmp_path / "a.npy").startswith(f"{tmp_path}/a.npy: not a .npy or .npz file with arrays of numbers")
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    assert "objects" in refused(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no calibration images: wanted a folder of pictures, or a .npy or .npz file"),
        (["gone"], "gone: wanted pictures, or a .npy or .npz file, to calibrate on, found nothing"),
        (["gone.npz"], "gone.npz: wanted a .npy or .npz file with images, found nothing"),
        (["gone/*.png"], "no calibration images: gone/*.png: no file has such a name"),
        (["empty"], "no calibration images: empty: wanted a folder with pictures, found none ending in .bmp"),
    ],
)
def test_what_is_not_there_is_said_before_a_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CalibrationError) as error:
        check_given(given)
    assert str(error.value).startswith(message)
    with pytest.raises(CalibrationError):
        split(given, PROMISE)


def test_counts_that_are_none() -> None:
    with pytest.raises(CalibrationError, match="0 calibration images: wanted one or more"):
        split([tensors(2)], PROMISE, count=0)
