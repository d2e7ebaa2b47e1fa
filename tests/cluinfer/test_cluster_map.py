"""One layer's map: what it says of itself, stretched, painted, and found by its names."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluinfer import draw
from cluinfer.cluster_map import ClusterMap, Clusters, View, stretch
from cluinfer.errors import CluinferError, NotShownError, PictureError, ShapeError
from cluinfer.graph import ClusterOutput, Preprocess, Promise

STAGE = ClusterOutput("network.0.2.token_mixer", "stage1", False, 1, 2, (2, 3), (2, 2), (4, 6))
INNER = ClusterOutput("network.0.0.token_mixer", "", False, 1, 1, (1, 1), (2, 2), (4, 6))
POOL = ClusterOutput("network.1", "pool1", True, 1, 1, (1, 1), (2, 3), (4, 6))
PROMISE = Promise("own", "fec", (40, 60), 5, maps=(INNER, STAGE, POOL), preprocess=Preprocess(crop=0.5))
CROP = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
IDS = np.arange(48, dtype=np.int32).reshape(2, 4, 6) % 24


def cluster_map(output: ClusterOutput = STAGE, picture: Image.Image | None = CROP) -> ClusterMap:
    return ClusterMap.of(output, {output.output: IDS[: output.heads]}, View(PROMISE, picture))


def test_what_a_map_says_of_itself() -> None:
    stage = cluster_map()
    assert (stage.layer, stage.alias, stage.name) == ("network.0.2.token_mixer", "stage1", "stage1")
    assert (stage.stage, stage.pool, stage.heads, stage.fold, stage.grid) == (1, False, 2, (2, 3), (2, 2))
    assert (stage.size, stage.clusters) == ((4, 6), 24)
    assert stage.ids is not None
    assert cluster_map(INNER).name == "network.0.0.token_mixer"
    assert stage.to_dict() == {
        "layer": "network.0.2.token_mixer",
        "stage": 1,
        "pool": False,
        "fold": [2, 3],
        "grid": [2, 2],
        "clusters": 24,
    }


def test_maps_are_compared_by_identity() -> None:
    """Two pictures' maps say the same of themselves, and have different ids."""
    assert cluster_map() != cluster_map()
    assert len({cluster_map(), cluster_map()}) == 2


# --- similarities


def test_the_mean_similarity_of_each_cluster() -> None:
    ids = np.int32([[[0, 0, 3], [3, 3, 3]], [[5, 5, 5], [5, 1, -1]]])
    similarity = np.float32([[[0.5, 1, 0], [0.25, 0.25, 0.5]], [[1, 1, 1], [0, 0.125, 9]]])
    output = ClusterOutput("a", "", False, 1, 2, (1, 1), (2, 3), (2, 3))
    made = ClusterMap.of(output, {output.output: ids, output.similarity: similarity}, View(PROMISE, None))
    means = made.mean_similarity()
    assert means.dtype == np.float32
    nan = np.nan
    np.testing.assert_array_equal(means, [[0.75, nan, nan, 0.25, nan, nan], [nan, 0.125, nan, nan, nan, 0.75]])


def test_without_similarities_there_is_no_mean() -> None:
    assert cluster_map().similarity is None
    with pytest.raises(NotShownError, match="stage1 has no similarities; export the model with --similarities"):
        cluster_map().mean_similarity()


# --- stretched


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (40, 60), (5, 7), (13, 9), (2, 3), (1, 1), (3, 224)])
def test_upsampling_is_nearest_and_exact(size: tuple[int, int]) -> None:
    """In fractions: the point whose cell holds the pixel's middle, on a border that after it."""
    got = cluster_map().upsample(size)
    assert (got.dtype, got.shape) == (np.int32, (2, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            at = [
                int((Fraction(i) + Fraction(1, 2)) * points / side)
                for i, side, points in zip((row, column), size, (4, 6), strict=True)
            ]
            np.testing.assert_array_equal(got[:, row, column], IDS[:, at[0], at[1]])


def test_multiples_are_repeated() -> None:
    np.testing.assert_array_equal(cluster_map().upsample((12, 24)), IDS.repeat(3, 1).repeat(4, 2))


def test_upsampling_agrees_with_what_is_painted() -> None:
    """draw stretches by itself, as it knows nothing of maps."""
    size = (41, 52)
    direct = draw.overlay_clusters(IDS[0], CROP, size=size, opacity=1.0, edges=False)
    before = draw.overlay_clusters(cluster_map().upsample(size)[0], CROP, size=size, opacity=1.0, edges=False)
    np.testing.assert_array_equal(np.asarray(direct), np.asarray(before))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5, 5, 5), 5, "5x5", (5.0, 5.0), None])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(ShapeError) as error:
        cluster_map().upsample(size)
    assert str(error.value) == f"wanted a size of (rows, columns), got {size!r}"


def test_a_stretched_map_is_a_copy() -> None:
    ids = IDS.copy()
    stretch(ids, (4, 6))[...] = 99
    np.testing.assert_array_equal(ids, IDS)


# --- painted


def test_a_head_is_painted_over_the_crop() -> None:
    got = cluster_map().overlay(head=1, opacity=0.3, edges=False)
    wanted = draw.overlay_clusters(IDS[1], CROP, opacity=0.3, edges=False)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))
    assert got.size == (60, 40)


def test_all_heads_are_painted_in_a_grid() -> None:
    got = cluster_map().overlay(opacity=0.3)
    heads = [draw.overlay_clusters(ids, CROP, opacity=0.3) for ids in IDS]
    np.testing.assert_array_equal(np.asarray(got), np.asarray(draw.grid(heads, ["head 0", "head 1"])))
    alone = cluster_map(POOL).overlay()
    np.testing.assert_array_equal(np.asarray(alone), np.asarray(draw.overlay_clusters(IDS[0], CROP)))


def test_the_picture_that_was_given_is_painted_over_in_full_resolution() -> None:
    """The model sees the middle half, 40 of 80 rows and 60 of 120 columns; here 400 of 800, 600 of 1200."""
    original = Image.linear_gradient("L").resize((1200, 800)).convert("RGB")
    got = cluster_map().overlay(original, head=0)
    middle = original.crop((300, 200, 900, 600))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(draw.overlay_clusters(IDS[0], middle)))
    as_array = cluster_map(picture=None).overlay(np.asarray(original), head=0)
    np.testing.assert_array_equal(np.asarray(as_array), np.asarray(got))


def test_the_crop_itself_is_not_cropped_again() -> None:
    got = cluster_map().overlay(CROP, head=0)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(cluster_map().overlay(head=0)))


def refused(kind: type[CluinferError], call: Any) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def test_what_cannot_be_painted() -> None:
    assert refused(PictureError, lambda: cluster_map(picture=None).overlay()) == (
        "there is no picture to paint over, the model was given a tensor; give overlay one"
    )
    for head in (2, -1):
        assert refused(ShapeError, lambda head=head: cluster_map().overlay(head=head)) == (
            f"stage1 has the heads 0 to 1, got {head}"
        )
    assert refused(PictureError, lambda: cluster_map().overlay("none.png")) == (
        "none.png: wanted a picture, found nothing"
    )


# --- found by name


def test_maps_are_found_by_alias_and_by_layer() -> None:
    maps = tuple(cluster_map(output) for output in (INNER, STAGE, POOL))
    clusters = Clusters(maps)
    assert list(clusters) == ["network.0.0.token_mixer", "stage1", "pool1"]
    assert len(clusters) == 3
    assert clusters["stage1"] is clusters["network.0.2.token_mixer"] is maps[1]
    assert clusters["network.0.0.token_mixer"] is maps[0]
    assert [each.name for each in clusters.values()] == list(clusters)
    assert "network.1" in clusters and "pool1" in clusters and "pool2" not in clusters
    assert clusters.get("pool2") is None
    assert repr(clusters) == "Clusters(network.0.0.token_mixer, stage1, pool1)"


def test_a_map_that_is_not_there() -> None:
    clusters = Clusters((cluster_map(INNER), cluster_map(POOL)))
    wanted = "no cluster map 'stage4'; there are network.0.0.token_mixer, pool1 (network.1)"
    assert refused(NotShownError, lambda: clusters["stage4"]) == wanted
    with pytest.raises(KeyError):
        clusters["stage4"]
    assert refused(NotShownError, lambda: Clusters(())["stage4"]) == (
        "no cluster map 'stage4'; the model was exported with --maps none, or has none"
    )


@pytest.mark.parametrize("through", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_maps_go_to_other_processes(through: Any) -> None:
    sent = through(cluster_map())
    np.testing.assert_array_equal(sent.ids, IDS)
    np.testing.assert_array_equal(np.asarray(sent.overlay(head=0)), np.asarray(cluster_map().overlay(head=0)))
