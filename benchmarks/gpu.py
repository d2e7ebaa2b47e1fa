"""The CUDA kernels on the GPU here, against PyTorch's eager and compiled operators and the floor that memory sets.

    python -m benchmarks.gpu [--json results.json]
    python -m benchmarks.gpu --networks CHECKPOINT ... [--json torch.json]      whole networks in PyTorch: networks.py
    python -m benchmarks.gpu --beside torch.json tensorrt86.json                those results in one table

Needs cluinfer[trt] without TensorRT itself, and a PyTorch with CUDA. The floor: every input read once and every output
written once, at the bandwidth that a copy of 1 GiB reaches here. Times are medians of CUDA events, each over as many
launches as take 20 ms, in turns; inputs lie in memory and exceed the cache where they are large.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import networks
from cluinfer.engines.trt.gpu import gpu
from cluinfer.engines.trt.launch import Loaded
from cluinfer.native.cuda import Kernel, Shape, assign, gather, scatter

# groups, channels, points, centres: the first is the one that the goals are about
CASES = [(512, 32, 3136, 49), (512, 24, 784, 4), (64, 32, 12544, 49), (4096, 16, 49, 4), (8, 24, 12544, 3136)]
ROUNDS, WINDOW = 15, 0.020


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--networks", type=Path, nargs="+", help="checkpoints to time whole in PyTorch")
    parser.add_argument("--beside", type=Path, nargs="+", help="results of whole networks to put in one table")
    parser.add_argument("--batches", type=int, nargs="+", default=networks.BATCHES, help="of --networks (1 8 64)")
    parser.add_argument("--seconds", type=float, default=networks.SECONDS, help="each of --networks is timed (3)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of --networks (cuda)")
    arguments = parser.parse_args()
    if arguments.beside:
        print(networks.beside(arguments.beside))
        return
    if arguments.networks:
        found = networks.measure(arguments.networks, arguments.batches, arguments.device, arguments.seconds)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1))
        print(networks.table([found]))
        return
    import torch

    gpu().activate()
    bandwidth = copy_bandwidth(torch)
    print(f"{gpu().name}, copy {bandwidth / 1e9:.0f} GB/s, PyTorch {torch.__version__}")
    print(f"{'operator':<16} {'G, D, N, M':<22} {'type':<8} {'us':>9} {'floor':>7} {'eager':>7} {'compiled':>9}")
    rows = []
    for case in CASES:
        for kind in (torch.float16, torch.float32):
            for row in measure(torch, case, kind, bandwidth):
                rows.append(row)
                numbers = (f"{row[name]:.2f}x" for name in ("of_floor", "eager", "compiled"))
                floor, eager, compiled = numbers
                line = f"{row['operator']:<16} {case!s:<22} {row['type']:<8} {row['microseconds']:>9.1f}"
                print(f"{line} {floor:>7} {eager:>7} {compiled:>9}")
    if arguments.json:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        held = {"gpu": gpu().name, "date": now, "copy_bytes_per_second": bandwidth, "rows": rows}
        arguments.json.write_text(json.dumps(held, indent=1))


def copy_bandwidth(torch: Any) -> float:
    """Bytes a second, read and written, of a copy within the GPU."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    (seconds,) = in_turns(torch, [lambda: target.copy_(source)])
    return float(2 * (1 << 30) / seconds)


def measure(torch: Any, case: tuple[int, int, int, int], kind: Any, bandwidth: float) -> list[dict[str, Any]]:
    groups, channels, count, centres = case
    half, shape = kind == torch.float16, Shape(channels, count, centres)
    torch.manual_seed(0)
    points = torch.randn(groups, channels, count, device="cuda", dtype=kind)
    centers = torch.randn(groups, channels, centres, device="cuda", dtype=kind)
    index = torch.randint(0, centres, (groups, count), device="cuda", dtype=torch.int32)
    weight = torch.rand(groups, count, device="cuda", dtype=kind)
    made_index, made_weight = torch.empty_like(index), torch.empty_like(weight)
    made_centers, made_points = torch.empty_like(centers), torch.empty_like(points)

    def eager_assign() -> Any:
        units = [torch.nn.functional.normalize(x.float(), dim=1, eps=1e-12) for x in (centers, points)]
        best, chosen = torch.sigmoid(units[0].transpose(1, 2) @ units[1]).max(dim=1)
        return chosen.int(), best.to(kind)

    def eager_scatter() -> Any:
        slot = index.long()[:, None].expand_as(points)
        total = centers.float().scatter_add(2, slot, points.float() * weight.float()[:, None])
        mass = torch.ones(groups, 1, centres, device="cuda").scatter_add(2, slot[:, :1], weight.float()[:, None])
        return (total / mass).to(kind)

    def eager_gather() -> Any:
        return centers.gather(2, index.long()[:, None].expand_as(points)) * weight[:, None]

    work: list[tuple[str, Kernel, list[Any], Callable[[], Any]]] = [
        (
            *("ClusterAssign", assign(shape, half, 1.0, 0.0, True)),
            *([points, centers, made_index, made_weight], eager_assign),
        ),
        (
            *("ClusterScatter", scatter(shape, half, True)),
            *([points, index, centers, weight, made_centers], eager_scatter),
        ),
        ("ClusterGather", gather(shape, half, True), [centers, index, weight, made_points], eager_gather),
    ]
    rows = []
    for operator, kernel, tensors, eager in work:
        loaded = Loaded(kernel)
        pointers = [tensor.data_ptr() for tensor in tensors]
        stream = torch.cuda.current_stream().cuda_stream

        def ours(loaded: Loaded = loaded, pointers: list[int] = pointers, stream: int = stream) -> None:
            loaded.launch(groups, pointers, stream)

        torch._dynamo.reset()
        ours_seconds, eager_seconds, compiled_seconds = in_turns(torch, [ours, eager, torch.compile(eager)])
        floor = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / bandwidth
        rows.append(
            {
                "operator": operator,
                "case": case,
                "type": str(kind).removeprefix("torch."),
                "microseconds": ours_seconds * 1e6,
                "of_floor": ours_seconds / floor,
                "eager": eager_seconds / ours_seconds,
                "compiled": compiled_seconds / ours_seconds,
            }
        )
        loaded.free()
    return rows


def in_turns(torch: Any, candidates: list[Callable[[], Any]]) -> list[float]:
    """Median seconds of one call of each."""
    counts = []
    for call in candidates:
        for _ in range(3):
            call()
        counts.append(max(1, int(WINDOW / max(timed(torch, call, 3), 1e-7))))
    taken: list[list[float]] = [[] for _ in candidates]
    for _ in range(ROUNDS):
        for call, count, times in zip(candidates, counts, taken, strict=True):
            times.append(timed(torch, call, count))
    return [statistics.median(times) for times in taken]


def timed(torch: Any, call: Callable[[], Any], count: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


if __name__ == "__main__":
    main()
