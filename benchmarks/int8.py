"""int8 against float32 and the published formulation: speed, and how many points keep their cluster.

Random weights are measured for speed, and for agreement, too; the trained models of examples/shapes for agreement and
accuracy on scenes that neither training nor calibration has seen. All graphs are calibrated on scenes here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from benchmarks import contestants, models, scenes
from benchmarks.contestants import Run
from benchmarks.cpu import BASELINE, can_bf16, image, machine, ours, published, summary, take_turns
from cluinfer.engines import Options, get_engine

ARCHS = ("fec_small", "cluenet_tiny")
TARGETS = {"fec_small": (3.0, 1.3), "cluenet_tiny": (2.0, 1.2)}  # over the published formulation, over our own fp32
SEARCHED, SEARCHED_SPEED = 0.98, 1.1
TRAINED = ("fec", "cluenet")
CALIBRATING = 300
_REPORT = "benchmark"  # metadata of the int8 graphs that are kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default=",".join(ARCHS), help="architectures, by comma; empty for none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--no-search", action="store_true", help="leave out the search, which takes minutes a model")
    parser.add_argument("--scenes", type=int, default=2000, help="to measure the trained models' accuracy on (2000)")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")


def run(arguments: argparse.Namespace) -> None:
    record: dict[str, Any] = {"machine": machine(), "threads": arguments.threads, "speed": {}, "trained": {}}
    print(json.dumps(record["machine"]))
    for name in TRAINED:
        record["trained"][name] = trained(name, arguments.scenes)
    for arch in filter(None, arguments.arch.split(",")):
        record["speed"][arch] = speed(arch, arguments.threads, arguments.rounds, not arguments.no_search)
    record["load_at_end"] = os.getloadavg()
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def speed(arch: str, threads: int, rounds: int, searched: bool) -> dict[str, Any]:
    options, in_int8 = Options(threads=threads), Options(precision="int8", threads=threads)
    runs: dict[str, Run] = {BASELINE: published(arch, options), "ours fp32": ours(arch, options)}
    if can_bf16():
        runs["ours bf16"] = ours(arch, Options(precision="bf16", threads=threads))
    graphs = {"ours int8": quantized(arch, None)}
    if searched:
        graphs[f"ours int8, searched for {SEARCHED:.0%}"] = quantized(arch, SEARCHED)
    engine = get_engine("openvino")
    for name, path in graphs.items():
        runs[name] = contestants.runner(engine.load(engine.compile(path.read_bytes(), in_int8), in_int8))
    table = {name: summary(values) for name, values in take_turns(runs, image(1), rounds).items()}
    print(f"\n{arch}, random weights, batch 1, 224x224, {threads} threads; load {os.getloadavg()[0]:.1f}")
    print(f"{'ms':32} {'median':>8} {'p90':>8} {'min':>8}   published / this   ours fp32 / this (median, min)")
    base, plain = table[BASELINE], table["ours fp32"]
    for name, row in sorted(table.items(), key=lambda item: -item[1]["median"]):
        times = " ".join(f"{row[key]:8.2f}" for key in ("median", "p90", "min"))
        print(f"{name:32} {times}   {_ratio(base, row):>16}   {_ratio(plain, row)}")
    wanted = TARGETS.get(arch, (1.0, 1.0))
    print(f"wanted: int8 {wanted[0]} and {wanted[1]} times as fast, searched for {SEARCHED:.0%} {SEARCHED_SPEED} times")
    reports = {name: _report(path) for name, path in graphs.items()}
    for name, report in reports.items():
        print(f"{name}: {_agreement(report)}; made in {report['seconds']:.0f} s", flush=True)
    return {"latency_ms": table, "agreement": reports}


def quantized(arch: str, min_agreement: float | None) -> Path:
    """Our export of the benchmarks' random weights in int8, calibrated on scenes, with what was found."""

    def export(path: Path) -> None:
        from cluinfer.calibration import Bounds, Settings, calibrate

        graph = onnx.load(models.our_onnx(arch))
        given, _ = _calibrating(224)
        start = time.perf_counter()
        bounds = Bounds(min_agreement, max_top1_drop=1.0) if min_agreement else None
        made = calibrate(graph, [given], Settings(count=CALIBRATING), bounds=bounds)
        report = {**made.to_dict(), "seconds": time.perf_counter() - start}
        props = {each.key: each.value for each in made.graph.metadata_props}
        helper.set_model_props(made.graph, {**props, _REPORT: json.dumps(report)})
        path.write_bytes(made.graph.SerializeToString())

    name = f"int8-{arch}" + (f"-{min_agreement}" if min_agreement else "")
    return models._kept(name, ("export", "calibration", "cluinfer/ops", "examples/shapes"), export)


def trained(name: str, count: int) -> dict[str, Any]:
    """A trained model in int8, in fp16 and, searched for, in as much int8 as keeps the bounds."""
    from cluinfer.calibration import Bounds, Settings, calibrate, to_half
    from cluinfer.calibration.agreement import Measure
    from cluinfer.calibration.data import split
    from cluinfer.export import load_model, to_onnx
    from cluinfer.export.load import AssumptionWarning
    from cluinfer.export.onnx_file import read_promise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # what it assumes is what train.py builds
        model = load_model(scenes.EXAMPLES / "checkpoints" / f"{name}.pt")
    graph = to_onnx(model, 64, maps="none")
    given, _ = _calibrating(64)
    promise = read_promise(graph)
    assert promise is not None
    measure = Measure(graph, split([scenes.images(250, 64, scenes.HELD_BACK)[0]], promise).calibrating)
    plain = calibrate(graph, [given], Settings(count=CALIBRATING))
    graphs = {
        "fp32": graph,
        "int8": plain.graph,
        f"int8, searched for {SEARCHED:.0%}": calibrate(graph, [given], bounds=Bounds(SEARCHED)).graph,
        "fp16": to_half(graph),
    }
    found: dict[str, Any] = {}
    held, labels = scenes.images(count, 64, scenes.HELD_BACK, 250)
    print(f"\n{name}, trained: accuracy on {count} scenes, clusters on 200 others, held back")
    for kind, made in graphs.items():
        kept = measure(made)
        logits = _logits(made, held)
        report = {**kept.fidelity.to_dict(), "accuracy": float((logits.argmax(1) == labels).mean())}
        found[kind] = report
        print(f"{kind:26} accuracy {report['accuracy']:.2%}; {_agreement(report)}", flush=True)
    found["engines"] = _same_logits(plain.graph, held[:16])
    return found


def _same_logits(graph: onnx.ModelProto, held: np.ndarray[Any, Any]) -> float:
    """How far OpenVINO's int8 logits are from ONNX Runtime's, in deviations."""
    options, engine = Options(precision="int8"), get_engine("openvino")
    with engine.load(engine.compile(graph.SerializeToString(), options), options) as session:
        there = session.run({"image": held})["logits"]
    here = _logits(graph, held)
    apart = float(np.abs(there - here).mean() / here.std())
    print(f"int8 logits in OpenVINO and ONNX Runtime: {apart:.1e} of their deviation apart, on the mean", flush=True)
    return apart


def _logits(graph: onnx.ModelProto, held: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    batches = [held[start : start + 50] for start in range(0, len(held), 50)]
    return np.concatenate([session.run(["logits"], {"image": batch})[0] for batch in batches])


@cache
def _calibrating(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Enough that a fifth can be held back."""
    return scenes.images(math.ceil(CALIBRATING * 1.25), size, scenes.TRAINING)


def _report(path: Path) -> dict[str, Any]:
    props = {each.key: each.value for each in onnx.load(path).metadata_props}
    held: dict[str, Any] = json.loads(props[_REPORT])
    return held


def _agreement(report: dict[str, Any]) -> str:
    overall = report["overall"]
    return (
        f"{overall['agreement']:.2%} of the points in the same cluster, {overall['clear_agreement']:.2%} of clear ones "
        f"({overall['clear'] / max(overall['points'], 1):.0%}); top-1 the same for {report['top1_same']} of "
        f"{report['images']}"
    )


def _ratio(base: dict[str, float], row: dict[str, float]) -> str:
    return f"{base['median'] / row['median']:.2f} {base['min'] / row['min']:.2f}"
