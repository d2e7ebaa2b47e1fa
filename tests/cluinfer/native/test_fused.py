"""The fused kernels against the reference operators put together in NumPy, for every instruction set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluinfer import native
from cluinfer.errors import ShapeError
from cluinfer.native import Layout
from cluinfer.ops import reference

if not native.available():
    pytest.skip("the native kernels are not built (set CLUINFER_KERNELS to the library)", allow_module_level=True)

ISAS = range(len(native.isas()))
isa_of = pytest.mark.parametrize("isa", ISAS, ids=native.isas())
last_of = pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
cases = settings(max_examples=25, deadline=None)


def maps(seed, batch, channels, rows, columns, channels_last, count=2):
    """`count` maps that are slices of one wider map, as those of one convolution are."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal((batch, channels * count, rows, columns), dtype=np.float32)
    wide += rng.standard_normal((1, channels * count, 1, 1), dtype=np.float32)  # features share a mean
    if channels_last:
        wide = np.ascontiguousarray(wide.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return [wide[:, i * channels : (i + 1) * channels] for i in range(count)]


def split(x, layout):
    """[B, E*d, H, W] -> [B*E*regions, d, h, w]."""
    batch, channels, rows, columns = x.shape
    (fr, fc), heads = layout.fold, layout.heads
    x = x.reshape(batch, heads, channels // heads, fr, rows // fr, fc, columns // fc)
    return x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, channels // heads, rows // fr, columns // fc)


def join(x, batch, layout):
    """The way back."""
    (fr, fc), heads = layout.fold, layout.heads
    channels, rows, columns = x.shape[1:]
    x = x.reshape(batch, heads, fr, fc, channels, rows, columns).transpose(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(batch, heads * channels, fr * rows, fc * columns)


def pooled(x, grid):
    """Adaptive average pooling of [G, d, h, w] to [G, d, M]."""
    (rows, columns), sides = grid, x.shape[2:]
    windows = [
        x[
            :,
            :,
            i * sides[0] // rows : -(-(i + 1) * sides[0] // rows),
            j * sides[1] // columns : -(-(j + 1) * sides[1] // columns),
        ].mean((2, 3), dtype=np.float64)
        for i in range(rows)
        for j in range(columns)
    ]
    return np.stack(windows, axis=-1).astype(np.float32)


def check_clusters(f, clusters, layout, alpha=1.0, beta=0.0, sigmoid=True):
    """Every chosen centre is the definition's, or as similar to 1e-5; returns local indices [G, N]."""
    batch = f.shape[0]
    regions = layout.fold[0] * layout.fold[1]
    m = layout.grid[0] * layout.grid[1]
    ids = split(clusters, layout).reshape(batch * layout.heads * regions, -1)
    index = ids - np.tile(np.arange(regions), batch * layout.heads)[:, None] * m
    assert index.min() >= 0 and index.max() < m
    points = split(f, layout)
    centers = pooled(points, layout.grid)
    points = points.reshape(*points.shape[:2], -1)
    expected, weight = reference.cluster_assign(points, centers, alpha=alpha, beta=beta, sigmoid=sigmoid)
    cosine = np.matmul(reference._unit(np.float64(centers)).transpose(0, 2, 1), reference._unit(np.float64(points)))
    got, wanted = (np.take_along_axis(cosine, i[:, None], 1)[:, 0] for i in (index, expected))
    assert np.all((index == expected) | (abs(got - wanted) < 1e-5))
    return index.astype(np.int32), weight


@st.composite
def layouts(draw):
    layout = Layout(
        draw(st.integers(1, 4)),
        (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        draw(st.sampled_from([(1, 1), (2, 3)])),
    )
    side = st.integers(1, 12)
    return (
        layout,
        draw(st.integers(1, 2)),
        draw(st.integers(1, 40)),
        layout.fold[0] * draw(side),
        layout.fold[1] * draw(side),
    )


@isa_of
@last_of
@cases
@given(layouts(), st.integers(0, 2**32), st.sampled_from([1.0, -1.5]), st.booleans())
def test_block(isa, channels_last, drawn, seed, alpha, weighted):
    layout, batch, d, rows, columns = drawn
    f, v = maps(seed, batch, layout.heads * d, rows, columns, channels_last)
    out, clusters = native.cluster_block(
        f, v, layout, alpha=alpha, beta=0.2, weighted=weighted, channels_last=channels_last, isa=isa
    )
    index, weight = check_clusters(f, clusters, layout, alpha, 0.2)
    values = split(v, layout)
    base = pooled(values, layout.grid)
    flat = values.reshape(*values.shape[:2], -1)
    centers = reference.cluster_scatter(flat, index, base, weight if weighted else None)
    expected = join(reference.cluster_gather(centers, index, weight).reshape(values.shape), batch, layout)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@isa_of
@cases
@given(layouts(), st.integers(0, 2**32), st.integers(1, 70), st.booleans(), st.sampled_from([1, 2, 5]))
def test_block_with_its_convolution(isa, drawn, seed, width, biased, threads):
    """As the block, then the convolution, whatever the number of threads."""
    layout, batch, d, rows, columns = drawn
    f, v = maps(seed, batch, layout.heads * d, rows, columns, channels_last=True)
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((layout.heads * d, width), dtype=np.float32)
    bias = rng.standard_normal(width, dtype=np.float32) if biased else None
    given = {"alpha": 2.0, "isa": isa, "threads": threads}
    plain, ids = native.cluster_block(f, v, layout, channels_last=True, **given)
    got, clusters = native.cluster_block(f, v, layout, projection=native.Projection(weight, bias), **given)
    np.testing.assert_array_equal(clusters, ids)
    np.testing.assert_allclose(got, convolved(plain, weight, bias), rtol=1e-4, atol=1e-4)


@isa_of
@cases
@given(layouts(), st.integers(0, 2**32), st.integers(1, 70), st.booleans())
def test_map_gather(isa, drawn, seed, width, weighted):
    """With and without the convolution; indices out of range gather nothing."""
    layout, batch, d, rows, columns = drawn
    rng = np.random.default_rng(seed)
    m = layout.grid[0] * layout.grid[1]
    regions = layout.fold[0] * layout.fold[1]
    shape = batch * layout.heads * regions, rows * columns // regions
    centers = rng.standard_normal((shape[0], d, m), dtype=np.float32)
    index = rng.integers(-1, m + 1, shape).astype(np.int32)
    weight = rng.random(shape, np.float32) if weighted else None
    points = reference.cluster_gather(centers, index, weight)
    plain = join(points.reshape(shape[0], d, rows // layout.fold[0], columns // layout.fold[1]), batch, layout)
    size = (rows, columns)
    np.testing.assert_array_equal(native.cluster_map_gather(centers, index, weight, layout, size, isa=isa), plain)
    kernel = rng.standard_normal((layout.heads * d, width), dtype=np.float32)
    projection = native.Projection(kernel, rng.standard_normal(width, dtype=np.float32))
    got = native.cluster_map_gather(centers, index, weight, layout, size, projection, isa=isa, threads=2)
    np.testing.assert_allclose(got, convolved(plain, kernel, projection.bias), rtol=1e-4, atol=1e-4)


def convolved(x, weight, bias):
    """A 1x1 convolution with weight [C, width]."""
    out = np.einsum("bchw,cd->bdhw", np.float64(x), weight)
    return out if bias is None else out + bias[:, None, None]


@pytest.mark.parametrize(
    ("weight", "bias"), [((7, 3), None), ((8,), None), ((8, 3), (4,)), ((8, 0), (0,))], ids=lambda shape: str(shape)
)
def test_projections_that_do_not_fit_are_refused(weight, bias):
    f, v = maps(5, 1, 8, 12, 12, True)
    projection = native.Projection(np.ones(weight, np.float32), None if bias is None else np.ones(bias, np.float32))
    with pytest.raises(ShapeError):
        native.cluster_block(f, v, Layout(2, (2, 2)), projection=projection)


def check_pool(f, v, layout, out, clusters):
    index, _ = check_clusters(f, clusters, layout, sigmoid=False)
    values = split(v, layout)
    centers = reference.cluster_scatter(values.reshape(*values.shape[:2], -1), index, pooled(values, layout.grid))
    expected = join(centers.reshape(*centers.shape[:2], *layout.grid), f.shape[0], layout)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@isa_of
@last_of
@cases
@given(layouts(), st.integers(0, 2**32), st.booleans())
def test_pool(isa, channels_last, drawn, seed, shared):
    layout, batch, d, rows, columns = drawn
    f, v = maps(seed, batch, layout.heads * d, rows, columns, channels_last)
    if shared:
        v = f
    out, clusters = native.cluster_pool(f, v, layout, channels_last=channels_last, isa=isa)
    check_pool(f, v, layout, out, clusters)


@isa_of
@last_of
@pytest.mark.parametrize("rows, columns, d, fold", [(28, 28, 64, (1, 1)), (30, 22, 20, (1, 1)), (32, 48, 33, (2, 2))])
def test_pool_of_many_centres(isa, channels_last, rows, columns, d, fold):
    """Enough centres for the 8-bit screen."""
    layout = Layout(1, (rows // fold[0] // 2, columns // fold[1] // 2), fold)
    f, v = maps(1, 2, d, rows, columns, channels_last)
    check_pool(f, v, layout, *native.cluster_pool(f, v, layout, channels_last=channels_last, isa=isa))


@isa_of
@pytest.mark.parametrize("kind", ["constant", "zeros", "few", "close", "huge", "tiny", "outlier", "not finite"])
def test_pool_where_rounding_to_8_bits_cannot_tell(isa, kind):
    """The screen must leave every hard case to float32."""
    layout = Layout(1, (12, 12))
    f, v = maps(2, 1, 48, 24, 24, True)
    f = f.copy()
    if kind == "constant":
        f[:] = 1.5
    elif kind == "zeros":
        f[:, :, 5:9] = 0
    elif kind == "few":
        f[:] = np.sign(f)
        f[:, 2:] = 0
    elif kind == "close":
        f[:] = 1 + 1e-4 * f
    elif kind == "huge":
        f *= np.float32(1e18)
    elif kind == "tiny":
        f *= np.float32(1e-17)
    elif kind == "outlier":
        f[:, 0, 3, 3] = 1e6
    else:
        f[0, 5, 7, 8], f[0, :, 20, 20] = np.nan, np.inf
        out, clusters = native.cluster_pool(f, v, layout, isa=isa)
        with np.errstate(invalid="ignore"):
            centers = pooled(f, layout.grid)
        expected, _ = reference.cluster_assign(f.reshape(1, 48, -1), centers, sigmoid=False)
        np.testing.assert_array_equal(clusters.reshape(1, -1), expected)
        return
    out, clusters = native.cluster_pool(f, v, layout, isa=isa)
    check_pool(f, v, layout, out, clusters)
    if kind in ("constant", "zeros"):
        assert not clusters[f[:, :1] == (1.5 if kind == "constant" else 0)].any()


@isa_of
@pytest.mark.parametrize("spread", [0.01, 0.1, 1.0])
def test_pool_of_spatially_smooth_features(isa, spread):
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[0:40, 0:40] / 10
    phases = rng.standard_normal((32, 3)) * 2
    f = np.stack([np.sin(a * rows + b * columns + c) * spread + c for a, b, c in phases])[None].astype(np.float32)
    layout = Layout(1, (20, 20))
    check_pool(f, f, layout, *native.cluster_pool(f, f, layout, isa=isa))


@isa_of
@last_of
@cases
@given(layouts(), st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 6.0, 19.0, 300.0, 1e4]))
def test_aggregate(isa, channels_last, drawn, seed, scale):
    layout, batch, d, rows, columns = drawn
    k, v = maps(seed, batch, layout.heads * d, rows, columns, channels_last)
    got, features = native.cluster_aggregate(k, v, layout, scale=scale, isa=isa)
    keys, values = (split(x, layout) for x in (k, v))
    np.testing.assert_allclose(features, pooled(values, layout.grid), rtol=1e-5, atol=1e-5)
    centers = reference._unit(np.float64(pooled(keys, layout.grid)))
    points = reference._unit(np.float64(keys.reshape(*keys.shape[:2], -1)))
    similarity = scale * np.matmul(centers.transpose(0, 2, 1), points)
    similarity = np.exp(similarity - similarity.max(axis=2, keepdims=True))
    similarity /= similarity.sum(axis=2, keepdims=True)
    expected = np.matmul(values.reshape(*values.shape[:2], -1), similarity.transpose(0, 2, 1))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, scale))


@isa_of
@last_of
@cases
@given(layouts(), st.integers(0, 2**32), st.integers(1, 13), st.sampled_from([0.1, 1.0, 40.0]))
def test_gated_aggregate(isa, channels_last, drawn, seed, hidden, size):
    """Gates from nearly even to all but shut, against the same in NumPy's float64."""
    layout, batch, d, rows, columns = drawn
    k, v = maps(seed, batch, layout.heads * d, rows, columns, channels_last)
    rng = np.random.default_rng(seed)
    shapes = (layout.heads, hidden, 2 * d), (layout.heads, hidden), (layout.heads, hidden), (layout.heads,)
    gates = native.Gates(*(np.float32(size * rng.standard_normal(shape)) for shape in shapes))
    gathered, own = native.cluster_aggregate(k, v, layout, scale=3.0, isa=isa)
    got, nothing = native.cluster_aggregate(k, v, layout, scale=3.0, gates=gates, isa=isa)
    assert nothing.size == 0
    regions = layout.fold[0] * layout.fold[1]
    first, bias, second, shift = (
        np.repeat(np.tile(np.float64(x), (batch, *[1] * (x.ndim - 1))), regions, axis=0)
        for x in (gates.first, gates.bias, gates.second, gates.shift)
    )
    z = first @ np.concatenate([gathered, own], axis=1) + bias[..., None]
    z = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2
    share = 1 / (1 + np.exp(-np.clip(np.einsum("gh,ghm->gm", second, z) + shift[:, None], -700, 700)))
    expected = (1 - share[:, None]) * gathered + share[:, None] * own
    error = np.abs(z).sum(axis=1) * np.abs(second).max() * np.abs(gathered - own).max()  # of the gate's argument
    assert np.all(np.abs(got - expected) <= 1e-5 + 4e-7 * error[:, None])


def test_gates_that_do_not_fit_are_refused():
    f, v = maps(5, 1, 8, 12, 12, False)
    gates = native.Gates(*(np.ones(shape, np.float32) for shape in ((2, 3, 8), (2, 3), (2, 3), (1,))))
    with pytest.raises(ShapeError, match=r"gates must be of shapes"):
        native.cluster_aggregate(f, v, Layout(2, (2, 2)), scale=1.0, gates=gates)


@isa_of
@cases
@given(st.integers(0, 9), st.integers(1, 70), st.integers(0, 2**32), st.booleans(), st.sampled_from([0.0, 100.0]))
def test_norm(isa, count, channels, seed, two, mean):
    """Rows whose mean is far from their spread keep their variance; rows that are constant become zeros."""
    rng = np.random.default_rng(seed)
    rows, other = np.float32(mean + rng.standard_normal((2, count, channels)))
    rows[: count // 3], other[: count // 3] = mean, 0
    added, got = native.norm(rows, other if two else None, epsilon=1e-5, isa=isa, threads=2)
    wanted = rows + other if two else rows
    np.testing.assert_array_equal(added, wanted)
    away = np.float64(wanted) - np.float64(wanted).mean(axis=1, keepdims=True)
    expected = away / np.sqrt(np.square(away).mean(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 if mean == 0 else 1e-2)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 3, 4)])
def test_rows_that_are_none_are_refused(shape):
    with pytest.raises(ShapeError, match=r"norm: wanted rows"):
        native.norm(np.zeros(shape, np.float32), epsilon=1e-5)


@isa_of
def test_threads_do_not_change_a_bit(isa):
    first = None
    f, v = maps(3, 1, 4 * 24, 40, 28, True)
    projection = native.Projection(np.ones((96, 33), np.float32))
    for threads in (1, 2, 3, 5, 16):
        arguments = {"isa": isa, "threads": threads}
        got = (
            *native.cluster_block(f, v, Layout(4, (4, 4)), **arguments),
            *native.cluster_pool(f, v, Layout(1, (20, 14)), **arguments),
            *native.cluster_aggregate(f, v, Layout(2, (7, 7)), scale=5.0, **arguments),
            *native.cluster_aggregate(f, v, Layout(1, (7, 7)), scale=50.0, **arguments),
            native.cluster_block(f, v, Layout(4, (4, 4)), projection=projection, **arguments)[0],
            *native.norm(f.reshape(-1, 28), v.reshape(-1, 28), epsilon=1e-5, **arguments),
        )
        first = first or [x.tobytes() for x in got]
        assert [x.tobytes() for x in got] == first


def test_layouts_do_not_change_the_result():
    first = maps(4, 2, 48, 12, 12, False)
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for x in first]
    strided = [np.repeat(np.repeat(x, 2, axis=3), 2, axis=1)[:, ::2, :, ::2] for x in first]
    layout = Layout(2, (3, 3), (2, 2))
    results = [native.cluster_block(*pair, layout) for pair in (first, last, strided)]
    for out, clusters in results[1:]:
        np.testing.assert_array_equal(clusters, results[0][1])
        np.testing.assert_allclose(out, results[0][0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "layout", [Layout(3), Layout(1, (0, 1)), Layout(1, (1, 1), (5, 1)), Layout(1, (2**31, 2**31)), Layout(0)]
)
def test_sizes_that_do_not_fit_are_refused(layout):
    f, v = maps(5, 1, 8, 12, 12, False)
    for function in (native.cluster_block, native.cluster_pool):
        with pytest.raises((ShapeError, MemoryError, ValueError)):
            function(f, v, layout)
    with pytest.raises((ShapeError, MemoryError, ValueError)):
        native.cluster_aggregate(f, v, layout, scale=1.0)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_scales_that_have_no_meaning_are_refused(scale):
    f, v = maps(5, 1, 8, 12, 12, False)
    with pytest.raises(ShapeError):
        native.cluster_aggregate(f, v, Layout(1, (2, 2)), scale=scale)
