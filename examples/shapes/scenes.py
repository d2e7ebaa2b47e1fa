"""Seeded scenes: one textured object of ten kinds on textured ground, with its mask and its class.

    scene = draw(seed=1, index=7)              # the same scene in any order, alone or in a batch
    images, masks, labels = draw_many(1, range(64))
    python examples/shapes/scenes.py --out scenes --count 20

The kind is `index % 10`. Place, size, rotation, stretch, colours and textures are drawn without looking at it, so that
nothing but the outline tells the kind. All kinds are mirror-symmetric and fit into a circle of radius 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]

SIZE = 64
CLASSES = (Path(__file__).parent / "classes.txt").read_text(encoding="utf-8").split()
RADIUS = (16.0, 27.0)  # of the circle that holds the object, in pixels
MARGIN = 4.0  # pixels between that circle and the border: the default preprocessing of cluinfer crops 3.2
TURN = np.pi / 6  # an object leans at most so far to either side
STRETCH = 0.15  # how much the narrower side may lose
SPREAD = 0.17  # of a texture's two colours: at most so far from their mean, each channel
NOISE = 0.05  # full width of the noise of each pixel; 1 is black to white

_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32) + np.float32(0.5)


@dataclass(frozen=True)
class Scene:
    """A picture uint8 [64, 64, 3], the object's mask bool [64, 64], and the number of its class."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    label: int


def draw(seed: int, index: int) -> Scene:
    """Scene number `index` of the endless row that the seed begins."""
    rng = np.random.default_rng([seed, index])
    label = index % len(CLASSES)
    cover = _cover(CLASSES[label], rng)
    ground, thing = (_painted(rng, *colours) for colours in _colours(rng))
    image = ground + (thing - ground) * cover
    image += NOISE * (rng.random(image.shape, np.float32) - np.float32(0.5))
    pixels = (image.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return Scene(np.ascontiguousarray(pixels.transpose(1, 2, 0)), cover >= 0.5, label)


def draw_many(seed: int, indices: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """The scenes' pictures [B, 64, 64, 3], masks [B, 64, 64] and labels [B]."""
    scenes = [draw(seed, index) for index in indices]
    labels = np.array([scene.label for scene in scenes], np.int64)
    return np.stack([scene.image for scene in scenes]), np.stack([scene.mask for scene in scenes]), labels


def _cover(kind: str, rng: np.random.Generator) -> Field:
    """How much of each pixel the object covers: its outline, placed, turned and stretched at random."""
    radius = rng.uniform(*RADIUS)
    row, column = rng.uniform(radius + MARGIN, SIZE - radius - MARGIN, 2)
    u, v = _turned(np.float32(row) - _ROWS, _COLUMNS - np.float32(column), rng.uniform(-TURN, TURN))
    narrow = rng.uniform(1 - STRETCH, 1)
    distance = _OUTLINES[kind](u / np.float32(radius), v / np.float32(radius * narrow))
    return (np.float32(0.5) - distance * np.float32(radius)).clip(0, 1)


# --- Outlines: the distance to the edge, negative inside, in radii of the object; u points up, v across.


def _length(u: Field, v: Field) -> Field:
    return np.sqrt(u * u + v * v)  # np.hypot is five times slower


def _disc(u: Field, v: Field, radius: float = 0.9, at: float = 0.0, aside: float = 0.0) -> Field:
    return _length(u - np.float32(at), v - np.float32(aside)) - np.float32(radius)


def _box(u: Field, v: Field, half_u: float, half_v: float, at: float = 0.0) -> Field:
    return np.maximum(np.abs(u - np.float32(at)) - np.float32(half_u), np.abs(v) - np.float32(half_v))


def _ring(u: Field, v: Field) -> Field:
    return np.abs(_disc(u, v, 0.72)) - np.float32(0.24)


def _moon(u: Field, v: Field) -> Field:
    return np.maximum(_disc(u, v, 0.95), -_disc(u, v, 0.8, at=0.5))


def _heart(u: Field, v: Field) -> Field:
    """Two discs, and the wedge between the tip and the places where its sides touch them."""
    v = np.abs(v)
    wedge = np.float32(0.7367) * v - np.float32(0.6762) * (u + np.float32(0.95))
    body = np.maximum(wedge, u + np.float32(0.197) * v - np.float32(0.083))
    return np.minimum(_disc(u, v, 0.48, at=0.25, aside=0.45), body)


def _leaf(u: Field, v: Field) -> Field:
    """What two discs share."""
    return _disc(u, np.abs(v), 1.3, aside=-0.83)


def _triangle(u: Field, v: Field) -> Field:
    return np.maximum(-u, np.float32(0.5) * u + np.float32(0.75**0.5) * np.abs(v)) - np.float32(0.5)


def _square(u: Field, v: Field) -> Field:
    return _box(u, v, 0.68, 0.68)


def _star(u: Field, v: Field) -> Field:
    """One of ten mirrored sectors is a half-plane, through a tip at radius 1 and a notch at radius 0.42."""
    tenth = np.float32(np.pi / 5)
    angle = np.abs(np.remainder(np.arctan2(v, u) + tenth, 2 * tenth) - tenth)
    radius = _length(u, v)
    notch = 0.42 * np.exp(1j * np.pi / 5)
    normal = (notch - 1) / abs(notch - 1) / 1j
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return (x - np.float32(1)) * np.float32(normal.real) + y * np.float32(normal.imag)


def _cross(u: Field, v: Field) -> Field:
    return np.minimum(_box(u, v, 0.93, 0.27), _box(u, v, 0.27, 0.93))


def _arrow(u: Field, v: Field) -> Field:
    head = np.maximum(-u, np.float32(0.65) * u + np.float32(0.76) * np.abs(v) - np.float32(0.62))
    return np.minimum(head, _box(u, v, 0.5, 0.2, at=-0.45))


_OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": _disc,
    "ring": _ring,
    "moon": _moon,
    "heart": _heart,
    "leaf": _leaf,
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "arrow": _arrow,
}


# --- Colours and textures


def _colours(rng: np.random.Generator) -> NDArray[np.float32]:
    """Two colours for the ground, two for the object: [2, 2, 3]; the farthest of four from the ground's is taken."""
    ground, *others = rng.random((5, 3), np.float32)
    thing = max(others, key=lambda other: float(np.square(other - ground).sum()))
    spread = rng.uniform(-SPREAD, SPREAD, (2, 3)).astype(np.float32)
    middle = np.stack([ground, thing])
    return np.stack([middle - spread, middle + spread], axis=1)


def _painted(rng: np.random.Generator, dark: Field, light: Field) -> Field:
    """A picture [3, 64, 64] of a random texture between two colours."""
    mix = _TEXTURES[rng.integers(len(_TEXTURES))](rng)
    return dark[:, None, None] + (light - dark)[:, None, None] * mix


def _turned(y: Field, x: Field, angle: float) -> tuple[Field, Field]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * y + sin * x, cos * x - sin * y


def _waves(rng: np.random.Generator) -> tuple[Field, Field]:
    """Waves of one length along two directions at a right angle, each from -1 to 1."""
    turn, phase, length = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(5, 14)
    p, q = _turned(_ROWS, _COLUMNS, turn)
    step = np.float32(2 * np.pi / length)
    return np.sin(p * step + np.float32(phase)), np.sin(q * step)


def _gradient(rng: np.random.Generator) -> Field:
    p, _ = _turned(_ROWS, _COLUMNS, rng.uniform(0, 2 * np.pi))
    return (p - p.min()) / np.float32(np.ptp(p))


def _stripes(rng: np.random.Generator) -> Field:
    return _sharp(_waves(rng)[0])


def _checks(rng: np.random.Generator) -> Field:
    p, q = _waves(rng)
    return _sharp(3 * p * q)


def _dots(rng: np.random.Generator) -> Field:
    p, q = _waves(rng)
    return _sharp(p + q - np.float32(0.9))


def _clouds(rng: np.random.Generator) -> Field:
    """Random numbers on a coarse grid, smoothly between them."""
    coarse = rng.random((9, 9), np.float32)
    return np.clip(_BETWEEN @ coarse @ _BETWEEN.T * np.float32(1.6) - np.float32(0.3), 0, 1)


def _sharp(wave: Field) -> Field:
    return (wave * np.float32(1.5) + np.float32(0.5)).clip(0, 1)


def _between() -> Field:
    """[64, 9]: each of 64 positions as a mean of the two nearest of 9, weighed by a raised cosine."""
    place = np.arange(SIZE) * 8 / SIZE
    away = np.abs(place[:, None] - np.arange(9)).clip(0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * away)).astype(np.float32)


_BETWEEN = _between()
_TEXTURES: tuple[Callable[[np.random.Generator], Field], ...] = (_gradient, _stripes, _checks, _dots, _clouds)


def main() -> None:
    """Write scenes as PNG files, their masks into a folder beside them."""
    parser = argparse.ArgumentParser(description="Write scenes as PNG files, and their masks.")
    parser.add_argument("--out", type=Path, required=True, help="folder for NNNN_kind.png, and masks/NNNN_kind.png")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=3, help="training uses 1, evaluation 2 (default 3)")
    args = parser.parse_args()
    masks = args.out / "masks"
    masks.mkdir(parents=True, exist_ok=True)
    for index in range(args.count):
        scene = draw(args.seed, index)
        name = f"{index:04d}_{CLASSES[scene.label]}.png"
        Image.fromarray(scene.image).save(args.out / name)
        Image.fromarray(scene.mask).save(masks / name)
    print(f"{args.count} scenes of seed {args.seed} in {args.out}")


if __name__ == "__main__":
    main()
