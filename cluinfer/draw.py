"""Cluster maps, evidence and attention as pictures; knows arrays and pictures, and nothing of models.

Rules:
- A picture keeps its size, or gets `size`; a map of any size is stretched over it, without smoothing for ids.
- What is painted over turns grey, so that every colour means a cluster, or heat.
- The colour of an id is always the same, and ids that are close to one another never look alike, to the colour-blind
  neither; negative ids are no cluster and stay unpainted.
- Heat starts at zero, or is centred on it where values are signed. The stronger it is, the less of the picture
  shows through.
- Whatever finds no room is left out: a scale on a tiny picture, the label of a tiny cluster.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cluinfer.errors import PictureError, ShapeError

Array = NDArray[Any]
Size = tuple[int, int]  # rows, columns
Colors = NDArray[np.uint8]

# Seven by Okabe and Ito, then the farthest from all before, by the smallest OKLab distance among full colour vision and
# simulated protanopia, deuteranopia and tritanopia (Machado 2009): no two are closer than 0.07. Their number is prime,
# so that ids a row of a grid apart (a power of two, mostly) do not meet.
_BASE = (
    "0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442 701c10 4010a0 a0e8e8 7c4040 a0b888 1010e8 a07ce8 644c7c 582864 "
    "a04c10 e8c458 88647c c4dcac 8858e8 88d0d0 c428b8"
)
_SHADE = 8  # how far a colour is moved, at most, each time that the base is used again
_SHADES = (0.8191725, 0.6710436, 0.5497005)  # steps of a sequence that fills a cube evenly, so that no two shades meet

# Viridis and a blue to red map around white, both safe for the colour-blind; between these, straight lines.
_FROM_ZERO = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"
_AROUND_ZERO = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"

_EDGE = (255, 255, 255)
_READ = 1024  # characters of a title that are read; no more have room
_INK, _PAPER = (32, 33, 36), (255, 255, 255)
MAX_SIDE, MAX_PIXELS = 1 << 16, 1 << 28  # of another size; a graph's own images are within both

_SCALE_ROOM = 96  # a picture with a shorter side is too small for a scale


def palette(count: int) -> Colors:
    """The colours [count, 3] of the ids from 0; a longer palette starts with the shorter one."""
    return cluster_colors(np.arange(count))


def cluster_colors(ids: Array) -> Colors:
    """The colour of each id, in a last dimension of three."""
    base = _colors(_BASE)
    cycle, which = np.divmod(ids, len(base))
    shade = (cycle[..., None] * np.array(_SHADES) + 0.5) % 1 - 0.5  # none in the first cycle
    moved: Colors = np.clip(base[which] + np.round(2 * _SHADE * shade), 0, 255).astype(np.uint8)
    return moved


def heat_colors(signed: bool) -> Colors:
    """The 256 colours of heat, from zero or around it."""
    anchors = _colors(_AROUND_ZERO if signed else _FROM_ZERO)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.round(np.stack(channels, 1)).astype(np.uint8)


def heat_range(values: Array, signed: bool | None = None) -> tuple[float, float]:
    """What the ends of the heat colours stand for: zero and the maximum, or the same distance on both sides of zero.

    `signed`: whether it is to be the latter; by default, if some values are negative.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    far = max(abs(low), abs(high)) or 1.0
    return (-far if low < 0 or signed else 0.0), far


def overlay_clusters(
    ids: Array,
    picture: Image.Image,
    *,
    size: Size | None = None,
    opacity: float = 0.5,
    edges: bool = True,
    labels: bool = False,
) -> Image.Image:
    """Paint the clusters of a map of ids [h, w] over a picture, with lines between them and, if asked, their ids."""
    ids = _checked(ids, "ids")
    if ids.dtype.kind not in "iu":
        raise ShapeError(f"ids must be whole numbers, got {ids.dtype}")
    under = _grey(picture, size)
    rows, columns = _stretch(ids.shape[0], under.height), _stretch(ids.shape[1], under.width)
    painted = _resized(cluster_colors(ids), rows, columns)
    made = Image.blend(under, painted, _share(opacity))
    if (none := ids < 0).any():
        made.paste(under, mask=_resized(none, rows, columns))
    if edges:
        made.paste(_EDGE, mask=Image.fromarray(_edges(ids, rows, columns)))
    if labels:
        _label(made, ids, rows, columns)
    return made


def overlay_heat(
    values: Array,
    picture: Image.Image,
    *,
    size: Size | None = None,
    opacity: float = 0.6,
    scale: bool = True,
    signed: bool | None = None,
) -> Image.Image:
    """Paint a map of values [h, w] over a picture, smoothly, with a scale that says what the colours mean.

    `signed`: whether the colours are centred on zero; by default, if some values are negative.
    """
    values = _checked(values, "values").astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("values to paint must be finite, got NaN or infinity; look for it where they come from")
    under = _grey(picture, size)
    low, high = heat_range(values, signed)
    share = values / high
    steps = np.round(255 * ((share + 1) / 2 if low < 0 else share)).astype(np.uint8)
    heat = Image.fromarray(steps).resize(under.size, Image.Resampling.BILINEAR)
    colors = heat_colors(low < 0)
    strength = heat.point(_hiding(_share(opacity), low < 0))
    heat.putpalette(colors.tobytes())
    made = Image.composite(heat.convert("RGB"), under, strength)
    if scale and min(made.size) >= _SCALE_ROOM:
        _draw_scale(made, colors, low, high)
    return made


def grid(pictures: Sequence[Image.Image], titles: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """Pictures in rows, on white, each under its title; without `columns`, about as many rows as columns."""
    if not pictures:
        raise PictureError("a grid needs pictures, got none")
    if titles and len(titles) != len(pictures):
        raise ShapeError(f"a grid of {len(pictures)} pictures needs as many titles, or none, got {len(titles)}")
    if columns is not None and columns < 1:
        raise ShapeError(f"a grid needs a column or more, got {columns}")
    columns = min(columns or math.ceil(len(pictures) / math.isqrt(len(pictures))), len(pictures))
    width, height = (max(each.size[axis] for each in pictures) for axis in (0, 1))
    gap = max(4, round(min(width, height) / 24))
    font = _font(max(10, min(28, round(width / 14))))
    caption = _text_size("Ag", font)[1] + gap if any(titles) else 0
    rows = math.ceil(len(pictures) / columns)
    whole = (columns * (width + gap) + gap, rows * (height + caption + gap) + gap)
    made = Image.new("RGB", whole, _PAPER)
    draw = ImageDraw.Draw(made)
    for i, each in enumerate(pictures):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + caption + gap)
        made.paste(each, (left, top + caption))
        if titles:
            draw.text((left, top), _fitted(titles[i], font, width), fill=_INK, font=font)
    return made


def checked_size(size: Any) -> Size:
    """The size as two plain numbers, neither of them nor their product larger than memory and reason allow."""
    sides = tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in sides):
        raise ShapeError(f"wanted a size of (rows, columns), got {size!r:.60}")
    rows, columns = int(sides[0]), int(sides[1])
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        limits = f"{MAX_SIDE} a side and {MAX_PIXELS} pixels"
        raise ShapeError(f"wanted a size of up to {limits}, got {rows!s:.20} x {columns!s:.20}")
    return rows, columns


def _checked(array: Array, what: str) -> Array:
    if array.ndim != 2 or not array.size:
        raise ShapeError(f"{what} to paint must be [rows, columns], not empty, got {list(array.shape)}")
    return array


def _share(opacity: float) -> float:
    if not 0 <= opacity <= 1:
        raise PictureError(f"opacity must be from 0 to 1, got {opacity!r}")
    return opacity


def _grey(picture: Image.Image, size: Size | None) -> Image.Image:
    """The picture in the size wanted, as grey as what lies under colours should be, but in RGB."""
    picture = picture.convert("RGB").convert("L")
    if size is None:
        return picture.convert("RGB")
    rows, columns = checked_size(size)
    return picture.resize((columns, rows), Image.Resampling.BICUBIC).convert("RGB")


def _hiding(opacity: float, signed: bool) -> list[int]:
    """How much of the picture each step of heat hides, of 255: all and nothing at opacity 1 and 0."""
    heat = np.abs(np.linspace(-1, 1, 256)) if signed else np.linspace(0, 1, 256)
    hidden: list[int] = np.round(255 * opacity ** (3 - 2.6 * heat)).astype(int).tolist()
    return hidden


def _colors(text: str) -> Colors:
    return np.array([list(bytes.fromhex(color)) for color in text.split()], np.uint8)


def _stretch(points: int, pixels: int) -> NDArray[np.intp]:
    """For each pixel along a side, the point that it shows: that under its middle."""
    return (2 * np.arange(pixels) + 1) * points // (2 * pixels)


def _resized(array: Array, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Image.Image:
    return Image.fromarray(array).resize((len(columns), len(rows)), Image.Resampling.NEAREST)


def _edges(ids: Array, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which pixels are on a line between two clusters; only where a pixel shows another point than the one before."""
    marked = np.zeros((len(rows), len(columns)), bool)
    down, right = np.flatnonzero(np.diff(rows)) + 1, np.flatnonzero(np.diff(columns)) + 1
    between_rows = (ids[rows[down]] != ids[rows[down - 1]])[:, columns]
    between_columns = (ids[:, columns[right]] != ids[:, columns[right - 1]])[rows]
    for back in range(max(1, round(min(marked.shape) / 512))):  # the thickness
        marked[down - back] |= between_rows
        marked[:, right - back] |= between_columns
    return marked


def _label(picture: Image.Image, ids: Array, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> None:
    """Write each id deepest inside its cluster, the largest first, where there is room."""
    font = _font(max(10, min(22, round(min(picture.size) / 40))))
    draw = ImageDraw.Draw(picture)
    tall, wide = picture.height / ids.shape[0], picture.width / ids.shape[1]
    known, where, counts = np.unique(ids, return_inverse=True, return_counts=True)
    where = where.ravel()
    y, x = (each.ravel() for each in np.indices(ids.shape))
    middle_y, middle_x = (np.bincount(where, axis) / counts for axis in (y, x))
    depth = _depth(ids).ravel()
    most = np.zeros(len(known), depth.dtype)
    np.maximum.at(most, where, depth)
    deep = np.flatnonzero(depth == most[where])  # those alone are sorted
    of = where[deep]
    off_middle = (y[deep] - middle_y[of]) ** 2 + (x[deep] - middle_x[of]) ** 2
    order = deep[np.lexsort((off_middle, of))]
    deepest = order[np.unique(where[order], return_index=True)[1]]
    written = np.empty((0, 4))
    for i in np.argsort(-counts, kind="stable"):
        width, height = _text_size(str(known[i]), font)
        if known[i] < 0 or counts[i] * tall * wide < 2 * width * height:
            continue
        middle = ((x[deepest[i]] + 0.5) * wide, (y[deepest[i]] + 0.5) * tall)
        box = np.array([middle[0] - width, middle[1] - height, middle[0] + width, middle[1] + height])
        if ((box[:2] < written[:, 2:]) & (box[2:] > written[:, :2])).all(1).any():
            continue
        written = np.vstack([written, box])
        draw.text(middle, str(known[i]), fill=_PAPER, font=font, anchor="mm", stroke_width=2, stroke_fill=_INK)


def _depth(ids: Array) -> NDArray[np.intp]:
    """How many steps each point is from the nearest point of another cluster or the border."""
    framed = np.pad(ids.astype(np.int64), 1, constant_values=-1)
    near = [framed[1:-1, :-2], framed[1:-1, 2:], framed[:-2, 1:-1], framed[2:, 1:-1]]
    inside = np.all([side == ids for side in near], axis=0)
    depth = np.zeros(ids.shape, np.intp)
    while inside.any():
        depth += inside
        framed_in = np.pad(inside, 1)
        inside = inside & framed_in[1:-1, :-2] & framed_in[1:-1, 2:] & framed_in[:-2, 1:-1] & framed_in[2:, 1:-1]
    return depth


def _draw_scale(picture: Image.Image, colors: Colors, low: float, high: float) -> None:
    """A bar of the colours with its numbers, on a plate in the lower left corner."""
    unit = max(1, round(min(picture.size) / 200))
    font = _font(max(10, 7 * unit))
    texts = [f"{number:.3g}" for number in ([low, 0.0, high] if low < 0 else [low, high])]
    text_height = _text_size("0", font)[1]
    width = min(picture.width - 8 * unit, max(80 * unit, sum(_text_size(f"{text}  ", font)[0] for text in texts)))
    height = 6 * unit + 3 * unit + text_height
    left, top = 4 * unit, picture.height - height - 4 * unit
    plate = (left - 2 * unit, top - 2 * unit, left + width + 2 * unit, top + height + 2 * unit)
    dark = Image.new("RGB", (plate[2] - plate[0], plate[3] - plate[1]))
    picture.paste(Image.blend(picture.crop(plate), dark, 0.72), plate)
    picture.paste(Image.fromarray(colors[None]).resize((width, 6 * unit), Image.Resampling.BILINEAR), (left, top))
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(texts):
        at = i / (len(texts) - 1)
        x = left + at * (width - 1)
        draw.text((x, top + 9 * unit), text, fill=_PAPER, font=font, anchor=("lt", "mt", "rt")[round(2 * at)])


def _fitted(text: str, font: Any, width: int) -> str:
    """The text in one line, cut to the width."""
    words = " ".join(text[:_READ].split())
    if len(text) <= _READ and _text_size(words, font)[0] <= width:
        return words
    kept = bisect_right(range(1, len(words) + 1), width, key=lambda end: _text_size(f"{words[:end]}…", font)[0])
    return f"{words[:kept]}…" if kept else ""


def _text_size(text: str, font: Any) -> tuple[int, int]:
    left, top, right, bottom = font.getbbox(text)
    return math.ceil(right - left), math.ceil(bottom - top)


@lru_cache(maxsize=8)
def _font(points: int) -> Any:
    return ImageFont.load_default(points)
