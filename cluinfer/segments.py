"""Which token of the last map each pixel belongs to: the pools' assignments, composed.

A pool's centres are the points of the next map: centre m of region r, on a map that the fold divides into regions,
lies where regions and centres, counted row by row, put it. So an id of pool 1 is a point of pool 2, whose id is a point
of pool 3, and so on. Nothing in between loses its place: mixers of tokens leave each where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.cluster_map import stretch
from cluinfer.errors import GraphError, NotShownError
from cluinfer.graph import ClusterOutput, Pair, Promise

ADVICE = "export the model with --maps stages"
WITHOUT_POOLS = ("coc", "icasc")  # families


def compose(promise: Promise, maps: Mapping[str, NDArray[Any]], last: Pair | None = None) -> NDArray[np.int32]:
    """The token row * columns + column of the last map for each pixel of the model's input, int32 [height, width].

    `maps`: ids [heads, rows, columns] by output. `last`: the size of the last map, if known otherwise.
    """
    first, *rest = _chain(promise, last)
    token = _centers(first, maps[first.output])
    for pool in rest:
        token = _centers(pool, maps[pool.output]).ravel()[token]
    return stretch(token.astype(np.int32), promise.size)


def _chain(promise: Promise, last: Pair | None) -> list[ClusterOutput]:
    """The pools, from the first to the last; refuses what does not lead from the input to the last map."""
    pools = [each for each in promise.maps if each.pool]
    if not pools:
        if promise.family in WITHOUT_POOLS:
            raise NotShownError(f"segments are composed of cluster pools, which {promise.family} models do not have")
        raise NotShownError(f"segments need the map of every pool, there is none; {ADVICE}")
    names = [each.alias for each in pools]
    for i, name in enumerate(names):
        if name != f"pool{i + 1}":
            raise NotShownError(f"segments need the map of every pool, pool{i + 1} is not there; {ADVICE}")
    for pool, then in pairwise(pools):
        if _made(pool) != then.size:
            raise NotShownError(
                f"segments need pools that follow one another: {pool.alias} makes a map of {_text(_made(pool))}, "
                f"{then.alias} takes one of {_text(then.size)}"
            )
    for pool in pools:
        if pool.heads != 1:
            raise NotShownError(f"segments need pools of one head, {pool.alias} has {pool.heads}")
    end = _made(pools[-1])
    later = [each.size for each in promise.maps if not each.pool and each.stage > pools[-1].stage]
    for size in [*later, *([last] if last else [])]:
        if size != end:
            raise NotShownError(
                f"segments end at the map of {_text(end)} that {names[-1]} makes, the model goes on to {_text(size)}; "
                f"{ADVICE}"
            )
    return pools


def _centers(pool: ClusterOutput, ids: NDArray[Any]) -> NDArray[Any]:
    """For each point, the place of its centre on the next map, row * columns + column."""
    regions, centers = pool.fold[0] * pool.fold[1], pool.grid[0] * pool.grid[1]
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= regions * centers:
        raise GraphError(
            f"{pool.output} holds ids from {lowest} to {highest}, promised are 0 to {regions * centers - 1}; "
            "the graph is not what its description says, export it again"
        )
    region, center = np.divmod(ids[0].astype(np.int64), centers)
    region_row, region_column = np.divmod(region, pool.fold[1])
    center_row, center_column = np.divmod(center, pool.grid[1])
    row, column = region_row * pool.grid[0] + center_row, region_column * pool.grid[1] + center_column
    places: NDArray[Any] = row * _made(pool)[1] + column
    return places


def _made(pool: ClusterOutput) -> Pair:
    """The size of the map that a pool makes."""
    return pool.fold[0] * pool.grid[0], pool.fold[1] * pool.grid[1]


def _text(size: Pair) -> str:
    return f"{size[0]}x{size[1]}"
