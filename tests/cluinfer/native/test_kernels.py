"""The native operators against their definition, for every instruction set that this machine has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluinfer import native
from cluinfer.errors import ShapeError
from cluinfer.ops import reference

if not native.available():
    pytest.skip("the native kernels are not built (set CLUINFER_KERNELS to the library)", allow_module_level=True)

ISAS = range(len(native.isas()))
isa_of = pytest.mark.parametrize("isa", ISAS, ids=native.isas())
cases = settings(max_examples=60, deadline=None)
sizes = st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 120), st.integers(1, 70))
NEAR = 5e-6  # cosines closer than this may be ordered either way


def draw(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def scores(points, centers, alpha, beta, sigmoid):
    """Cosines and s in float64, [G,M,N]."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in map(np.float64, (centers, points))]
    cosine = np.matmul(unit[0].transpose(0, 2, 1), unit[1])
    t = alpha * cosine + beta
    return cosine, 1 / (1 + np.exp(-t)) if sigmoid else t


def check_assignment(points, centers, index, alpha=1.0, beta=0.0, sigmoid=True):
    """Finite input: equal to the definition, or so near a tie that float32 cannot tell."""
    expected, weight = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    cosine, _ = scores(points, centers, alpha, beta, sigmoid)
    got = np.take_along_axis(cosine, index[:, None], 1)
    wanted = np.take_along_axis(cosine, expected[:, None], 1)
    assert np.all((index == expected)[:, None] | (abs(got - wanted) < NEAR))
    return weight


@isa_of
@cases
@given(sizes, st.integers(0, 2**32), st.sampled_from([1.0, -1.0, 0.3, -4.0, 12.0]), st.booleans())
def test_assign_equals_the_definition(isa, size, seed, alpha, sigmoid):
    groups, channels, count, centres = size
    points, centers = draw(seed, (groups, channels, count), (groups, channels, centres))
    index, weight = native.cluster_assign(points, centers, alpha=alpha, beta=0.1, sigmoid=sigmoid, isa=isa)
    expected = check_assignment(points, centers, index, alpha, 0.1, sigmoid)
    assert index.dtype == np.int32
    np.testing.assert_allclose(weight, expected, rtol=2e-6, atol=2e-6 * abs(alpha))


@isa_of
@cases
@given(sizes, st.integers(0, 2**32), st.integers(1, 3))
def test_exact_ties_go_to_the_lowest_index(isa, size, seed, alphabet):
    """Vectors from so small an alphabet that whole centres repeat."""
    groups, channels, count, centres = size
    rng = np.random.default_rng(seed)
    channels = min(channels, 3)
    points, centers = (
        rng.integers(-alphabet, alphabet + 1, (groups, channels, n)).astype(np.float32) for n in (count, centres)
    )
    index, _ = native.cluster_assign(points, centers, isa=isa)
    check_assignment(points, centers, index)
    for g in range(groups):
        for n in range(count):  # no equal centre lies before the chosen one
            same = (centers[g] == centers[g, :, index[g, n]][:, None]).all(axis=0)
            assert same.argmax() == index[g, n]


@isa_of
@pytest.mark.parametrize("alpha, beta", [(40.0, 40.0), (-40.0, 40.0), (5.0, 200.0), (5.0, -300.0), (0.0, 0.3)])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_saturated_similarities_tie(isa, alpha, beta, sigmoid):
    points, centers = draw(3, (2, 24, 100), (2, 24, 37))
    index, weight = native.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid, isa=isa)
    expected, expected_weight = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    np.testing.assert_allclose(weight, expected_weight, rtol=2e-6)
    if sigmoid or alpha == 0:  # on a wide plateau the choice is exact, but for its border
        assert np.mean(index == expected) > 0.99
    else:
        check_assignment(points, centers, index, alpha, beta, sigmoid)


@isa_of
@pytest.mark.parametrize("sigmoid", [True, False])
def test_alpha_lost_beside_beta_ties(isa, sigmoid):
    points, centers = draw(4, (1, 8, 33), (1, 8, 9))
    index, _ = native.cluster_assign(points, centers, alpha=1e-12, beta=1.0, sigmoid=sigmoid, isa=isa)
    assert not index.any()


@isa_of
@pytest.mark.parametrize("alpha", [1.0, -2.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("beta", [0.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_values_that_are_not_finite(isa, alpha, beta, sigmoid):
    points, centers = draw(5, (6, 20, 60), (6, 20, 50))
    points[0, 3, 7] = np.nan
    points[1, :, 2] = np.inf
    centers[2, 5, 30:32] = np.nan
    points[2, 3, 7] = np.nan
    centers[3, 0, 49] = -np.inf
    points[4, :, 5] = 0
    centers[4, :, 11] = 0
    centers[5, :, 0] = np.nan
    index, weight = native.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid, isa=isa)
    expected, expected_weight = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(weight, expected_weight, rtol=2e-6, atol=1e-6)


@isa_of
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-25, 1e-13, 1e18, 3e19, 1e38])
def test_lengths_at_the_ends_of_float32(isa, size):
    points, centers = draw(6, (2, 16, 50), (2, 16, 7))
    points[0] *= np.float32(size)
    centers[1, :, 3] *= np.float32(size)
    index, weight = native.cluster_assign(points, centers, isa=isa)
    expected, expected_weight = reference.cluster_assign(points, centers)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(weight, expected_weight, rtol=2e-6)


@isa_of
@cases
@example((1, 3, 0, 2), 0, True)
@given(sizes, st.integers(0, 2**32), st.booleans())
def test_scatter_and_gather_equal_the_definition(isa, size, seed, weighted):
    groups, channels, count, centres = size
    values, base, weight = draw(seed, (groups, channels, count), (groups, channels, centres), (groups, count))
    index = np.random.default_rng(seed).integers(-2, centres + 2, (groups, count)).astype(np.int32)
    w = abs(weight) if weighted else None
    centers = native.cluster_scatter(values, index, base, w, isa=isa)
    np.testing.assert_allclose(centers, reference.cluster_scatter(values, index, base, w), rtol=1e-5, atol=1e-6)
    points = native.cluster_gather(centers, index, w, isa=isa)
    np.testing.assert_array_equal(points, reference.cluster_gather(centers, index, w))


@isa_of
@pytest.mark.parametrize("wild", [-(2**31), -1, 5, 2**31 - 1])
def test_an_index_out_of_range_touches_nothing(isa, wild):
    values, base = draw(8, (1, 4, 20), (1, 4, 5))
    index = np.full((1, 20), wild, np.int32)
    np.testing.assert_allclose(native.cluster_scatter(values, index, base, isa=isa), base)
    assert not native.cluster_gather(np.full_like(base, np.nan), index, isa=isa).any()


def test_indices_of_64_bits_do_not_wrap():
    values, base = draw(9, (1, 4, 3), (1, 4, 5))
    index = np.array([[0, 2**32, -(2**32)]])
    expected = reference.cluster_scatter(values, index, base)
    np.testing.assert_allclose(native.cluster_scatter(values, index, base), expected, rtol=1e-6)


@isa_of
def test_threads_do_not_change_a_bit(isa):
    points, centers = draw(10, (3, 24, 3000), (3, 24, 40))
    first = None
    for threads in (1, 2, 3, 7):
        index, weight = native.cluster_assign(points, centers, isa=isa, threads=threads)
        scattered = native.cluster_scatter(points, index, centers, weight, isa=isa, threads=threads)
        gathered = native.cluster_gather(scattered, index, weight, isa=isa, threads=threads)
        got = [x.tobytes() for x in (index, weight, scattered, gathered)]
        first = first or got
        assert got == first


def test_wrong_input_is_refused():
    points, centers = draw(11, (1, 4, 10), (1, 4, 3))
    with pytest.raises(ShapeError, match="float32"):
        native.cluster_assign(points.astype(np.float64), centers)
    with pytest.raises(ShapeError, match="M"):
        native.cluster_assign(points, centers[:, :, :0])
    with pytest.raises(ShapeError, match="instruction set"):
        native.cluster_assign(points, centers, isa=99)
    with pytest.raises(ShapeError, match="sizes"):
        native.cluster_assign(points, centers, threads=0)
