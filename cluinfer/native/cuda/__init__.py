"""The cluster operators in CUDA: which kernel for which shape, and its source, ready for NVRTC.

    kernel = assign(Shape(channels=32, points=3136, centers=49), half=True, alpha=1.0, beta=0.0, sigmoid=True)
    kernel.source, kernel.entry                what to compile, and the function in it
    kernel.blocks * groups, kernel.threads     the grid and the block, of one dimension each

Shapes and attributes are constants of the source; the number of groups is free. Arguments are the operator's inputs,
then its outputs, in the order of the schema, and nothing else. No kernel asks for shared memory at launch.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from cluinfer.errors import ShapeError

__all__ = ["MAX_CHANNELS", "Kernel", "Shape", "assign", "gather", "scatter"]

MAX_CHANNELS = 1024  # of ClusterAssign: a tile of a few centres must fit into shared memory
_SHARED = 12288  # floats: the 48 KiB that every GPU gives without being asked
_ASSIGN_SHARED = 8192
_IN_REGISTERS = 96  # channels of a point that fit
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Shape:
    """The sides of one group."""

    channels: int
    points: int
    centers: int

    def __post_init__(self) -> None:
        if not all(1 <= side <= _INT32 - 4096 for side in (self.channels, self.points, self.centers)):
            raise ShapeError(f"a CUDA kernel needs channels, points and centres from 1 to 2^31 - 4097, got {self}")


@dataclass(frozen=True)
class Kernel:
    """A kernel for one shape."""

    entry: str
    source: str
    blocks: int  # of one group
    threads: int


def assign(shape: Shape, half: bool, alpha: float, beta: float, sigmoid: bool) -> Kernel:
    """ClusterAssign."""
    if shape.channels > MAX_CHANNELS:
        raise ShapeError(f"ClusterAssign in CUDA takes up to {MAX_CHANNELS} channels, got {shape.channels}")
    padded = -(-shape.channels // 4) * 4
    wide = padded > _IN_REGISTERS
    threads = 64 if shape.points <= 64 else 128
    per_thread = 1 if wide or padded > 32 or shape.points <= threads else 2
    at_once = 4 if per_thread == 1 else 2
    tile = min(shape.centers, _ASSIGN_SHARED // (padded + 4))
    tile = -(-tile // at_once) * at_once
    blocks = -(-shape.points // (threads * per_thread))
    constants = {
        "THREADS": threads,
        "PER_THREAD": per_thread,
        "AT_ONCE": at_once,
        "TILE": tile,
        "BLOCKS": blocks,
        "ALPHA": _bits(alpha),
        "BETA": _bits(beta),
        "SIGMOID": bool(sigmoid),
        "CAREFUL": _careful(alpha, beta, sigmoid),
        "WIDE": wide,
    }
    return Kernel("cluster_assign", _source("assign", shape, half, constants), blocks, threads)


def scatter(shape: Shape, half: bool, weighted: bool) -> Kernel:
    """ClusterScatter, with or without weights."""
    # For the bins of each warp and the masses. Two warps at least: one alone leaves a multiprocessor idle.
    fitting = [warps for warps in (8, 4, 2) if (32 * warps + 1) * shape.centers <= _SHARED]
    copies = 32 if fitting else 1
    warps = fitting[0] if fitting else max(1, min(8, _SHARED // shape.centers - 1))
    tile = min(shape.centers, _SHARED // (warps * copies + 1))
    rows = 8
    blocks = -(-shape.channels // rows)
    constants = {"THREADS": 32 * warps, "COPIES": copies, "TILE": tile, "ROWS": rows, "BLOCKS": blocks}
    return Kernel("cluster_scatter", _source("scatter", shape, half, constants, weighted), blocks, 32 * warps)


def gather(shape: Shape, half: bool, weighted: bool) -> Kernel:
    """ClusterGather, with or without weights."""
    threads = 64 if shape.points <= 64 else 128
    rows = 16
    blocks = -(-shape.points // threads) * -(-shape.channels // rows)
    constants = {"THREADS": threads, "ROWS": rows, "BLOCKS": blocks}
    return Kernel("cluster_gather", _source("gather", shape, half, constants, weighted), blocks, threads)


def _careful(alpha: float, beta: float, sigmoid: bool) -> bool:
    """Whether the order of s may differ from that of the cosines, beyond rounding, or s may not be finite.

    At 4, neighbours of a sigmoid's float32 are 3e-6 apart in what goes in; at -80 it is about to become zero.
    """
    if not abs(alpha) + abs(beta) < 1e37:
        return True
    return sigmoid and (beta + abs(alpha) > 4 or beta - abs(alpha) < -80)


def _source(name: str, shape: Shape, half: bool, constants: dict[str, int], weighted: bool = False) -> str:
    sides = {"CHANNELS": shape.channels, "POINTS": shape.points, "CENTERS": shape.centers}
    lines = [f"#define HALF {int(half)}", f"#define WEIGHTED {int(weighted)}"]
    lines += [
        f"constexpr {'bool' if isinstance(value, bool) else 'int'} {key} = {int(value)};"
        for key, value in {**sides, **constants}.items()
    ]
    return "\n".join([*lines, _text("common"), _text(name)])


@lru_cache(maxsize=4)
def _text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.cu").read_text(encoding="utf-8")


def _bits(value: float) -> int:
    """A float32 as the int32 with the same bits: no decimal text keeps NaN and infinity."""
    try:
        packed = struct.pack("<f", value)
    except OverflowError:
        packed = struct.pack("<f", math.copysign(math.inf, value))
    bits: int = struct.unpack("<i", packed)[0]
    return bits
