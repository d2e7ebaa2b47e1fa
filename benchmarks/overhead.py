"""What the runtime costs over the bare engine call, the same tensor in.

The bare call is the engine's own API: one infer request of OpenVINO, one run of ONNX Runtime, nothing of ours around
it. All take turns, call by call, so that a busy moment of the machine hits them alike. Exit code 1 where calling the
runtime costs more than 3 % of the bare call and more than 100 microseconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak import artifact
from cluinfer import Runtime
from cluinfer.engines.openvino import OpenVINOSession
from cluinfer.graph import INPUT

SHARE, MICROSECONDS = 3.0, 100.0
WARM_UP = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="an artifact; default: fec_small, built for --engine")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--threads", type=int, help="of the engine")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    with artifact(arguments.model, arguments.engine) as path, Runtime(path, threads=arguments.threads) as runtime:
        found = measure(runtime, arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{found['model']}\n{'microseconds':24} {'median':>10} {'minimum':>10}   over the bare call")
        for name, row in found["calls"].items():
            over = f"{row['over_us']:+.0f} = {row['over_percent']:+.2f} %"
            print(f"{name:24} {row['median']:10.0f} {row['minimum']:10.0f}   {over}")
    worst = found["calls"]["runtime(tensor)"]
    if worst["over_percent"] > SHARE and worst["over_us"] > MICROSECONDS:
        sys.exit(1)


def measure(runtime: Runtime, rounds: int) -> dict[str, Any]:
    """Medians, minima, and the median of the differences to the bare call of the same round."""
    batch = runtime.manifest.built.batch
    tensor = np.random.default_rng(0).standard_normal((batch, 3, *runtime.promise.size), dtype=np.float32)
    session = runtime._opened().session
    calls: dict[str, Callable[[], Any]] = {
        "bare engine": bare(session, tensor),
        "session.run": lambda: session.run({INPUT: tensor}),
        "runtime.run": lambda: runtime.run(tensor),
        "runtime(tensor)": lambda: runtime(tensor),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + WARM_UP):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= WARM_UP:
                taken[name].append((time.perf_counter() - start) * 1e6)
    base = np.array(taken["bare engine"])
    rows: dict[str, dict[str, float]] = {}
    for name, values in taken.items():
        over = float(np.median(np.array(values) - base))
        rows[name] = {
            "median": float(np.median(values)),
            "minimum": min(values),
            "over_us": over,
            "over_percent": over / float(np.median(base)) * 100,
        }
    return {"model": repr(runtime), "rounds": rounds, "calls": rows}


def bare(session: Any, tensor: np.ndarray[Any, Any]) -> Callable[[], Any]:
    feeds = {INPUT: tensor}
    if isinstance(session, OpenVINOSession):
        request = session._compiled.create_infer_request()
        return lambda: request.infer(feeds)
    return lambda: session._session.run(None, feeds)
