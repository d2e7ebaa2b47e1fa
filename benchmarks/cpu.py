"""Latency, throughput, scaling and memory on the CPU, against the published formulation of the same weights.

Contestants run in turns, so that a busy moment of the machine hits all of them; the first run of each turn is not
counted. Ratios are of medians, and of minima where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import contestants, models
from benchmarks.contestants import Run
from cluinfer import timing
from cluinfer.cold_start import peak_mib
from cluinfer.engines import Options, get_engine
from cluinfer.timing import TURN, Plan

ARCHS = ("fec_small", "coc_tiny", "cluenet_tiny")
BASELINE = "published, OpenVINO fp32"
TARGETS = {"fec_small": 2.2, "coc_tiny": 2.5, "cluenet_tiny": 1.6}
LIMITS = {"fec_small": 1.2, "coc_tiny": 1.2, "cluenet_tiny": 1.25}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default=",".join(ARCHS), help="architectures, by comma")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="few rounds, 224 only, OpenVINO only")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")


def run(arguments: argparse.Namespace) -> None:
    record: dict[str, Any] = {"machine": machine(), "threads": arguments.threads, "archs": {}}
    print(json.dumps(record["machine"]))
    rounds = 8 if arguments.quick else arguments.rounds
    for arch in arguments.arch.split(","):
        held: dict[str, Any] = {"latency_ms": latency(arch, arguments.threads, rounds, arguments.quick)}
        if not arguments.quick:
            held["images_per_s_batch_8"] = throughput(arch, arguments.threads, rounds)
            held["scaling_ms"] = scaling(arch, arguments.threads, max(rounds // 4, 3))
            held["peak_mib"] = memory(arch, arguments.threads)
        record["archs"][arch] = held
    record["load_at_end"] = os.getloadavg()
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    packages = ("torch", "onnxruntime", "openvino", "numpy")
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def take_turns(runs: Mapping[str, Run], x: np.ndarray[Any, Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every counted run."""
    plan = Plan(warm_up=0, seconds=math.inf, runs=rounds * (TURN - 1))
    taken = timing.take_turns({name: partial(one, x) for name, one in runs.items()}, plan)
    return {name: [second * 1e3 for second in each.seconds] for name, each in taken.items()}


def image(batch: int, size: int = 224) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)


def ours(arch: str, options: Options, size: int = 224) -> Run:
    blob = get_engine("openvino").compile(models.our_onnx(arch, size).read_bytes(), options)
    return contestants.runner(contestants.session(blob, options))


def published(arch: str, options: Options, size: int = 224) -> Run:
    blob = contestants.published_blob(models.published_onnx(arch, size), options)
    return contestants.runner(contestants.load_plainly(blob, options))


def latency(arch: str, threads: int, rounds: int, quick: bool) -> dict[str, Any]:
    options = Options(threads=threads)
    path = models.published_onnx(arch)
    runs: dict[str, Run] = {BASELINE: published(arch, options), "ours fp32": ours(arch, options)}
    if can_bf16():
        runs["ours bf16"] = ours(arch, Options(precision="bf16", threads=threads))
    runs["floor fp32"] = contestants.runner(contestants.floor(models.our_onnx(arch), options))
    if not quick:
        runs["published, ONNX Runtime"] = contestants.onnx_runtime(path, threads)
        runs["published, eager"] = contestants.eager(arch, 224, threads)
        runs["published, torch.compile"] = contestants.compiled(arch, 224, threads)
    x = image(1)
    difference = float(np.abs(runs["ours fp32"](x) - runs[BASELINE](x)).max())
    taken = take_turns(runs, x, rounds)
    table = {name: summary(values) for name, values in taken.items()}
    print(
        f"\n{arch}, batch 1, 224x224, {threads} threads; logits differ by {difference:.1e}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'ms':28} {'median':>8} {'p90':>8} {'p99':>8} {'min':>8}   baseline / this (median, min)")
    base, fast = table[BASELINE], table["ours fp32"]
    for name, row in sorted(table.items(), key=lambda item: -item[1]["median"]):
        ratios = f"{base['median'] / row['median']:.2f} {base['min'] / row['min']:.2f}"
        print(f"{name:28} " + " ".join(f"{row[key]:8.2f}" for key in ("median", "p90", "p99", "min")) + f"   {ratios}")
    floor = table["floor fp32"]
    print(
        f"faster than the baseline {base['median'] / fast['median']:.2f} (wanted {TARGETS.get(arch, 1)}); of the floor "
        f"{fast['median'] / floor['median']:.2f} (wanted at most {LIMITS.get(arch, 1.25)}); by minima "
        f"{base['min'] / fast['min']:.2f} and {fast['min'] / floor['min']:.2f}",
        flush=True,
    )
    return {**table, "logits_differ": difference}


def can_bf16() -> bool:
    from cluinfer.engines import openvino

    return openvino._computes_bf16()


def summary(values: list[float]) -> dict[str, float]:
    held = timing.statistics(values)
    return {"median": held.median, "p90": held.p90, "p99": held.p99, "min": held.min}


def throughput(arch: str, threads: int, rounds: int) -> dict[str, float]:
    """Each in the better of two ways: one graph for all eight, or one image a thread."""
    whole = Options(threads=threads, batch=8)
    each = Options(hint="throughput", threads=threads, streams=threads)
    runs = {
        f"{name}, {way}": make(arch, options)
        for name, make in (("published", published), ("ours", ours))
        for way, options in (("batch 8", whole), ("batch 1 in streams", each))
    }
    taken = take_turns(runs, image(8), max(rounds // 8, 3))
    rates = {name: 8e3 / float(np.median(values)) for name, values in taken.items()}
    best = {who: max(rate for name, rate in rates.items() if name.startswith(who)) for who in ("published", "ours")}
    print(f"batch 8, images/s: {', '.join(f'{name} {rate:.1f}' for name, rate in rates.items())}")
    print(f"  best against best: {best['ours'] / best['published']:.2f}", flush=True)
    return rates


def scaling(arch: str, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Ours and its floor at growing sizes; linear in points means four times a step.

    A pool has a centre for every four points, so its cost grows with their square; `python -m benchmarks.kernels
    --scaling` shows the operators whose centres stay as many.
    """
    options = Options(threads=threads)
    table: dict[str, dict[str, float]] = {"ours": {}, "floor": {}}
    for size in (224, 448, 896):
        without = contestants.runner(contestants.floor(models.our_onnx(arch, size), options))
        taken = take_turns({"ours": ours(arch, options, size), "floor": without}, image(1, size), rounds)
        for name, values in taken.items():
            table[name][str(size)] = float(np.median(values))
    for name, row in table.items():
        growth = ", ".join(f"{b / a:.2f}" for a, b in pairwise(row.values()))
        print(
            f"scaling, {name}: {', '.join(f'{size}: {ms:.1f} ms' for size, ms in row.items())}; "
            f"a step costs {growth} times",
            flush=True,
        )
    return table


def memory(arch: str, threads: int) -> dict[str, float]:
    """Peak resident memory of a fresh process that loads a compiled graph and runs it."""
    options = Options(threads=threads)
    blobs = {
        "published": contestants.published_blob(models.published_onnx(arch), options),
        "ours": get_engine("openvino").compile(models.our_onnx(arch).read_bytes(), options),
    }
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, blob in blobs.items():
            path = Path(folder) / name
            path.write_bytes(blob)
            command = [sys.executable, "-m", "benchmarks.cpu", name, str(path), str(threads)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[name] = float(ran.stdout)
    print(f"peak memory, MiB: {', '.join(f'{name} {peak:.0f}' for name, peak in peaks.items())}", flush=True)
    return peaks


def _measure_memory(name: str, path: str, threads: str) -> None:
    options = Options(threads=int(threads))
    load = contestants.session if name == "ours" else contestants.load_plainly
    one = contestants.runner(load(Path(path).read_bytes(), options))
    for _ in range(10):
        one(image(1))
    print(peak_mib())


if __name__ == "__main__":
    _measure_memory(*sys.argv[1:])
