"""Whole networks in PyTorch, eager and by torch.compile, timed and compared as benchmarks.tensorrt86's run.sh does.

    python -m benchmarks.gpu --networks examples/shapes/checkpoints/{fec,cluenet,icasc}.pt --json torch.json
    python -m benchmarks.gpu --beside torch.json tensorrt86.json

A network that clusters is the published formulation with the checkpoint's weights, since torch.compile cannot look into
our operators. Inputs are the same scenes, already there; float16 is `.half()`, similarities included. `equal` is the
share of points in the cluster that float32 puts them in, of eager PyTorch in the same precision.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scenes

BATCHES = (1, 8, 64)
SECONDS, WARM, LEAST = 3.0, 0.2, 10  # as in run_onnx.py
PRECISIONS = ("fp32", "fp16")


def measure(paths: Sequence[Path], batches: Sequence[int], device: str, seconds: float = SECONDS) -> dict[str, Any]:
    """For each network, batch and precision, what eager and compiled PyTorch take; JSON can hold it."""
    import torch

    rows = [row for path in paths for row in _rows(torch, path, batches, device, seconds)]
    machine = torch.cuda.get_device_name() if device == "cuda" else device
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"machine": machine, "date": now, "version": f"PyTorch {torch.__version__}", "networks": rows}


def _rows(torch: Any, path: Path, batches: Sequence[int], device: str, seconds: float) -> Iterator[dict[str, Any]]:
    network, side = load(path)
    models = {"fp32": network.to(device), "fp16": copy.deepcopy(network).half().to(device)}
    for batch in batches:
        pictures = torch.from_numpy(scenes.images(batch, side, scenes.HELD_BACK)[0]).to(device)
        given = {"fp32": pictures, "fp16": pictures.half()}
        wanted = clusters(torch, models["fp32"], pictures)
        for precision, model in models.items():
            found = clusters(torch, model, given[precision])
            equal = {name: float((found[name] == index).float().mean()) for name, index in wanted.items()}
            torch._dynamo.reset()  # else a new batch is compiled with a free one
            for engine, call in (("eager", model), ("torch.compile", torch.compile(model, dynamic=False))):
                with torch.inference_mode():
                    times = timed(torch, partial(call, given[precision]), device, seconds)
                row = {"network": path.stem, "batch": batch, "engine": engine, "precision": precision}
                yield {**row, **summary(times), "equal": equal}


def load(path: Path) -> tuple[Any, int]:
    """The published formulation with a checkpoint's weights, ICASC as it is; and the side of its images."""
    from benchmarks import published
    from cluinfer.export.models.config import ClusterConfig
    from cluinfer.export.source import read_model

    model: Any = read_model(path)
    config = model.config
    side = int(config.size[0])
    if not isinstance(config, ClusterConfig):
        return model.eval(), side
    made = published.of_config(config)
    made.load_state_dict(model.state_dict())
    return made.eval(), side


def clusters(torch: Any, model: Any, images: Any) -> dict[str, Any]:
    """The index of each clustering layer, by the name of the graph's output."""
    from benchmarks.published import cluster_layers

    layers = cluster_layers(model)
    for layer in layers.values():
        layer.keep_index = True
    with torch.inference_mode():
        model(images)
    found = {}
    for name, layer in layers.items():
        if layer.last_index is not None:
            found[f"clusters/{name}"] = layer.last_index
        layer.keep_index, layer.last_index, layer.last_weight = False, None, None
    return found


def timed(torch: Any, call: Callable[[], Any], device: str, seconds: float) -> list[float]:
    """Milliseconds of single calls, by CUDA events on a GPU."""
    call()  # compiles
    begun = time.perf_counter()
    while time.perf_counter() - begun < min(WARM, seconds):
        call()
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < LEAST:
        if device != "cuda":
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        times.append(float(first.elapsed_time(last)))
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    median, p90, p99 = (float(each) for each in np.percentile(times, (50, 90, 99)))
    return {"median_ms": median, "p90_ms": p90, "p99_ms": p99, "runs": len(times)}


def beside(results: Sequence[Path]) -> str:
    """Files of results as one table."""
    return table([json.loads(path.read_text()) for path in results])


def table(read: Sequence[dict[str, Any]]) -> str:
    """By network and batch; ratios are to torch.compile in fp16, `equal` is the worst map's."""
    rows = [row for each in read for row in each["networks"]]
    lines = [f"{each['version']}: {each['machine']}, {each['date']}" for each in read]
    lines.append(
        f"{'network':<14} {'batch':>5} {'engine':<14} {'type':<5} {'ms':>9} {'p99':>9} {'ratio':>6} {'equal':>8}"
    )
    base = {
        (row["network"], row["batch"]): row["median_ms"]
        for row in rows
        if (row["engine"], row["precision"]) == ("torch.compile", "fp16")
    }
    for row in sorted(rows, key=lambda row: (row["network"], row["batch"])):
        of = base.get((row["network"], row["batch"]))
        ratio = f"{row['median_ms'] / of:.2f}x" if of else "-"
        least = f"{min(row['equal'].values()):.2%}" if row["equal"] else "-"
        head = f"{row['network']:<14} {row['batch']:>5} {row['engine']:<14} {row['precision']:<5}"
        lines.append(f"{head} {row['median_ms']:>9.3f} {row['p99_ms']:>9.3f} {ratio:>6} {least:>8}")
    return "\n".join(lines)
