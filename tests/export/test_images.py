"""Images to compare on: what is made, what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluinfer.errors import CluinferWarning, PictureError, ShapeError
from cluinfer.export.images import prepare_pictures, read_images, synthetic_images
from cluinfer.graph import Promise
from cluinfer.preprocess import prepare

PROMISE = Promise("own", "custom", (8, 12), 2)


def test_files_of_images_that_are_none(tmp_path: Path) -> None:
    def refused(name: str) -> str:
        with pytest.raises(ShapeError) as error:
            read_images(tmp_path / name)
        return str(error.value).removeprefix(f"{tmp_path / name}: ")

    assert refused("gone.npy") == "wanted a .npy or .npz file with images, found none"
    (tmp_path / "text.npy").write_text("hello")
    assert refused("text.npy").startswith("not a .npy or .npz file with an array (")
    np.savez(tmp_path / "none.npz")
    assert refused("none.npz").startswith("not a .npy or .npz file with an array (")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "allow_pickle" in refused("objects.npy")
    np.save(tmp_path / "flat.npy", np.zeros(3, np.float32))
    assert refused("flat.npy") == "wanted images as float32 [N, 3, H, W], got float32 [3]"


def test_synthetic_images_are_smooth_and_always_the_same() -> None:
    images = synthetic_images(3, (32, 48))
    assert (images.shape, images.dtype) == ((3, 3, 32, 48), np.float32)
    np.testing.assert_array_equal(images, synthetic_images(3, (32, 48)))
    assert not np.array_equal(images, synthetic_images(3, (32, 48), seed=1))
    np.testing.assert_allclose(images.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((2, 3)), 1, atol=1e-5)
    assert np.abs(np.diff(images, axis=3)).mean() < 0.5


def test_pictures_as_the_model_sees_them(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.warns(CluinferWarning) as caught:
        images = prepare_pictures([array, "gone.png", tmp_path / "a.png"], PROMISE)
    assert [str(each.message) for each in caught] == ["gone.png: wanted a picture, found nothing; left out"]
    assert (images.shape, images.dtype) == ((2, 3, 8, 12), np.float32)
    np.testing.assert_array_equal(images, np.stack([prepare(array, (8, 12), PROMISE.preprocess)] * 2))


@pytest.mark.filterwarnings("ignore::cluinfer.errors.CluinferWarning")
def test_pictures_of_which_none_can_be_read() -> None:
    with pytest.raises(PictureError) as error:
        prepare_pictures(["gone.png"], PROMISE)
    assert str(error.value) == "none of the 1 pictures can be read, the last: gone.png: wanted a picture, found nothing"
