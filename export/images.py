"""Images to compare two engines on: smooth noise, arrays from a file, or real pictures as the model sees them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import CluinferWarning, PictureError, ShapeError
from cluinfer.graph import Promise
from cluinfer.preprocess import Picture, prepare

Array = NDArray[Any]


def synthetic_images(count: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise [count, 3, H, W] with zero mean and unit deviation: octaves of random grids, stretched linearly."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 3, *size))
    for cells in (2, 4, 8, 16, 32):
        grid = random.standard_normal((count, 3, cells + 1, cells + 1))
        images += _stretch(_stretch(grid, 2, size[0]), 3, size[1]) / np.sqrt(cells)
    images -= images.mean((2, 3), keepdims=True)
    normal: NDArray[np.float32] = (images / np.maximum(images.std((2, 3), keepdims=True), 1e-6)).astype(np.float32)
    return normal


def _stretch(array: Array, axis: int, size: int) -> Array:
    """Linear interpolation of one axis to `size` points."""
    at = np.linspace(0, array.shape[axis] - 1, size)
    low = np.minimum(at.astype(int), array.shape[axis] - 2)
    shape = [1] * array.ndim
    shape[axis] = size
    share = (at - low).reshape(shape)
    stretched: Array = array.take(low, axis) * (1 - share) + array.take(low + 1, axis) * share
    return stretched


def read_images(path: str | Path) -> NDArray[np.float32]:
    """The images of a `.npy` or `.npz` file, float32 [N, 3, H, W]; of several arrays in an `.npz`, the first."""
    if not Path(path).is_file():
        raise ShapeError(f"{path}: wanted a .npy or .npz file with images, found none")
    try:
        held = np.load(path, allow_pickle=False)
        array = held if isinstance(held, np.ndarray) else held[held.files[0]]
    except Exception as error:  # a damaged file can fail in any of NumPy's and zipfile's readers
        said = " ".join(str(error).split())[:240] or type(error).__name__
        raise ShapeError(f"{path}: not a .npy or .npz file with an array ({said})") from error
    if array.dtype != np.float32 or array.ndim != 4 or array.shape[1] != 3 or not len(array):
        raise ShapeError(f"{path}: wanted images as float32 [N, 3, H, W], got {array.dtype} {list(array.shape)}")
    images: NDArray[np.float32] = array
    return images


def prepare_pictures(pictures: Sequence[Picture], promise: Promise) -> NDArray[np.float32]:
    """Pictures as the graph takes them, float32 [N, 3, H, W]; those that cannot be read are left out with a warning."""
    prepared: list[NDArray[np.float32]] = []
    last: PictureError | None = None
    for picture in pictures:
        try:
            prepared.append(prepare(picture, promise.size, promise.preprocess))
        except PictureError as error:
            warnings.warn(f"{error}; left out", CluinferWarning, stacklevel=2)
            last = error
    if not prepared:
        raise PictureError(f"none of the {len(pictures)} pictures can be read, the last: {last}") from last
    return np.stack(prepared)
