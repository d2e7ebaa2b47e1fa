"""How points lie on the map: channels split into heads, the map into equal regions, and both put back.

`G = batch x heads x regions`, regions fastest; the points of a region are flattened with dimension 2 first.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cluinfer.errors import ShapeError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Where the points and centres of one clustering lie; all pairs are (dimension 2, dimension 3).

    A fold counts only if both its parts exceed 1, as in the published code.
    """

    heads: int
    fold: Pair
    region: Pair  # points of one region
    grid: Pair  # centres of one region

    @classmethod
    def of(cls, x: Tensor, heads: int, fold: Pair, grid: Pair | None) -> Layout:
        """The layout of a map [B, C, H, W]; without a grid, centres halve the map as in a pool."""
        rows, columns = x.shape[2], x.shape[3]
        if min(fold) <= 1:
            fold = (1, 1)
        if rows % fold[0] or columns % fold[1]:
            raise ShapeError(f"a map of {rows}x{columns} points does not split into {fold[0]}x{fold[1]} equal regions")
        region = (rows // fold[0], columns // fold[1])
        return cls(heads, fold, region, grid or (region[0] // 2, region[1] // 2))

    def to_list(self) -> list[int]:
        """As the `layout` argument of `cluster_assign`, which travels with an exported program."""
        return [self.heads, *self.fold, *self.region, *self.grid]

    def split(self, x: Tensor) -> Tensor:
        """[B, heads * d, H, W] -> [G, d, region rows, region columns]."""
        d = x.shape[1] // self.heads
        if self.fold == (1, 1):
            return x.reshape(-1, d, *self.region)
        x = x.reshape(-1, self.heads, d, self.fold[0], self.region[0], self.fold[1], self.region[1])
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, d, *self.region)

    def merge(self, x: Tensor, size: Pair) -> Tensor:
        """[G, d, size of a region] or its rows and columns flattened -> [B, heads * d, H, W]."""
        d = x.shape[1]
        if self.fold == (1, 1):
            return x.reshape(-1, self.heads * d, *size)
        x = x.reshape(-1, self.heads, *self.fold, d, *size).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(-1, self.heads * d, self.fold[0] * size[0], self.fold[1] * size[1])
