"""The operators' definition, on cases worked out by hand: every rule that reference.py states."""

from __future__ import annotations

import numpy as np
import pytest

from cluinfer.errors import ShapeError
from cluinfer.ops import OPERATORS, cluster_assign, cluster_gather, cluster_scatter


def row(*values: float) -> np.ndarray:
    """One group with one channel: [1, 1, n]."""
    return np.array([[values]], dtype=np.float32)


def columns(*vectors: tuple[float, ...]) -> np.ndarray:
    """One group whose points or centres are these vectors: [1, D, n]."""
    return np.array([vectors], dtype=np.float32).transpose(0, 2, 1)


POINTS = columns((1, 0), (0, 2), (3, 4))
CENTERS = columns((5, 0), (0, 1))


def test_assign_takes_the_most_similar_centre() -> None:
    index, weight = cluster_assign(POINTS, CENTERS, sigmoid=False)
    assert index.tolist() == [[0, 1, 1]]
    assert index.dtype == np.int32
    np.testing.assert_allclose(weight, [[1, 1, 0.8]], rtol=1e-6)


def test_assign_scales_shifts_and_squashes() -> None:
    _, weight = cluster_assign(POINTS, CENTERS, alpha=2, beta=-1)
    np.testing.assert_allclose(weight, 1 / (1 + np.exp(-np.array([[1, 1, 0.6]]))), rtol=1e-6)


def test_negative_alpha_takes_the_least_similar_centre() -> None:
    index, weight = cluster_assign(POINTS, CENTERS, alpha=-1, sigmoid=False)
    assert index.tolist() == [[1, 0, 0]]
    np.testing.assert_allclose(weight, [[0, 0, -0.6]], atol=1e-6)


def test_ties_go_to_the_lowest_index() -> None:
    index, _ = cluster_assign(POINTS, columns((0, 1), (0, 4), (0, 2), (0, 1)), sigmoid=False)
    assert index.tolist() == [[0, 0, 0]]


def test_where_the_sigmoid_saturates_the_lowest_index_wins() -> None:
    index, weight = cluster_assign(columns((1, 0)), columns((1, 1), (1, 0)), alpha=100)
    assert index.tolist() == [[0]]  # 100 * 0.707 and 100 both squash to exactly 1
    assert weight.tolist() == [[1]]
    index, weight = cluster_assign(columns((1, 0)), columns((1, 1), (1, 0)), alpha=-300)
    assert index.tolist() == [[0]]  # both to exactly 0
    assert weight.tolist() == [[0]]


def test_zero_vectors_have_similarity_zero() -> None:
    index, weight = cluster_assign(columns((0, 0), (1, 0)), columns((-1, 0), (0, 0)), sigmoid=False)
    assert index.tolist() == [[0, 1]]
    assert weight.tolist() == [[0, 0]]


def test_norms_below_epsilon_do_not_scale_up() -> None:
    _, weight = cluster_assign(columns((1e-13, 0)), columns((1, 0)), sigmoid=False)
    np.testing.assert_allclose(weight, [[0.1]], rtol=1e-5)


def test_a_nan_point_gets_index_0_and_weight_nan() -> None:
    index, weight = cluster_assign(columns((np.nan, 0), (0, 1)), CENTERS)
    assert index.tolist() == [[0, 1]]
    assert np.isnan(weight[0, 0])
    assert weight[0, 1] > 0.7


def test_nan_counts_as_the_maximum() -> None:
    index, weight = cluster_assign(POINTS, columns((1, 0), (np.nan, 1), (np.nan, 0)))
    assert index.tolist() == [[1, 1, 1]]
    assert np.isnan(weight).all()


def test_one_centre_takes_every_point() -> None:
    index, weight = cluster_assign(POINTS, columns((1, 0)), sigmoid=False)
    assert index.tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(weight, [[1, 0, 0.6]], rtol=1e-6)


def test_fewer_points_than_centres() -> None:
    index, _ = cluster_assign(columns((0, 1)), columns((1, 0), (-1, 0), (0, 1), (0, -1)))
    assert index.tolist() == [[2]]


def test_scatter_averages_points_with_the_base() -> None:
    index = np.array([[1, 0, 1]], dtype=np.int32)
    assert cluster_scatter(row(2, 4, 6), index, row(1, 10, 7)).tolist() == [[[2.5, 6.0, 7.0]]]


def test_scatter_weighs_points() -> None:
    index, weight = np.array([[0, 0]], dtype=np.int32), np.array([[0.5, 2.5]], dtype=np.float32)
    assert cluster_scatter(row(4, 2), index, row(1), weight).tolist() == [[[(2 + 5 + 1) / 4]]]


def test_an_index_outside_adds_nothing_and_gathers_zero() -> None:
    index = np.array([[-1, 2, 0]], dtype=np.int32)
    nan = float("nan")
    assert cluster_scatter(row(nan, nan, 3), index, row(1, 5)).tolist() == [[[2, 5]]]
    weight = np.array([[nan, nan, 2]], dtype=np.float32)
    assert cluster_gather(row(7, 8), index, weight).tolist() == [[[0, 0, 14]]]
    assert cluster_gather(row(7, 8), index).tolist() == [[[0, 0, 7]]]


def test_a_nan_value_stays_with_its_centre() -> None:
    index = np.array([[0, 1]], dtype=np.int32)
    centers = cluster_scatter(row(float("nan"), 4), index, row(0, 0))
    assert np.isnan(centers[0, 0, 0])
    assert centers[0, 0, 1] == 2


def test_sums_of_many_points_are_exact_to_rounding() -> None:
    count = 100_000
    values = np.full((1, 1, count), 0.1, dtype=np.float32)
    centers = cluster_scatter(values, np.zeros((1, count), np.int32), row(0))
    np.testing.assert_allclose(centers, np.float32(0.1) * count / (count + 1), rtol=1e-7)


@pytest.mark.parametrize("groups", [1, 3])
def test_no_points_at_all(groups: int) -> None:
    points, centers = np.zeros((groups, 2, 0), np.float32), np.ones((groups, 2, 3), np.float32)
    index, weight = cluster_assign(points, centers)
    assert index.shape == weight.shape == (groups, 0)
    assert (cluster_scatter(points, index, centers) == centers).all()
    assert cluster_gather(centers, index).shape == (groups, 2, 0)


@pytest.mark.parametrize(
    ("points", "centers", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 2, 3)), "points must be [G, D, N], got shape [2, 3]"),
        (np.ones((1, 2, 5)), np.ones((1, 3, 2)), "centers must be [G, D, M] with D = 2, got shape [1, 3, 2]"),
        (np.ones((1, 2, 5)), np.ones((1, 2, 0)), "at least one centre is needed, got G = 1, D = 2, N = 5, M = 0"),
        (np.ones((1, 2, 5), int), np.ones((1, 2, 1)), "points must be [G, D, N] of floats, got int64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(points: np.ndarray, centers: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError) as error:
        cluster_assign(points, centers)
    assert str(error.value) == f"ClusterAssign: {message}"


def test_a_float_index_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"index must be \[G, N\] of int32, got float32"):
        cluster_gather(row(1, 2), np.zeros((1, 2), np.float32))


def test_the_schema_is_the_contract() -> None:
    """The operators are a file format: a change here needs a new version of the domain."""
    spelled = {
        name: (
            [f"{t.name}[{','.join(t.shape)}]{t.dtype}{'?' if t.optional else ''}" for t in operator.inputs],
            [f"{t.name}[{','.join(t.shape)}]{t.dtype}" for t in operator.outputs],
            {a.name: a.default for a in operator.attributes},
        )
        for name, operator in OPERATORS.items()
    }
    assert spelled == {
        "ClusterAssign": (
            ["points[G,D,N]T", "centers[G,D,M]T"],
            ["index[G,N]int32", "weight[G,N]T"],
            {"alpha": 1.0, "beta": 0.0, "sigmoid": 1},
        ),
        "ClusterScatter": (
            ["values[G,C,N]T", "index[G,N]int32", "base[G,C,M]T", "weight[G,N]T?"],
            ["centers[G,C,M]T"],
            {},
        ),
        "ClusterGather": (["centers[G,C,M]T", "index[G,N]int32", "weight[G,N]T?"], ["points[G,C,N]T"], {}),
    }
