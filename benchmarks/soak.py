"""One runtime under load: the same bits from many threads as from one, and no memory that grows.

Exit code 1 if a result differed, or memory grew by more than --limit.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from cluinfer import Prediction, Runtime
from cluinfer.artifact import Built, write_artifact
from cluinfer.engines import Options, get_engine
from cluinfer.graph import KEY, Promise

Outputs = Mapping[str, np.ndarray[Any, Any]]
PICTURES = 6
WARM_UP = 0.2  # of the calls: pools of threads and memory grow to their size in these


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="an artifact; default: fec_small, built for --engine")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=16, help="threads that call at once")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=1.0, help="how much memory may grow, in per cent (1)")
    parser.add_argument("--threads", type=int, help="of the engine")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    with artifact(arguments.model, arguments.engine) as path:
        with Runtime(
            path, threads=arguments.threads
        ) as runtime:  # what an engine keeps for the whole process comes now
            ways(runtime, 0)[0]()
        before = threads()
        with Runtime(path, threads=arguments.threads) as runtime:
            found: dict[str, Any] = {"model": repr(runtime)}
            found |= hammer(runtime, arguments.callers, arguments.seconds)
            found |= repeat(runtime, arguments.calls)
        found["threads_left_by_close"] = threads() - before
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:26} {value}" for name, value in found.items()))
    if found["different"] or found["growth_percent"] > arguments.limit:
        sys.exit(1)


@contextmanager
def artifact(model: Path | None, engine: str) -> Iterator[Path]:
    if model is not None:
        yield model
        return
    import onnx

    content = models.our_onnx("fec_small").read_bytes()
    properties = onnx.load_model_from_string(content).metadata_props
    promise = Promise.from_json(next(each.value for each in properties if each.key == KEY))
    compiler, options = get_engine(engine), Options()
    built = Built(engine, "fp32", "latency", 1, compiler.versions(), compiler.machine(), time.strftime("%Y-%m-%d"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.clu"
        write_artifact(path, content, compiler.compile(content, options), promise, built)
        yield path


def ways(runtime: Runtime, seed: int) -> list[Callable[[], list[Outputs]]]:
    """Every way to call a runtime, each a function that gives the outputs of the same few pictures."""
    size = runtime.promise.size
    made = np.random.default_rng(seed)
    pictures = [made.integers(0, 256, (size[0] + 7 * i, size[1] + 3, 3), np.uint8) for i in range(3)]
    tensors = made.standard_normal((3, 3, *size), dtype=np.float32)

    def outputs(predictions: Any) -> list[Outputs]:
        each = [predictions] if isinstance(predictions, Prediction) else list(predictions)
        return [prediction._outputs for prediction in each]

    return [
        lambda: outputs(runtime(pictures[0])),
        lambda: outputs(runtime(pictures)),
        lambda: outputs(runtime(tensors)),
        lambda: [runtime.run(tensors[:1])],
        lambda: outputs(runtime.predict_async(pictures[1]).result()),
        lambda: outputs(runtime.stream(pictures, batch=2)),
    ]


def same(one: list[Outputs], other: list[Outputs]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
        for a, b in zip(one, other, strict=True)
    )


def hammer(runtime: Runtime, callers: int, seconds: float) -> dict[str, Any]:
    """Many threads at once, each result held against that of the same call made alone."""
    calls = [way for seed in range(PICTURES) for way in ways(runtime, seed)]
    alone = [call() for call in calls]
    end = time.monotonic() + seconds
    counted: list[tuple[int, int]] = []

    def work(seed: int) -> None:
        chance, done, different = random.Random(seed), 0, 0
        while time.monotonic() < end:
            which = chance.randrange(len(calls))
            different += not same(calls[which](), alone[which])
            done += 1
        counted.append((done, different))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "callers": callers,
        "callers_finished": len(counted),
        "seconds": seconds,
        "calls_at_once": sum(done for done, _ in counted),
        "different": sum(different for _, different in counted) + callers - len(counted),
    }


def repeat(runtime: Runtime, calls: int) -> dict[str, Any]:
    """Call after call, and what the process holds after the first few and after the last."""
    every = ways(runtime, 0)
    for _ in range(max(int(calls * WARM_UP), len(every))):
        random.choice(every)()
    start = resident()
    for i in range(calls):
        every[i % len(every)]()
    end = resident()
    return {
        "calls": calls,
        "rss_mib_before": round(start / 2**20, 1),
        "rss_mib_after": round(end / 2**20, 1),
        "growth_percent": round((end / start - 1) * 100, 3),
    }


def resident() -> int:
    """Bytes of memory in use, what the allocator merely keeps for later given back first."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
