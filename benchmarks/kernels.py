"""Times the native CPU kernels at the models' real sizes (224x224, batch 1), beside PyTorch's bmm + max.

    python -m benchmarks.kernels [--threads 2] [--isa -1] [--repeats 50] [--scaling]

Channels-last maps, outputs allocated once, warm cache, alternating with nothing: a kernel's own cost, not a network's.
`peak` is the best that PyTorch's own float32 matrix product reaches at that moment; the pool's 8-bit screen may
exceed it. On a machine that others load, only the minima say anything.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from cluinfer import native
from cluinfer.native import Layout

MIXERS = {  # (side, heads, d) of each stage at 224x224, and its blocks
    "stage 1": (56, 4, 24, 3),
    "stage 2": (28, 4, 24, 4),
    "stage 3": (14, 8, 24, 5),
    "stage 4": (7, 8, 24, 2),
}
FEC = {"stage 1": (4, 1), "stage 2": (4, 1), "stage 3": (2, 1), "stage 4": (2, 1)}  # grid, fold
COC = {"stage 1": (2, 8), "stage 2": (2, 4), "stage 3": (2, 2), "stage 4": (2, 1)}
POOLS = {  # side and channels of the similarity
    "fec_small": ((56, 64), (28, 196), (14, 320)),
    "cluenet_tiny": ((56, 32), (28, 64), (14, 196)),
}


def times(call: Callable[[], object], repeats: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds of each of `repeats` calls, after some to warm up."""
    for _ in range(5):
        call()
    taken: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    result: np.ndarray[Any, np.dtype[np.float64]] = np.array(taken, np.float64)
    return result


def peak(repeats: int) -> float:
    """FLOP/s of the largest matrix product that is still quick."""
    a = torch.rand(1536, 1536)
    return float(2 * 1536**3 / times(lambda: a @ a, min(repeats, 20)).min())


def random_map(channels: int, side: int) -> native.Array:
    rng = np.random.default_rng(0)
    rows: native.Array = rng.standard_normal((1, side, side, channels), dtype=np.float32)
    out: native.Array = rows.transpose(0, 3, 1, 2)
    return out


def direct(function: str, isa: int, threads: int, *arguments: Any) -> Callable[[], object]:
    """One entry point with its arguments made once."""
    call = getattr(native._library(), f"cluinfer_{function}")
    run = native._Run(isa, threads, None, None)
    made = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
    made = [ctypes.byref(a) if isinstance(a, ctypes.Structure) else a for a in made]
    keep = (arguments, run)

    def once() -> object:
        if code := call(ctypes.byref(keep[1]), *made):
            raise RuntimeError(f"{function} failed with {code}")
        return code

    return once


def torch_match(points: native.Array, centres: native.Array) -> Callable[[], object]:
    """The similarity and its first maximum as PyTorch would: the [G,M,N] product is stored."""
    p, c = torch.from_numpy(points.copy()), torch.from_numpy(centres.copy())
    p, c = torch.nn.functional.normalize(p, dim=1), torch.nn.functional.normalize(c, dim=1).transpose(1, 2).contiguous()
    return lambda: torch.bmm(c, p).max(dim=1)


def cases(isa: int, threads: int) -> Iterator[tuple[str, float, int, Callable[[], object], Callable[[], object]]]:
    """Name, GFLOP, times a network runs it, ours, PyTorch's matching alone."""
    rng = np.random.default_rng(1)
    for arch, pools in POOLS.items():
        for i, (side, channels) in enumerate(pools):
            x, grid = random_map(channels, side), side // 2
            layout = Layout(1, (grid, grid))
            out = native._empty((1, channels, grid, grid), True)
            m = ctypes.c_int64(channels)
            shape, view = native._map_shape(x, layout), native._map(x)
            ours = direct("cluster_pool", isa, threads, shape, view, view, m, native._map(out), None)
            centres = rng.standard_normal((1, channels, grid * grid), dtype=np.float32)
            theirs = torch_match(x.reshape(1, channels, -1), centres)
            yield f"{arch} pool {i + 1}", 2e-9 * side**2 * grid**2 * channels, 1, ours, theirs
    for arch, settings in (("fec_small", FEC), ("coc_tiny", COC), ("cluenet_tiny", None)):
        for stage, (side, heads, d, blocks) in MIXERS.items():
            both = random_map(2 * heads * d, side)
            f, v = both[:, : heads * d], both[:, heads * d :]
            grid, fold = settings[stage] if settings else (7, 1)
            layout = Layout(heads, (grid, grid), (fold, fold))
            shape = native._map_shape(f, layout)
            groups = heads * fold * fold
            centres = rng.standard_normal((groups, d, grid * grid), dtype=np.float32)
            theirs = torch_match(f.reshape(groups, d, -1), centres)
            flop = 2e-9 * side**2 * grid**2 * heads * d
            out = native._empty(f.shape, True)
            if settings:
                one, weighted = ctypes.c_float(1.0), ctypes.c_int32(arch == "coc_tiny")
                arguments = (
                    native._map(f),
                    native._map(v),
                    one,
                    ctypes.c_float(0.0),
                    weighted,
                    native._map(out),
                    None,
                    None,
                )
                ours = direct("cluster_block", isa, threads, shape, *arguments)
                yield f"{arch} mixer {stage}", flop, blocks, ours, theirs
                continue
            agg, index = np.empty_like(centres), np.empty((heads, side * side), np.int32)
            weight, m = np.empty(index.shape, np.float32), ctypes.c_int64(grid * grid)
            two = ctypes.c_float(2.0)
            ours = direct("aggregate", isa, threads, shape, native._map(f), native._map(v), two, None, agg, agg.copy())
            yield f"{arch} aggregate {stage}", 2 * flop, blocks, ours, theirs
            one, zero, yes = ctypes.c_float(1.0), ctypes.c_float(0.0), ctypes.c_int32(1)
            ours = direct("assign", isa, threads, shape, native._map(f), centres, m, one, zero, yes, index, weight)
            yield f"{arch} assign {stage}", flop, 1, ours, theirs
            ours = direct("gather", isa, threads, shape, centres, m, index, weight, native._map(out), None)
            yield f"{arch} gather {stage}", 0.0, blocks, ours, theirs


def growing(isa: int, threads: int) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """The first stage's mixers as the picture grows from 224 to 448 and 896 pixels a side, their centres as many."""
    rng = np.random.default_rng(1)
    one, zero, two = ctypes.c_float(1.0), ctypes.c_float(0.0), ctypes.c_float(2.0)
    heads, d = 4, 24
    for side in (56, 112, 224):
        both = random_map(2 * heads * d, side)
        f, v = both[:, : heads * d], both[:, heads * d :]
        out = native._empty(f.shape, True)
        maps = native._map(f), native._map(v)
        for name, grid, fold, weighted in (("FEC mixer, 16 centres", 4, 1, 0), ("CoC mixer, 64 regions of 4", 2, 8, 1)):
            shape = native._map_shape(f, Layout(heads, (grid, grid), (fold, fold)))
            how = one, zero, ctypes.c_int32(weighted), native._map(out), None, None
            yield name, side, direct("cluster_block", isa, threads, shape, *maps, *how)
        shape, m = native._map_shape(f, Layout(heads, (7, 7))), ctypes.c_int64(49)
        centres = rng.standard_normal((heads, d, 49), dtype=np.float32)
        aggregated = np.empty_like(centres), np.empty_like(centres)
        yield "CLUENet aggregation, 49", side, direct("aggregate", isa, threads, shape, *maps, two, None, *aggregated)
        index, weight = np.empty((heads, side * side), np.int32), np.empty((heads, side * side), np.float32)
        how_assigned = one, zero, ctypes.c_int32(1), index, weight
        assign = direct("assign", isa, threads, shape, maps[0], centres, m, *how_assigned)
        yield "CLUENet assignment, 49", side, assign


def show_scaling(isa: int, threads: int, repeats: int) -> None:
    """Linear in the points means four times a step, sixteen times both."""
    table: dict[str, list[float]] = {}
    for name, _, ours in growing(isa, threads):
        table.setdefault(name, []).append(float(np.median(times(ours, repeats))) * 1e3)
    print(f"{'ms at 224, 448, 896 pixels':32}{'':26}{'a step, both':>14}")
    for name, row in table.items():
        steps = "".join(f"{b / a:7.2f}" for a, b in (*pairwise(row), (row[0], row[-1])))
        print(f"{name:32}" + "".join(f"{value:8.2f}" for value in row) + f"  {steps}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the native CPU kernels at the models' real sizes.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", type=int, default=-1, help="number in the list of instruction sets, -1 the best")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--scaling", action="store_true", help="only the first stage's mixers, as the picture grows")
    arguments = parser.parse_args()
    if arguments.scaling:
        show_scaling(arguments.isa, arguments.threads, arguments.repeats)
        return
    torch.set_num_threads(arguments.threads)
    limit = peak(arguments.repeats)
    print(f"{native.isas()[arguments.isa]}, {arguments.threads} threads, peak {limit / 1e9:.0f} GFLOP/s; microseconds")
    print(f"{'kernel':32}{'min':>8}{'median':>8}{'p90':>8}{'GFLOP/s':>9}{'of peak':>9}{'torch match':>13}")
    totals: dict[str, float] = {}
    for name, gflop, count, ours, theirs in cases(arguments.isa, arguments.threads):
        taken, other = times(ours, arguments.repeats) * 1e6, times(theirs, arguments.repeats) * 1e6
        rate = gflop * 1e6 / taken.min()
        arch = name.split()[0]
        totals[arch] = totals.get(arch, 0.0) + count * float(taken.min())
        print(
            f"{name:32}{taken.min():8.0f}{np.median(taken):8.0f}{np.percentile(taken, 90):8.0f}"
            f"{rate:9.0f}{rate * 1e9 / limit:9.0%}{np.median(other):13.0f}"
        )
    for arch, total in totals.items():
        print(f"{arch}: all its cluster kernels together {total / 1e3:.2f} ms (sum of minima)")


if __name__ == "__main__":
    main()
