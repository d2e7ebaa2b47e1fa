"""The CPU kernels from Python: the operators of `cluinfer.ops.reference`, native, and the fused ones.

Arrays are float32 (indices int32). Maps are `[B, C, H, W]` with any strides: a transposed view of a channels-last
array is read where it lies. `isa` numbers an instruction set of `isas()`, -1 the best; results do not depend on
`threads`. `available()` says whether the library was built; every other function raises `MissingPackageError`
without it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import MissingPackageError, ShapeError
from cluinfer.ops import reference

Array = NDArray[Any]
OVERRIDE = "CLUINFER_KERNELS"  # the path of a library to use instead of the installed one
ABI = 2
_NAMES = {"win32": "cluinfer_kernels.dll", "darwin": "libcluinfer_kernels.dylib"}
_ERRORS = {1: "these sizes do not fit together", 2: "this CPU has no such instruction set", 3: "out of memory"}


class _Run(ctypes.Structure):
    _fields_ = (
        ("isa", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("parallel_for", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


class _Map(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("channel", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("column", ctypes.c_int64),
    )


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("batch", "heads", "channels", "rows", "columns"),
            *("fold_rows", "fold_columns", "grid_rows", "grid_columns"),
        )
    )


class _Gates(ctypes.Structure):
    _fields_ = (
        ("hidden", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("first", "bias", "second", "shift")),
    )


class _Projection(ctypes.Structure):
    _fields_ = (("width", ctypes.c_int64), ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


@dataclass(frozen=True)
class Layout:
    """How a map is clustered: heads, centres along each side of a region, regions along each side."""

    heads: int = 1
    grid: tuple[int, int] = (1, 1)
    fold: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Gates:
    """CLUENet's gates: first [E,hidden,2d], bias [E,hidden], second [E,hidden], shift [E]."""

    first: Array
    bias: Array
    second: Array
    shift: Array


@dataclass(frozen=True)
class Projection:
    """The 1x1 convolution behind a mixer: weight [E*d,width], bias [width] or None."""

    weight: Array
    bias: Array | None = None


def available() -> bool:
    """Whether the library is there and of this version."""
    try:
        _library()
    except MissingPackageError:
        return False
    return True


def isas() -> list[str]:
    """The names of the instruction sets that run here; the best last."""
    library = _library()
    names: list[str] = []
    while (name := library.cluinfer_isa_name(len(names))) is not None:
        names.append(name.decode())
    return names


def cluster_assign(
    points: Array,
    centers: Array,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    sigmoid: bool = True,
    isa: int = -1,
    threads: int = 1,
) -> tuple[Array, Array]:
    """As `reference.cluster_assign`: points [G,D,N], centers [G,D,M] -> index int32 [G,N], weight [G,N]."""
    reference._check("ClusterAssign", points=points, centers=centers)
    points, centers = _float32(points), _float32(centers)
    index = np.empty((points.shape[0], points.shape[2]), np.int32)
    weight = np.empty(index.shape, np.float32)
    shape, view = _columns(points)
    m, switch = ctypes.c_int64(centers.shape[2]), ctypes.c_int32(sigmoid)
    _call("assign", isa, threads, shape, view, centers, m, _f(alpha), _f(beta), switch, index, weight)
    return index, weight


def cluster_scatter(
    values: Array, index: Array, base: Array, weight: Array | None = None, *, isa: int = -1, threads: int = 1
) -> Array:
    """As `reference.cluster_scatter`: values [G,C,N], index [G,N], base [G,C,M] -> centers [G,C,M]."""
    reference._check("ClusterScatter", values=values, index=index, base=base, weight=weight)
    values, base, index = _float32(values), _float32(base), _int32(index)
    weight = None if weight is None else _float32(weight)
    centers = np.empty(base.shape, np.float32)
    shape, view = _columns(values)
    _call("scatter", isa, threads, shape, view, index, weight, base, ctypes.c_int64(base.shape[2]), centers)
    return centers


def cluster_gather(
    centers: Array, index: Array, weight: Array | None = None, *, isa: int = -1, threads: int = 1
) -> Array:
    """As `reference.cluster_gather`: centers [G,C,M], index [G,N], weight [G,N] or None -> points [G,C,N]."""
    reference._check("ClusterGather", centers=centers, index=index, weight=weight)
    centers, index = _float32(centers), _int32(index)
    weight = None if weight is None else _float32(weight)
    points = np.empty((*centers.shape[:2], index.shape[1]), np.float32)
    shape, view = _columns(points)
    _call("gather", isa, threads, shape, centers, ctypes.c_int64(centers.shape[2]), index, weight, view, None)
    return points


def cluster_map_gather(
    centers: Array,
    index: Array,
    weight: Array | None,
    layout: Layout,
    size: tuple[int, int],
    projection: Projection | None = None,
    *,
    isa: int = -1,
    threads: int = 1,
) -> Array:
    """As `cluster_gather`, into a channels-last map [B,E*d,H,W] of this size, or what a convolution makes of it."""
    reference._check("ClusterGather", centers=centers, index=index, weight=weight)
    centers, index = _float32(centers), _int32(index)
    weight = None if weight is None else _float32(weight)
    groups = layout.heads * layout.fold[0] * layout.fold[1]
    points = size[0] * size[1] // (layout.fold[0] * layout.fold[1])
    if centers.shape[0] % groups or index.shape[1] != points:
        raise ShapeError(f"centers {centers.shape} and index {index.shape} do not make a map of {size} by {layout}")
    width = layout.heads * centers.shape[1]
    sides = (centers.shape[0] // groups, layout.heads, centers.shape[1], *size)
    shape, packed = _Shape(*sides, *layout.fold, *layout.grid), _projection(projection, width)
    out = _empty((sides[0], packed.width if packed else width, *size), channels_last=True)
    m = ctypes.c_int64(centers.shape[2])
    _call("gather", isa, threads, shape, centers, m, index, weight, _map(out), packed)
    return out


def cluster_block(
    features: Array,
    values: Array,
    layout: Layout,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    weighted: bool = False,
    projection: Projection | None = None,
    channels_last: bool = False,
    isa: int = -1,
    threads: int = 1,
) -> tuple[Array, Array]:
    """The FEC (or weighted, Context Cluster) mixer: two maps [B,E*d,H,W] -> out, clusters int32 [B,E,H,W].

    With a projection, `out` is what that makes of it, channels last.
    """
    if features.shape != values.shape:
        raise ShapeError(f"features and values must have one shape, got {features.shape} and {values.shape}")
    shape = _map_shape(features, layout)
    packed = _projection(projection, features.shape[1])
    out = _empty(features.shape, channels_last)
    if packed:
        out = _empty((features.shape[0], packed.width, *features.shape[2:]), channels_last=True)
    clusters = np.empty((features.shape[0], layout.heads, *features.shape[2:]), np.int32)
    how = _f(alpha), _f(beta), ctypes.c_int32(weighted)
    arguments = (_map(features), _map(values), *how, _map(out), clusters, packed)
    _call("cluster_block", isa, threads, shape, *arguments)
    return out, clusters


def cluster_pool(
    features: Array,
    values: Array,
    layout: Layout,
    *,
    channels_last: bool = False,
    isa: int = -1,
    threads: int = 1,
) -> tuple[Array, Array]:
    """The FEC and CLUENet reduction: maps [B,E*D,H,W], [B,E*C,H,W] -> centres as a map, clusters int32 [B,E,H,W]."""
    if features.shape[:1] + features.shape[2:] != values.shape[:1] + values.shape[2:] or values.ndim != 4:
        raise ShapeError(f"features and values must have the same positions, got {features.shape}, {values.shape}")
    shape = _map_shape(features, layout)
    channels = _map_shape(values, layout).channels
    side = [fold * grid for fold, grid in zip(layout.fold, layout.grid, strict=True)]
    out = _empty((*values.shape[:2], *side), channels_last)
    clusters = np.empty((features.shape[0], layout.heads, *features.shape[2:]), np.int32)
    arguments = (_map(features), _map(values), ctypes.c_int64(channels), _map(out), clusters)
    _call("cluster_pool", isa, threads, shape, *arguments)
    return out, clusters


def cluster_aggregate(
    keys: Array,
    values: Array,
    layout: Layout,
    *,
    scale: float,
    gates: Gates | None = None,
    isa: int = -1,
    threads: int = 1,
) -> tuple[Array, Array]:
    """CLUENet's soft aggregation: two maps [B,E*d,H,W] -> aggregated and pooled values, both [G,d,M].

    With gates, the first is the mixture of the two, and the second is empty.
    """
    if keys.shape != values.shape:
        raise ShapeError(f"keys and values must have one shape, got {keys.shape} and {values.shape}")
    shape = _map_shape(keys, layout)
    groups = keys.shape[0] * layout.heads * layout.fold[0] * layout.fold[1]
    aggregated = np.empty((groups, shape.channels, layout.grid[0] * layout.grid[1]), np.float32)
    features = np.empty(aggregated.shape if gates is None else 0, np.float32)
    packed = None if gates is None else _gates(gates, layout.heads, shape.channels)
    own = None if gates is not None else features
    _call("aggregate", isa, threads, shape, _map(keys), _map(values), _f(scale), packed, aggregated, own)
    return aggregated, features


def norm(
    rows: Array, other: Array | None = None, *, epsilon: float, isa: int = -1, threads: int = 1
) -> tuple[Array, Array]:
    """Rows [count,channels] plus `other`, and that sum less its mean, over the root of its variance + epsilon."""
    if rows.ndim != 2 or not rows.shape[1] or (other is not None and other.shape != rows.shape):
        shapes = [list(array.shape) for array in (rows, other) if array is not None]
        raise ShapeError(f"norm: wanted rows [count, channels], alike if two are given, got {shapes}")
    rows = _float32(rows)
    other = None if other is None else _float32(other)
    added, out = rows if other is None else np.empty_like(rows), np.empty_like(rows)
    count, channels = (ctypes.c_int64(side) for side in rows.shape)
    _call("norm", isa, threads, rows, other, count, channels, _f(epsilon), None if other is None else added, out)
    return added, out


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """The library, loaded once."""
    override = os.environ.get(OVERRIDE)
    name = _NAMES.get(sys.platform, "libcluinfer_kernels.so")
    path = Path(override) if override else Path(str(resources.files("cluinfer") / "lib" / name))
    if not path.is_file():
        raise MissingPackageError(f"the native CPU kernels are not built: no {path}; install cluinfer with a compiler")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingPackageError(f"the native CPU kernels do not load: {error}") from error
    library.cluinfer_isa_name.restype = ctypes.c_char_p
    if (found := library.cluinfer_abi()) != ABI:
        raise MissingPackageError(f"the native CPU kernels have interface {found}, not {ABI}: install cluinfer again")
    return library


def _call(function: str, isa: int, threads: int, *arguments: Any) -> None:
    """Call one entry point; structures go by reference, arrays as pointers."""
    library = _library()
    run = _Run(isa, threads, None, None)
    passed = [
        argument.ctypes.data_as(ctypes.c_void_p)
        if isinstance(argument, np.ndarray)
        else ctypes.byref(argument)
        if isinstance(argument, ctypes.Structure)
        else argument
        for argument in arguments
    ]
    code = getattr(library, f"cluinfer_{function}")(ctypes.byref(run), *passed)
    if code:
        raise ShapeError(f"{function}: {_ERRORS.get(code, 'failed')} (isa {isa}, {threads} threads)")


def _columns(array: Array) -> tuple[_Shape, _Map]:
    """A [G,D,N] array as a map of one row."""
    groups, channels, points = array.shape
    shape = _Shape(groups, 1, channels, 1, points, 1, 1, 1, 1)
    return shape, _Map(array.ctypes.data, channels * points, points, points, 1)


def _map_shape(array: Array, layout: Layout) -> _Shape:
    if array.ndim != 4 or layout.heads < 1 or array.shape[1] % layout.heads:
        raise ShapeError(f"a map must be [B, {layout.heads} * d, H, W], got shape {list(array.shape)}")
    batch, channels, rows, columns = array.shape
    return _Shape(batch, layout.heads, channels // layout.heads, rows, columns, *layout.fold, *layout.grid)


def _map(array: Array) -> _Map:
    if array.dtype != np.float32 or any(stride < 0 or stride % 4 for stride in array.strides):
        raise ShapeError(f"a map must be float32 with whole, positive strides, got {array.dtype}, {array.strides}")
    return _Map(array.ctypes.data, *(stride // 4 for stride in array.strides))


def _gates(gates: Gates, heads: int, channels: int) -> _Gates:
    hidden = gates.first.shape[1] if gates.first.ndim == 3 else 0
    wanted = ((heads, hidden, 2 * channels), (heads, hidden), (heads, hidden), (heads,))
    arrays = [gates.first, gates.bias, gates.second, gates.shift]
    if [array.shape for array in arrays] != list(wanted):
        raise ShapeError(f"gates must be of shapes {list(wanted)}, got {[array.shape for array in arrays]}")
    arrays = [_float32(array) for array in arrays]
    made = _Gates(hidden, *(array.ctypes.data for array in arrays))
    made.arrays = arrays  # kept as long as the structure that points to them
    return made


def _projection(projection: Projection | None, channels: int) -> _Projection | None:
    if projection is None:
        return None
    weight, bias = projection.weight, projection.bias
    if weight.ndim != 2 or weight.shape[0] != channels or (bias is not None and bias.shape != weight.shape[1:]):
        shapes = [list(array.shape) for array in (weight, bias) if array is not None]
        raise ShapeError(
            f"a projection must have a weight [{channels}, width] and perhaps a bias [width], got {shapes}"
        )
    arrays = [_float32(array) for array in (weight, bias) if array is not None]
    made = _Projection(weight.shape[1], *(array.ctypes.data for array in arrays))
    made.arrays = arrays  # kept as long as the structure that points to them
    return made


def _empty(shape: tuple[int, ...], channels_last: bool) -> Array:
    if not channels_last:
        return np.empty(shape, np.float32)
    rows = np.empty((shape[0], *shape[2:], shape[1]), np.float32)
    out: Array = rows.transpose(0, 3, 1, 2)
    return out


def _float32(array: Array) -> Array:
    if array.dtype != np.float32:
        raise ShapeError(f"the native kernels take float32, got {array.dtype}: convert it, or use the reference")
    return np.ascontiguousarray(array)


def _int32(array: Array) -> Array:
    """Contiguous int32; what does not fit is outside every range, as -1 is."""
    if array.dtype == np.int32:
        return np.ascontiguousarray(array)
    fits = (array >= 0) & (array <= np.iinfo(np.int32).max)
    return np.where(fits, array, -1).astype(np.int32)


def _f(value: float) -> ctypes.c_float:
    return ctypes.c_float(value)
