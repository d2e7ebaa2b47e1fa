"""Pictures in, tensors out: opened, made RGB, resized, cropped and normalised as the model was evaluated.

Rules:
- A picture is a path, a PIL image, or a uint8 array [height, width], [height, width, 1], 3 or 4. The same picture
  gives the same bits in every form. So JPEGs are decoded in full: PIL's draft mode, in which libjpeg shrinks them, is
  quicker on photographs of many megapixels (not on one of 500x400), but moves sharp pixels by up to 9 levels of 255.
- What is transparent lies on white: what is stored below it is any colour. 16-bit grey keeps its high byte, as Pillow
  does with 16-bit colour. The EXIF orientation is applied, to files and PIL images; of an animation, the first frame
  counts; colour profiles are not looked at.
- Resizing and cropping are timm's and torchvision's, bit for bit: the picture is shrunk or enlarged until it just
  covers floor(size / crop), then the centre is cut out. Where this would be wasteful, for a very long picture or a
  tiny crop, it is cut first.
- Every picture that cannot be served is a PictureError of one line. At most MAX_PIXELS are decoded; EPS, which Pillow
  would hand to Ghostscript, never is.
"""

from __future__ import annotations

import io
import math
import os
import stat
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from cluinfer.errors import PictureError
from cluinfer.graph import Pair, Preprocess

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of a decompression bomb: 256 MiB of RGB
LONG = 16  # a picture that covers this many times what it must cover is cut before it is resized
SUPPORT = 4  # source pixels, at the scale of the result, that a resampling filter reaches to either side; Lanczos: 3

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

_UPRIGHT = {  # how to undo each EXIF orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def prepare(picture: Picture, size: Pair, how: Preprocess) -> NDArray[np.float32]:
    """The picture as the model's input, float32 [3, height, width]."""
    return normalise(shown(picture, size, how), how)


def shown(picture: Picture, size: Pair, how: Preprocess) -> Image.Image:
    """The very part of the picture that the model sees, of the model's size (height, width): what maps lie over."""
    image = open_picture(picture)
    resample = Image.Resampling[how.interpolation.upper()]
    (height, width), (scaled_width, scaled_height), (left, top) = size, *_placed(image.size, size, how)
    if scaled_width * scaled_height <= min(LONG * (height / how.crop) * (width / how.crop), MAX_PIXELS):
        scaled = image.resize((scaled_width, scaled_height), resample)
        return scaled.crop((left, top, left + width, top + height))
    x, x_from, x_to = _around(left, left + width, scaled_width, image.width)
    y, y_from, y_to = _around(top, top + height, scaled_height, image.height)
    box = (x[0] - x_from, y[0] - y_from, x[1] - x_from, y[1] - y_from)
    return image.crop((x_from, y_from, x_to, y_to)).resize((width, height), resample, box)


def seen(picture: Picture, size: Pair, how: Preprocess) -> Image.Image:
    """The part of the picture that the model sees, in the picture's own resolution, to the nearest pixel."""
    image = open_picture(picture)
    (height, width), (scaled_width, scaled_height), (left, top) = size, *_placed(image.size, size, how)
    across, down = image.width / scaled_width, image.height / scaled_height
    x, y = round(left * across), round(top * down)
    return image.crop((x, y, max(round((left + width) * across), x + 1), max(round((top + height) * down), y + 1)))


def normalise(image: Image.Image, how: Preprocess) -> NDArray[np.float32]:
    """An RGB image as float32 [3, height, width]: (x / 255 - mean) / std, the bits that torchvision gives."""
    tensor = np.empty((3, image.height, image.width), np.float32)
    for channel, plane in zip(tensor, image.split(), strict=True):
        channel[...] = np.asarray(plane)
    tensor /= np.float32(255)
    tensor -= np.array(how.mean, np.float32).reshape(3, 1, 1)
    tensor /= np.array(how.std, np.float32).reshape(3, 1, 1)
    return tensor


def check_tensor(array: Any, size: Pair) -> NDArray[np.float32]:
    """A batch that is normalised already, float32 [B, 3, height, width], contiguous; anything else is refused."""
    wanted = f"wanted a float32 array [batch, 3, {size[0]}, {size[1]}]"
    if not isinstance(array, np.ndarray):
        raise PictureError(f"{wanted}, got {type(array).__name__}")
    if array.dtype != np.float32 or array.ndim != 4 or array.shape[1:] != (3, *size):
        raise PictureError(f"{wanted}, got {array.dtype} {list(array.shape)}")
    if not len(array):
        raise PictureError(f"{wanted}, got an empty batch")
    if not np.isfinite(array).all():
        image = int(np.isfinite(array).all((1, 2, 3)).argmin())
        raise PictureError(f"{wanted} of finite numbers, image {image} of the batch holds NaN or infinity")
    return np.ascontiguousarray(array)


def open_picture(picture: Picture) -> Image.Image:
    """The picture upright and in RGB, decoded. It may be the very image that was given: do not write to it."""
    if isinstance(picture, Image.Image):
        return _rgb(picture, "the PIL image")
    if isinstance(picture, np.ndarray):
        return _rgb(_from_array(picture), "the array")
    if isinstance(picture, str | os.PathLike):
        return _from_file(os.fsdecode(picture))
    raise PictureError(f"wanted a path, a PIL image or a uint8 array, got {type(picture).__name__}")


def _from_file(path: str) -> Image.Image:
    name = path if path.isprintable() else repr(path)
    with _opened(path, name) as file:
        return _rgb(_identified(file, name), name)


def open_bytes(content: bytes, name: str = "the picture") -> Image.Image:
    """The content of a picture's file as a picture that is decoded when it is needed."""
    if not content:
        raise PictureError(f"{name}: wanted a picture, found an empty file")
    return _identified(io.BytesIO(content), name)


def _identified(file: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: wanted a picture, found a file of no format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name}: {_TOO_LARGE}") from error
    except Exception as error:
        raise PictureError(f"{name}: {_DAMAGED}: {_line(error)}") from error


def _opened(path: str, name: str) -> BinaryIO:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            found = "a folder" if stat.S_ISDIR(status.st_mode) else "something that is not a file"
            raise PictureError(f"{name}: wanted a picture, found {found}")
        if not status.st_size:
            raise PictureError(f"{name}: wanted a picture, found an empty file")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise PictureError(f"{name}: wanted a picture, found nothing") from error
    except PermissionError as error:
        raise PictureError(f"{name}: wanted a picture, found a file that may not be read") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or _line(error)
        raise PictureError(f"{name}: wanted a picture, found what cannot be opened: {reason}") from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != np.uint8 or not fits:
        wanted = "wanted a uint8 array [height, width], [height, width, 3] or [height, width, 4]"
        raise PictureError(f"{wanted}, got {array.dtype} {list(array.shape)}")
    _check_size(array.shape[1], array.shape[0], "the array")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Decoded, upright, RGB."""
    _check_size(*image.size, name)
    if image.format == "EPS":
        raise PictureError(f"{name}: wanted a picture, found an EPS program; convert it to PNG")
    try:
        _decode(image)
    except Exception as error:  # SyntaxError, struct.error, ValueError, ...: whatever Pillow's readers stumble over
        raise PictureError(f"{name}: {_DAMAGED}: {_line(error)}") from error
    upright = _upright(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        made = Image.fromarray(_high_byte(upright, name)).convert("RGB")
    else:
        try:
            made = _flat(upright)
        except ValueError as error:
            raise PictureError(f"{name}: pixels of mode {upright.mode} are not taken; convert it to RGB") from error
    if made is not image:
        made.info = {}  # an orientation must not be applied a second time to what is upright now
    return made


def _flat(image: Image.Image) -> Image.Image:
    """In RGB, what is transparent on white."""
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        made = Image.new("RGB", image.size, "white")
        made.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return made
    return image if image.mode == "RGB" else image.convert("RGB")


def _decode(image: Image.Image) -> None:
    """Decode once: threads may share an image that is opened but not read yet, which Pillow does not guard."""
    if isinstance(image, ImageFile.ImageFile):
        with image.__dict__.setdefault("_cluinfer_decoding", threading.Lock()):
            image.load()
    else:
        image.load()


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata make the pixels no worse, and viewers show them as they are
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _high_byte(image: Image.Image, name: str) -> NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode == "F":
        raise PictureError(f"{name}: its pixels are floating-point numbers of unknown range; wanted 8 or 16 bits")
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError(f"{name}: its pixels go from {values.min()} to {values.max()}; wanted 8 or 16 bits")
    return (values >> 8).astype(np.uint8)


_DAMAGED = "the picture is damaged or cut short"
_TOO_LARGE = f"the picture has more than {MAX_PIXELS} pixels; make it smaller"


def _check_size(width: int, height: int, name: str) -> None:
    if not width or not height:
        raise PictureError(f"{name}: wanted a picture, found one of {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise PictureError(f"{name}: {_TOO_LARGE}")


def _placed(picture: Pair, size: Pair, how: Preprocess) -> tuple[Pair, Pair]:
    """The width and height that a picture is scaled to, and where its crop begins: left, top.

    timm truncates the longer side for square models and rounds it for others.
    """
    width, height = picture
    rows, columns = (math.floor(side / how.crop) for side in size)
    whole = math.floor if rows == columns else round
    if width * rows <= height * columns:
        scaled = columns, whole(height * columns / width)
    else:
        scaled = whole(width * rows / height), rows
    return scaled, (round((scaled[0] - size[1]) / 2), round((scaled[1] - size[0]) / 2))


def _around(start: int, stop: int, scaled: int, source: int) -> tuple[tuple[float, float], int, int]:
    """Where a stretch of the scaled picture lies in the source, and which source pixels are read for it.

    Pillow takes a box in single precision, which far from the origin is too coarse: so the box is made small first.
    """
    scale = source / scaled
    exact = start * scale, min(stop * scale, source)
    reach = math.ceil(SUPPORT * max(scale, 1))
    return exact, max(math.floor(exact[0]) - reach, 0), min(math.ceil(exact[1]) + reach, source)


def _line(error: Exception) -> str:
    """What an error says, as part of one line."""
    text = " ".join(str(error).split())
    return text[:200] if text.isprintable() and text else type(error).__name__
