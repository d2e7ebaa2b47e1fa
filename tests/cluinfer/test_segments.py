"""Segments against plain loops over made-up pools; against the PyTorch models in test_prediction.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluinfer.errors import CluinferError, GraphError, NotShownError
from cluinfer.graph import ClusterOutput, Pair, Promise
from cluinfer.segments import compose

STAGE1 = ClusterOutput("network.0.0.token_mixer", "stage1", False, 1, 2, (1, 1), (2, 2), (12, 16))
POOL1 = ClusterOutput("network.1", "pool1", True, 1, 1, (3, 2), (2, 4), (12, 16))
POOL2 = ClusterOutput("network.3", "pool2", True, 2, 1, (1, 1), (3, 4), (6, 8))
STAGE3 = ClusterOutput("network.4.0.token_mixer", "stage3", False, 3, 2, (1, 1), (2, 2), (3, 4))
PROMISE = Promise("own", "fec", (48, 64), 5, maps=(STAGE1, POOL1, POOL2, STAGE3))


def random_ids(pool: ClusterOutput, seed: int = 0) -> np.ndarray:
    """Each point at a centre of its own region, as a fold has it."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(side) * parts // side for side, parts in zip(pool.size, pool.fold, strict=True))
    region = rows[:, None] * pool.fold[1] + columns
    centers = pool.grid[0] * pool.grid[1]
    return (region * centers + rng.integers(0, centers, pool.size)).astype(np.int32)[None]


def place_of(pool: ClusterOutput, wanted: int) -> Pair:
    """Where the centre of an id lies, found by counting through regions and centres."""
    count = 0
    for region_row in range(pool.fold[0]):
        for region_column in range(pool.fold[1]):
            for row in range(pool.grid[0]):
                for column in range(pool.grid[1]):
                    if count == wanted:
                        return region_row * pool.grid[0] + row, region_column * pool.grid[1] + column
                    count += 1
    raise AssertionError(wanted)


def followed(promise: Promise, maps: dict[str, np.ndarray]) -> np.ndarray:
    """Each pixel followed through the pools, one at a time."""
    pools = [each for each in promise.maps if each.pool]
    found = np.empty(promise.size, np.int64)
    for row in range(promise.size[0]):
        for column in range(promise.size[1]):
            at = tuple(
                int((i + 0.5) * points / side)
                for i, points, side in zip((row, column), pools[0].size, promise.size, strict=True)
            )
            for pool in pools:
                at = place_of(pool, int(maps[pool.output][0][at]))
            found[row, column] = at[0] * pools[-1].fold[1] * pools[-1].grid[1] + at[1]
    return found


@pytest.mark.parametrize("size", [(48, 64), (12, 16), (50, 61), (7, 5)])
@pytest.mark.parametrize("fold", [(1, 1), (3, 2), (2, 4)])
def test_pixels_are_followed_through_the_pools(size: Pair, fold: Pair) -> None:
    pool1 = replace(POOL1, fold=fold, grid=(6 // fold[0], 8 // fold[1]))
    promise = replace(PROMISE, size=size, maps=(STAGE1, pool1, POOL2, STAGE3))
    maps = {pool.output: random_ids(pool) for pool in (pool1, POOL2)}
    got = compose(promise, maps)
    assert (got.dtype, got.shape) == (np.int32, size)
    np.testing.assert_array_equal(got, followed(promise, maps))


def test_one_pool_is_enough() -> None:
    promise = replace(PROMISE, maps=(POOL1,))
    maps = {POOL1.output: random_ids(POOL1)}
    got = compose(promise, maps, last=(6, 8))
    np.testing.assert_array_equal(got, followed(promise, maps))
    assert len(np.unique(got)) > 40


def refused(kind: type[CluinferError], promise: Promise, maps: Any = None, last: Pair | None = None) -> str:
    with pytest.raises(kind) as error:
        compose(promise, {each.output: random_ids(each) for each in promise.maps} | (maps or {}), last)
    return str(error.value)


@pytest.mark.parametrize("family", ["coc", "icasc"])
def test_models_without_pools(family: str) -> None:
    assert refused(NotShownError, replace(PROMISE, family=family, maps=(STAGE1,))) == (
        f"segments are composed of cluster pools, which {family} models do not have"
    )


ADVICE = "export the model with --maps stages"


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ((), f"segments need the map of every pool, there is none; {ADVICE}"),
        ((STAGE1, STAGE3), f"segments need the map of every pool, there is none; {ADVICE}"),
        ((STAGE1, POOL2, STAGE3), f"segments need the map of every pool, pool1 is not there; {ADVICE}"),
        (
            (POOL1, replace(POOL2, alias="pool3")),
            f"segments need the map of every pool, pool2 is not there; {ADVICE}",
        ),
        (
            (POOL1, replace(POOL2, size=(3, 4), grid=(1, 2))),
            "segments need pools that follow one another: pool1 makes a map of 6x8, pool2 takes one of 3x4",
        ),
        ((POOL1, replace(POOL2, heads=2)), "segments need pools of one head, pool2 has 2"),
        (
            (STAGE1, POOL1, STAGE3),
            f"segments end at the map of 6x8 that pool1 makes, the model goes on to 3x4; {ADVICE}",
        ),
    ],
)
def test_maps_that_do_not_lead_to_the_last(maps: tuple[ClusterOutput, ...], message: str) -> None:
    assert refused(NotShownError, replace(PROMISE, maps=maps)) == message


def test_evidence_tells_where_the_model_ends() -> None:
    assert refused(NotShownError, replace(PROMISE, maps=(POOL1,)), last=(3, 4)) == (
        f"segments end at the map of 6x8 that pool1 makes, the model goes on to 3x4; {ADVICE}"
    )


@pytest.mark.parametrize("wrong", [-1, 48, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
def test_ids_beyond_the_promised_ones(wrong: int) -> None:
    ids = random_ids(POOL1)
    ids[0, 5, 5] = wrong
    lowest, highest = min(wrong, 0), max(wrong, 47)
    assert refused(GraphError, PROMISE, {POOL1.output: ids}) == (
        f"clusters/network.1 holds ids from {lowest} to {highest}, promised are 0 to 47; "
        "the graph is not what its description says, export it again"
    )
