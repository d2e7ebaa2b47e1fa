"""The kernels' PTX on a GPU, launched with TensorRT's arguments, against the definition: real sizes, and rests."""

from __future__ import annotations

import numpy as np
import pytest

from cluinfer.engines.trt.launch import run
from cluinfer.native.cuda import Shape, assign, gather, scatter
from cluinfer.ops import reference

# groups, channels, points, centres
SIZES = [
    *((1, 1, 1, 1), (3, 5, 33, 7), (64, 16, 49, 4), (512, 32, 784, 49), (4096, 24, 196, 4), (8, 96, 3136, 49)),
    *((2, 24, 12544, 3136), (4, 97, 70, 6), (2, 200, 65, 45), (3, 3, 257, 1200), (1, 1, 40, 12500)),
]
NEAR = 5e-6  # cosines closer than this may be ordered either way


def draw(size, half):
    groups, channels, count, centres = size
    rng = np.random.default_rng(count)
    kind = np.float16 if half else np.float32
    points = rng.standard_normal((groups, channels, count), np.float32).astype(kind)
    centers = rng.standard_normal((groups, channels, centres), np.float32).astype(kind)
    index = rng.integers(-2, centres + 2, (groups, count)).astype(np.int32)
    index[0, 0], index[-1, -1] = -(2**31), 2**31 - 1
    return points, centers, index, rng.random((groups, count), np.float32).astype(kind)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("alpha", [1.0, 60.0])
def test_assign(size, half, alpha):
    points, centers, *_ = draw(size, half)
    groups, channels, count, centres = size
    kernel = assign(Shape(channels, count, centres), half, alpha, 0.1, True)
    outputs = [((groups, count), np.int32), ((groups, count), points.dtype)]
    index, weight = run(kernel, [points, centers], outputs)
    step = max(1, (1 << 22) // (count * centres))
    for at in range(0, groups, step):
        part = slice(at, at + step)
        expected, wanted = reference.cluster_assign(points[part], centers[part], alpha=alpha, beta=0.1)
        units = [
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            for x in (centers[part].astype(np.float64), points[part].astype(np.float64))
        ]
        cosine = np.matmul(units[0].transpose(0, 2, 1), units[1])
        got, best = (np.take_along_axis(cosine, i[:, None], 1)[:, 0] for i in (index[part], expected))
        same = (index[part] == expected) | (abs(got - best) < NEAR)
        assert same.all() if alpha == 1 else same.mean() > 0.99  # the border of a plateau is within rounding
        np.testing.assert_allclose(weight[part], wanted, rtol=2e-3 if half else 1e-5, atol=1e-5)
    again = run(kernel, [points, centers], outputs)
    assert all(np.array_equal(a, b) for a, b in zip((index, weight), again, strict=True))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_scatter_and_gather(size, half, weighted):
    values, base, index, weight = draw(size, half)
    w = [weight] if weighted else []
    shape = Shape(*size[1:])
    scattering = scatter(shape, half, weighted)
    (centers,) = run(scattering, [values, index, base, *w], [(base.shape, base.dtype)])
    wanted = reference.cluster_scatter(values, index, base, *w)
    precision = 2e-3 if half else 1e-5
    np.testing.assert_allclose(centers, wanted, rtol=precision, atol=precision)
    (again,) = run(scattering, [values, index, base, *w], [(base.shape, base.dtype)])
    np.testing.assert_array_equal(centers, again)
    (points,) = run(gather(shape, half, weighted), [base, index, *w], [(values.shape, values.dtype)])
    np.testing.assert_array_equal(points, reference.cluster_gather(base, index, *w))
