"""How points of a map are cut into groups: heads and regions, and what the definition says of their centres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluinfer.engines.openvino_fusion.replay import MOVES, Array, Replay, map_shape, numbered, root

Pair = tuple[int, int]


@dataclass(frozen=True)
class Slice:
    """Points [G,D,N]: heads * channels channels from `first` of the map `source` [B,C,H,W], cut into fold regions."""

    source: Any
    first: int
    heads: int
    channels: int
    fold: Pair
    size: Pair

    def attributes(self) -> dict[str, Any]:
        """As the native operators name them."""
        return {"heads": self.heads, "channels": self.channels, "fold": list(self.fold)}

    def points(self, whole: Array) -> Array:
        """The points of a batch of whole maps."""
        width = self.heads * self.channels
        return to_points(whole[:, self.first : self.first + width], self.heads, self.fold)


def to_points(x: Array, heads: int, fold: Pair) -> Array:
    """A map [B,E*D,H,W] as groups of points [B*E*regions,D,N]."""
    batch, channels, rows, columns = x.shape
    each = channels // heads
    x = x.reshape(batch, heads, each, fold[0], rows // fold[0], fold[1], columns // fold[1])
    points: Array = x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(
        batch * heads * fold[0] * fold[1], each, rows * columns // (fold[0] * fold[1])
    )
    return points


def pairs(product: int, rows: int, columns: int) -> Iterator[Pair]:
    """Pairs of this product that fit these sides, squarer ones first."""
    found = [(a, product // a) for a in range(1, product + 1) if product % a == 0]
    yield from (p for p in sorted(found, key=lambda p: abs(p[0] - p[1])) if p[0] <= rows and p[1] <= columns)


def find_slice(points: Any) -> Slice | None:
    """The slice of a map that these points [G,D,N] are, else None."""
    source = root(points, MOVES)
    size = None if source is None else map_shape(source)
    if source is None or size is None:
        return None
    whole = numbered(size)
    got = Replay(source, whole)(points)
    if got is None or got.ndim != 3 or got.size == 0:
        return None
    groups, channels, count = got.shape
    rows, columns = size[1:]
    first = int(got.flat[0]) // (rows * columns)
    regions = rows * columns // max(count, 1)
    if regions * count != rows * columns or groups % (len(whole) * regions):
        return None
    heads = groups // len(whole) // regions
    for fold in pairs(regions, rows, columns):
        if rows % fold[0] or columns % fold[1] or first + heads * channels > size[0]:
            continue
        candidate = Slice(source, first, heads, channels, fold, (rows, columns))
        if np.array_equal(candidate.points(whole), got):
            return candidate
    return None


def cell_means(points: Array, region: Pair, grid: Pair) -> Array:
    """Adaptive average pooling of points [G,D,N] of a region of this size to centres [G,D,M]."""
    x = points.reshape(*points.shape[:2], *region)

    def matrix(size: int, cells: int) -> Array:
        weights = np.zeros((size, cells))
        for i in range(cells):
            begin, end = i * size // cells, -(-(i + 1) * size // cells)
            weights[begin:end, i] = 1 / (end - begin)
        return weights

    pooled = matrix(region[0], grid[0]).T @ x @ matrix(region[1], grid[1])
    means: Array = pooled.reshape(*points.shape[:2], -1)
    return means


def find_grid(got: Array, points: Array, region: Pair) -> Pair | None:
    """The grid by which these centres are means of these points, else None."""
    for grid in pairs(got.shape[-1], *region):
        if got.shape[:2] == points.shape[:2] and np.allclose(cell_means(points, region, grid), got, atol=1e-5):
            return grid
    return None
