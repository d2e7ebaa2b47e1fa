"""The CUDA kernels' own text, run on the host, against the definition of the operators.

This shows that they compute the right thing and do not depend on the order in which threads run. It does not show that
they run on a GPU: tests/gpu does, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cuda_on_host
import numpy as np
import pytest
from cuda_on_host import HostKernels
from hypothesis import given, settings
from hypothesis import strategies as st

from cluinfer.errors import ShapeError
from cluinfer.native.cuda import MAX_CHANNELS, Kernel, Shape, assign, gather, scatter
from cluinfer.ops import reference

if cuda_on_host.COMPILER is None:
    pytest.skip("no g++ here", allow_module_level=True)

# One shape for every path: one of everything; rests of a warp, a block, four channels; channels in registers and too
# many; two points a thread; several tiles of centres and of bins; bins for every lane, and shared ones.
ASSIGN = [
    *((1, 1, 1), (5, 33, 7), (16, 196, 4), (32, 300, 49), (33, 129, 5), (96, 49, 9), (97, 70, 6), (200, 65, 45)),
    *((30, 40, 260), (3, 257, 1200)),
]
SCATTER = [(1, 1, 1), (9, 33, 7), (3, 260, 49), (17, 70, 130), (2, 300, 190), (5, 100, 3136), (1, 40, 12500)]
GATHER = [(1, 1, 1), (17, 65, 7), (33, 300, 49), (2, 128, 3136)]
ATTRIBUTES = [(1.0, 0.0, True), (-2.5, 0.3, False), (60.0, -20.0, True), (-100.0, 0.0, True), (0.0, 0.3, True)]
ATTRIBUTES += [(np.inf, 0.0, True), (1.0, np.nan, False), (-np.inf, 1.0, True), (1e-12, 1.0, False), (1e39, 0.0, False)]

NEAR = 5e-6  # cosines closer than this may be ordered either way
examples = settings(max_examples=40, deadline=None)
seeds, orders = st.integers(0, 2**32 - 1), st.integers(0, 5)


@dataclass(frozen=True)
class Host:
    """All kernels of this module, by what they were made from."""

    run: HostKernels
    numbers: dict[tuple, int]

    def __call__(self, key: tuple, inputs, outputs, order: int = 0):
        return self.run(self.numbers[key], inputs, outputs, order)


def every_kernel() -> dict[tuple, Kernel]:
    made: dict[tuple, Kernel] = {}
    for sides in ASSIGN:
        for half, attributes in ((False, ATTRIBUTES[0]), (True, ATTRIBUTES[0]), (False, ATTRIBUTES[2])):
            made[("assign", sides, half, *attributes)] = assign(Shape(*sides), half, *attributes)
    for attributes in ATTRIBUTES:
        made[("assign", ASSIGN[1], False, *attributes)] = assign(Shape(*ASSIGN[1]), False, *attributes)
    for operator, all_sides, make in (("scatter", SCATTER, scatter), ("gather", GATHER, gather)):
        for sides in all_sides:
            for half, weighted in ((False, True), (True, False)):
                made[operator, sides, half, weighted] = make(Shape(*sides), half, weighted)
    return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    made = every_kernel()
    kernels = HostKernels(list(made.values()), tmp_path_factory.mktemp("cuda"))
    return Host(kernels, {key: number for number, key in enumerate(made)})


def draw(seed: int, half: bool, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32).astype(np.float16 if half else np.float32) for shape in shapes]


def spoil(seed: int, array: np.ndarray) -> np.ndarray:
    """A few zeros, NaN, infinities, and lengths at the ends of the type."""
    rng = np.random.default_rng(seed)
    ends = [0, np.nan, np.inf, -np.inf, *((6e-8, 6e4) if array.dtype == np.float16 else (1e-38, 1e-13, 1e19, 1e38))]
    for value in rng.choice(ends, rng.integers(0, 4)):
        group, column = rng.integers(len(array)), rng.integers(array.shape[2])
        rows = slice(None) if rng.random() < 0.5 else rng.integers(array.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            array[group, rows, column] *= value
    return array


def run_assign(host: Host, key: tuple, points, centers, order=0):
    shape = (len(points), points.shape[2])
    return host(key, [points, centers], [(shape, np.int32), (shape, points.dtype)], order)


def check_assignment(points, centers, index, weight, alpha, beta, sigmoid) -> None:
    """Equal to the definition, or so near a tie that float32 cannot tell, and then the weight is that of the choice."""
    expected, wanted = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    assert index.dtype == np.int32
    with np.errstate(invalid="ignore", over="ignore"):
        unit = [
            x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), np.float32(1e-12))
            for x in map(np.float32, (centers, points))
        ]
        cosine = np.matmul(unit[0].transpose(0, 2, 1).astype(np.float64), unit[1].astype(np.float64))
        got, best = (np.take_along_axis(cosine, i[:, None], 1)[:, 0] for i in (index, expected))
        assert ((index == expected) | (abs(got - best) < NEAR)).all()
    precision = 1e-3 if points.dtype == np.float16 else 3e-6
    scale = max(1.0, abs(alpha)) if np.isfinite(alpha) and not sigmoid else 1.0
    np.testing.assert_allclose(
        weight, wanted, rtol=precision, atol=precision * min(scale, 1e30) * (4 if sigmoid else 1)
    )


@examples
@given(st.sampled_from(ASSIGN), st.booleans(), seeds, orders, st.integers(0, 2))
def test_assign_equals_the_definition(host, sides, half, seed, order, groups):
    channels, count, centres = sides
    points, centers = draw(seed, half, (groups, channels, count), (groups, channels, centres))
    key = ("assign", sides, half, *ATTRIBUTES[0])
    check_assignment(points, centers, *run_assign(host, key, points, centers, order), *ATTRIBUTES[0])


@examples
@given(st.sampled_from(ASSIGN), st.booleans(), seeds, orders)
def test_assign_of_extremes(host, sides, half, seed, order):
    channels, count, centres = sides
    points, centers = draw(seed, half, (2, channels, count), (2, channels, centres))
    spoil(seed, points), spoil(seed + 1, centers)
    key = ("assign", sides, half, *ATTRIBUTES[0])
    check_assignment(points, centers, *run_assign(host, key, points, centers, order), *ATTRIBUTES[0])


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_assign_with_any_attributes(host, attributes):
    channels, count, centres = ASSIGN[1]
    points, centers = draw(7, False, (3, channels, count), (3, channels, centres))
    points[0, 1, 3], centers[1, 0, 5], points[1, :, 2] = np.nan, np.nan, 0
    index, weight = run_assign(host, ("assign", ASSIGN[1], False, *attributes), points, centers)
    alpha, beta, sigmoid = attributes
    with np.errstate(over="ignore"):  # an attribute is a float32
        alpha = float(np.float32(alpha))
    expected, wanted = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(weight, wanted, rtol=2e-6 * max(1, min(abs(alpha), 1e3)), atol=1e-6)


@examples
@given(st.sampled_from(ASSIGN), seeds, st.integers(1, 2), st.booleans())
def test_exact_ties_go_to_the_lowest_index(host, sides, seed, alphabet, careful):
    """Vectors from so small an alphabet that whole centres repeat."""
    channels, count, centres = sides
    rng = np.random.default_rng(seed)
    points = rng.integers(-alphabet, alphabet + 1, (1, channels, count)).astype(np.float32)
    few = rng.integers(-alphabet, alphabet + 1, (1, channels, max(1, centres // 3))).astype(np.float32)
    centers = np.ascontiguousarray(few[:, :, rng.integers(0, few.shape[2], centres)])
    index, _ = run_assign(host, ("assign", sides, False, *ATTRIBUTES[2 if careful else 0]), points, centers)
    for n in range(count):
        same = (centers[0] == centers[0, :, index[0, n]][:, None]).all(axis=0)
        assert same.argmax() == index[0, n]


def indices(seed: int, groups: int, count: int, centres: int) -> np.ndarray:
    """Some outside the range, some beyond all reason; sometimes all the same."""
    rng = np.random.default_rng(seed)
    index = rng.integers(-1, centres + 1, (groups, count)).astype(np.int32)
    if rng.random() < 0.3:
        index[0] = rng.integers(0, centres)
    index[-1, rng.integers(count)] = rng.choice([-(2**31), 2**31 - 1, 2**31 - 33])
    return index


@examples
@given(st.sampled_from(SCATTER), st.booleans(), seeds, orders)
def test_scatter_equals_the_definition(host, sides, half, seed, order):
    channels, count, centres = sides
    values, base, weight = draw(seed, half, (2, channels, count), (2, channels, centres), (2, count))
    index, w = indices(seed, 2, count, centres), None if half else abs(weight)
    inputs = [values, index, base, *([] if half else [w])]
    key = ("scatter", sides, half, not half)
    (centers,) = host(key, inputs, [(base.shape, base.dtype)], order)
    precision = 1e-3 if half else 1e-5
    np.testing.assert_allclose(
        centers, reference.cluster_scatter(values, index, base, w), rtol=precision, atol=precision / 2
    )
    (again,) = host(key, inputs, [(base.shape, base.dtype)], 6 - order)
    np.testing.assert_array_equal(centers.view(np.uint8), again.view(np.uint8))


@pytest.mark.parametrize("sides", SCATTER)
def test_what_is_not_finite_stays_in_its_centre(host, sides):
    channels, count, centres = sides
    values, base = draw(3, False, (1, channels, count), (1, channels, centres))
    index, weight = indices(5, 1, count, centres), np.ones((1, count), np.float32)
    values[0, 0, 0], values[0, -1, -1], index[0, 0], index[0, -1] = np.nan, np.inf, centres // 2, centres - 1
    weight[0, count // 2] = np.nan
    (centers,) = host(("scatter", sides, False, True), [values, index, base, weight], [(base.shape, base.dtype)])
    expected = reference.cluster_scatter(values, index, base, weight)
    np.testing.assert_array_equal(np.isfinite(centers), np.isfinite(expected))
    np.testing.assert_allclose(centers, expected, rtol=1e-5, atol=1e-6)


@examples
@given(st.sampled_from(GATHER), st.booleans(), seeds, orders)
def test_gather_equals_the_definition(host, sides, half, seed, order):
    channels, count, centres = sides
    centers, weight = draw(seed, half, (2, channels, centres), (2, count))
    spoil(seed, centers)
    index, w = indices(seed, 2, count, centres), None if half else weight
    inputs = [centers, index, *([] if half else [w])]
    shape = (2, channels, count)
    (points,) = host(("gather", sides, half, not half), inputs, [(shape, centers.dtype)], order)
    np.testing.assert_array_equal(points, reference.cluster_gather(centers, index, w))


@pytest.mark.parametrize(
    "make, channels",
    [
        (lambda shape: assign(shape, False, 1.0, 0.0, True), MAX_CHANNELS + 1),
        (lambda shape: assign(shape, False, 1.0, 0.0, True), 0),
        (lambda shape: scatter(shape, True, True), 2**31),
    ],
)
def test_shapes_that_no_kernel_takes(make: Callable[[Shape], Kernel], channels: int) -> None:
    with pytest.raises(ShapeError, match=f"got .*{channels}"):
        make(Shape(channels, 4, 4))
