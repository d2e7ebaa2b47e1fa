"""Cluster maps as an application holds them: which cluster each point of a layer went to.

Ids are unique within a head: centre m of region r has the id r * (grid rows * grid columns) + m, regions and centres
counted row by row. Arrays are read-only, so nothing done to one map changes another; copy one to write to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluinfer import draw
from cluinfer.errors import NotShownError, PictureError, ShapeError
from cluinfer.graph import ClusterOutput, Pair, Promise
from cluinfer.preprocess import Picture, seen


@dataclass(frozen=True, eq=False)
class View:
    """What the model saw, to paint over: the crop of a picture, or None where it was given a tensor."""

    promise: Promise
    picture: Image.Image | None

    def under(self, picture: Picture | None) -> Image.Image:
        """The crop as the model saw it, or, of the picture that it was given, the same part in full resolution."""
        if picture is not None and picture is not self.picture:
            return seen(picture, self.promise.size, self.promise.preprocess)
        if self.picture is None:
            raise PictureError("there is no picture to paint over, the model was given a tensor; give overlay one")
        return self.picture


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Which cluster each point of one clustering layer went to, for each of its heads."""

    layer: str  # module path in the checkpoint
    alias: str  # stage1, pool1, ...; empty for a layer that is neither a stage's last nor a pool
    stage: int  # from 1
    pool: bool  # its centres are the points of the next stage
    heads: int
    fold: Pair  # regions that are clustered apart: rows, columns
    grid: Pair  # centres of one region: rows, columns
    ids: NDArray[np.int32] = field(repr=False)  # [heads, rows, columns], each in 0..clusters - 1
    similarity: NDArray[np.float32] | None = field(repr=False)  # of each point to its centre; None if it is not shown
    view: View = field(repr=False)

    @classmethod
    def of(cls, output: ClusterOutput, outputs: Mapping[str, NDArray[Any]], view: View) -> ClusterMap:
        """The map that this one of a graph's outputs is."""
        return cls(
            output.layer,
            output.alias,
            output.stage,
            output.pool,
            output.heads,
            output.fold,
            output.grid,
            outputs[output.output],
            outputs.get(output.similarity),
            view,
        )

    @property
    def name(self) -> str:
        """The alias if there is one, else the layer."""
        return self.alias or self.layer

    @property
    def size(self) -> Pair:
        """Rows and columns of points."""
        return self.ids.shape[1], self.ids.shape[2]

    @property
    def clusters(self) -> int:
        """How many clusters a head has; some may be empty."""
        return self.fold[0] * self.fold[1] * self.grid[0] * self.grid[1]

    def mean_similarity(self) -> NDArray[np.float32]:
        """How similar each cluster's points are to its centre on average, [heads, clusters]; NaN for an empty one."""
        if self.similarity is None:
            raise NotShownError(f"{self.name} has no similarities; export the model with --similarities")
        means = np.full((self.heads, self.clusters), np.nan, np.float32)
        for mean, ids, similarity in zip(means, self.ids, self.similarity, strict=True):
            known = (ids >= 0) & (ids < self.clusters)  # an engine may be wrong
            counts, sums = (np.bincount(ids[known], each, self.clusters) for each in (None, similarity[known]))
            np.divide(sums, counts, out=mean, where=counts > 0, casting="same_kind")
        return means

    def upsample(self, size: Pair) -> NDArray[np.int32]:
        """The ids of a map of this size, [heads, rows, columns]: each pixel has the id of the point under its middle.

        Pixels and points need not be multiples of one another.
        """
        return stretch(self.ids, size)

    def overlay(self, picture: Picture | None = None, head: int | None = None, **options: Any) -> Image.Image:
        """The clusters of one head, or of all in a grid, painted over the crop that the model saw.

        `picture`: in any form, what the runtime was given; its crop is then painted over in full resolution.
        `options`: of `cluinfer.draw.overlay_clusters`: size, opacity, edges, labels.
        """
        under = self.view.under(picture)
        if head is not None:
            if not 0 <= head < self.heads:
                raise ShapeError(f"{self.name} has the heads 0 to {self.heads - 1}, got {head}")
            return draw.overlay_clusters(self.ids[head], under, **options)
        painted = [draw.overlay_clusters(ids, under, **options) for ids in self.ids]
        return draw.grid(painted, [f"head {i}" for i in range(self.heads)]) if len(painted) > 1 else painted[0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the ids."""
        return {
            "layer": self.layer,
            "stage": self.stage,
            "pool": self.pool,
            "fold": list(self.fold),
            "grid": list(self.grid),
            "clusters": self.clusters,
        }


class Clusters(Mapping[str, ClusterMap]):
    """The maps of one picture, by alias (stage1, pool1) and by layer; iterating names each once, alias preferred."""

    def __init__(self, maps: tuple[ClusterMap, ...]) -> None:
        self._maps = {each.name: each for each in maps}
        self._layers = {each.layer: each for each in maps}

    def __getitem__(self, name: str) -> ClusterMap:
        found = self._maps.get(name) or self._layers.get(name)
        if found is None:
            there = ", ".join(f"{e.name} ({e.layer})" if e.alias else e.layer for e in self._maps.values())
            advice = f"there are {there}" if there else "the model was exported with --maps none, or has none"
            raise NotShownError(f"no cluster map {name!r}; {advice}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"Clusters({', '.join(self._maps)})"


def stretch(array: NDArray[Any], size: Pair) -> NDArray[Any]:
    """The last two dimensions in another size: each place takes what lies under its middle, exactly."""
    wanted = draw.checked_size(size)
    rows, columns = (
        (2 * np.arange(side) + 1) * points // (2 * side) for side, points in zip(wanted, array.shape[-2:], strict=True)
    )
    stretched: NDArray[Any] = array[..., rows[:, None], columns]
    return stretched
