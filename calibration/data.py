"""Images to calibrate with, and some held back to measure on.

Rules:
- What is given: folders, files and patterns of pictures; `.npy` and `.npz` files, or arrays, of float32 [N, 3, H, W],
  normalised as the graph takes them (other arrays in an `.npz`, such as labels, are not looked at); pictures in memory.
- A seed shuffles them all. The last fifth, at most HELD_BACK, is held back; of the others the first `count` calibrate.
  Of fewer than five none is held back: then the same images calibrate and measure, and `shared` says so.
- An image that cannot be read, is of one colour or holds NaN is left out, counted, and said why. An array of the wrong
  type or size is an error, as is having no image left: a scale of zero or infinity never comes from data.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import CalibrationError, PictureError
from cluinfer.graph import Pair, Promise
from cluinfer.picture_files import find_pictures
from cluinfer.preprocess import Picture, prepare

COUNT = 300  # images that calibrate, unless told otherwise
HELD_BACK = 64
MOST_BYTES = 4 << 30  # of an array in an .npz, which cannot be read in parts
ARRAYS = (".npy", ".npz")
_NOTHING = "no calibration images: wanted a folder of pictures, or a .npy or .npz file"

Image = NDArray[np.float32]  # [3, H, W]
Given = Picture | NDArray[np.float32]


@dataclass(frozen=True)
class _Entry:
    """One image before it is read; `mark` changes when what it is read from does."""

    name: str
    mark: str
    read: Callable[[], Image]


@dataclass
class Images:
    """Some images, read one at a time and never kept; `skipped` says why those that were left out so far were."""

    entries: Sequence[_Entry]
    skipped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def identity(self) -> str:
        """A hash of what they are read from."""
        return hashlib.sha256("\n".join(entry.mark for entry in self.entries).encode()).hexdigest()

    def read(self, index: int) -> Image | None:
        """The image, or None for one to be left out."""
        try:
            image = self.entries[index].read()
            _check_values(image, self.entries[index].name)
        except PictureError as error:
            self.skipped[index] = str(error)
            return None
        return image

    def __iter__(self) -> Iterator[Image]:
        """All that can be used; an error if there is none."""
        found = False
        for index in range(len(self)):
            if (image := self.read(index)) is not None:
                found = True
                yield image
        if not found:
            self.refuse()

    @property
    def usable(self) -> bool:
        """Whether there is one that can be used."""
        return any(self.read(index) is not None for index in range(len(self)))

    def refuse(self) -> None:
        """Raise what is to be said where every image was left out."""
        last = list(self.skipped.values())[-1] if self.skipped else "there are none"
        raise CalibrationError(f"none of the {len(self)} calibration images can be used, the last: {last}")


@dataclass(frozen=True)
class Split:
    """The images that calibrate and those to measure on."""

    calibrating: Images
    held_back: Images
    shared: bool  # they are the same, since there are so few

    def skipped(self) -> str:
        """How many were left out, and the reason of one; empty if none was."""
        reasons = [*self.calibrating.skipped.values(), *({} if self.shared else self.held_back.skipped).values()]
        if not reasons:
            return ""
        total = len(self.calibrating) + (0 if self.shared else len(self.held_back))
        return f"{len(reasons)} of {total} calibration images were left out, the last: {reasons[-1]}"


def split(given: Sequence[Given], promise: Promise, count: int = COUNT, seed: int = 0) -> Split:
    """Find, shuffle and divide the images; none is read yet."""
    if count < 1:
        raise CalibrationError(f"{count} calibration images: wanted one or more")
    entries = [entry for one in given for entry in _entries(one, promise)]
    if not entries:
        raise CalibrationError(_NOTHING)
    shuffled = [entries[i] for i in np.random.default_rng(seed).permutation(len(entries))]
    held = min(len(shuffled) // 5, HELD_BACK)
    calibrating = Images(shuffled[: min(count, len(shuffled) - held)])
    return Split(calibrating, Images(shuffled[len(shuffled) - held :]) if held else calibrating, not held)


def check_given(given: Sequence[Given]) -> None:
    """Refuse what is not there or holds nothing to calibrate on, before a model is read for it."""
    if not given:
        raise CalibrationError(_NOTHING)
    for one in given:
        if isinstance(one, str | os.PathLike):
            _find(Path(one))


def _find(path: Path) -> tuple[list[Path], list[Path]]:
    """The array files and the pictures of a folder, a file or a pattern."""
    if path.suffix.lower() in ARRAYS and not path.is_dir():
        if not path.is_file():
            raise CalibrationError(f"{path}: wanted a .npy or .npz file with images, found nothing")
        return [path], []
    below = path.rglob("*") if path.is_dir() else ()
    arrays = sorted(file for file in below if file.suffix.lower() in ARRAYS and file.is_file())
    try:
        pictures = find_pictures([path])
    except PictureError as error:
        if not arrays:
            raise CalibrationError(f"no calibration images: {error}") from error
        return arrays, []
    if pictures == [path] and not path.exists():
        raise CalibrationError(f"{path}: wanted pictures, or a .npy or .npz file, to calibrate on, found nothing")
    return arrays, pictures


def _entries(one: Given, promise: Promise) -> list[_Entry]:
    if isinstance(one, np.ndarray) and one.dtype == np.float32:
        _check_array(one, promise.size, "the array")
        mark = hashlib.sha256(one.tobytes()).hexdigest()
        return [_Entry("the array", f"{mark} {i}", partial(_of_array, one, i, "the array")) for i in range(len(one))]
    if not isinstance(one, str | os.PathLike):
        pixels = one.tobytes() if hasattr(one, "tobytes") else repr(one).encode()
        return [_picture("the picture", hashlib.sha256(pixels).hexdigest(), cast("Picture", one), promise)]
    arrays, pictures = _find(Path(one))
    found = [entry for file in arrays for entry in _of_array_file(file, promise.size)]
    return found + [_picture(str(each), _mark(each), each, promise) for each in pictures]


def _picture(name: str, mark: str, picture: Picture, promise: Promise) -> _Entry:
    return _Entry(name, mark, partial(prepare, picture, promise.size, promise.preprocess))


def _of_array_file(path: Path, size: Pair) -> list[_Entry]:
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(held, np.ndarray):
            arrays = [held]
        else:
            with held:
                arrays = [held[name] for name in _with_images(cast(ZipFile, held.zip), path)]
    except CalibrationError:
        raise
    except Exception as error:  # a damaged file can fail in any of NumPy's and zipfile's readers
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise CalibrationError(f"{path}: not a .npy or .npz file with arrays of numbers: {said}") from error
    if not arrays:
        raise CalibrationError(f"{path}: wanted images as float32 [N, 3, {size[0]}, {size[1]}], found no such array")
    for array in arrays:
        _check_array(array, size, str(path))
    mark = _mark(path)
    return [
        _Entry(str(path), f"{mark} {number} {i}", partial(_of_array, array, i, str(path)))
        for number, array in enumerate(arrays)
        for i in range(len(array))
    ]


def _with_images(file: ZipFile, path: Path) -> list[str]:
    """The arrays of an `.npz` to be read: those of four dimensions, or the only one.

    Their headers are looked at first: unlike a `.npy` they are read as a whole, and a small file may hold, or say that
    it holds, more than any memory.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for info in file.infolist():
        with file.open(info) as stream:
            first = np.lib.format.read_magic(stream) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise CalibrationError(f"{path}: {info.filename} holds Python objects, which are never loaded")
        if size > info.file_size:
            raise CalibrationError(f"{path}: {info.filename} ends early: wanted {size} bytes; write the file again")
        if size > MOST_BYTES:
            raise CalibrationError(f"{path}: {info.filename} is of {size / 1e9:.1f} GB: save images as .npy instead")
        shapes[info.filename] = shape
    return [name for name, shape in shapes.items() if len(shape) == 4 or len(shapes) == 1]


def _of_array(array: NDArray[Any], index: int, name: str) -> Image:
    image = np.array(array[index], np.float32)
    if not np.isfinite(image).all():
        raise PictureError(f"{name}: image {index} holds NaN or infinity")
    return image


def _check_array(array: NDArray[Any], size: Pair, name: str) -> None:
    wanted = f"wanted images as float32 [N, 3, {size[0]}, {size[1]}], which the graph takes"
    if array.dtype != np.float32 or array.ndim != 4 or array.shape[1:] != (3, *size):
        raise CalibrationError(f"{name}: {wanted}, got {array.dtype} {list(array.shape)}")
    if not len(array):
        raise CalibrationError(f"{name}: {wanted}, got an empty array")


def _check_values(image: Image, name: str) -> None:
    if (image == image[:, :1, :1]).all():
        raise PictureError(f"{name}: an image of one colour alone tells nothing of what a model will see")


def _mark(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # said when it is read
        return str(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"
