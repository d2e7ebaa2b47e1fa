"""An emitted folder becomes an artifact, on the machine with the GPU: without PyTorch, and without NVRTC.

Nothing there can say how faithful the engine is, so the artifact does not: `cluinfer verify` says it where the
checkpoint is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cluinfer.artifact import Built, write_artifact
from cluinfer.emit import PORTABLE, read_emitted
from cluinfer.engines import Options, get_engine
from cluinfer.engines.trt.graph import read_promise
from cluinfer.engines.trt.settings import Settings
from cluinfer.errors import ArtifactError, EngineError
from cluinfer.graph import INPUT
from cluinfer.timing import Plan, statistics, take_turns

LATENCY = Plan(warm_up=0.5, seconds=5, runs=60)


def build_emitted(
    folder: str | Path,
    output: str | Path | None,
    *,
    workspace: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    hint: str = "latency",
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Build the artifact, and say what it is, for JSON."""
    emitted = read_emitted(folder)
    target = Path(output) if output else Path(folder).with_suffix(".clu")
    if target.suffix != ".clu":
        raise ArtifactError(f"-o {target}: wanted a name ending in .clu")
    engine = get_engine("trt")
    engine.check()
    machine = engine.machine()
    if emitted.plugins and _number(machine["capability"].replace(".", "")) < _number(emitted.target[3:]):
        raise EngineError(
            f"{folder}: prepared for {emitted.target} and later, this is {machine['gpu']} ({machine['capability']}): "
            "emit it again for this GPU"
        )
    settings = Settings(
        *(emitted.profile, emitted.plugins, workspace, version_compatible, hardware_compatible),
        emitted.ptx(),
        progress,
    )
    options = Options(emitted.precision, hint, batch=emitted.profile[1], own=settings)
    graph = emitted.read(PORTABLE)
    promise = read_promise(graph)
    progress(f"compiling for trt in {emitted.precision}")
    blob = engine.compile(graph, options)
    progress("measuring the latency")
    with engine.load(blob, options) as session:
        feeds = {INPUT: np.zeros((options.batch, 3, *promise.size), np.float32)}
        latency = statistics(take_turns({"trt": partial(session.run, feeds)}, LATENCY)["trt"].seconds)
    progress(f"writing {target}")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    built = Built("trt", emitted.precision, hint, options.batch, engine.versions(), machine, now)
    write_artifact(target, graph, blob, promise, built)
    return {
        "path": str(target),
        "bytes": target.stat().st_size,
        "arch": promise.arch,
        "engine": "trt",
        "precision": emitted.precision,
        "batch": options.batch,
        "profile": list(emitted.profile),
        "plugins": emitted.plugins,
        "latency_ms": latency.to_dict(),
    }


def _number(text: str) -> int:
    if not text.isdecimal():
        raise EngineError(f"a target is a GPU such as sm_90, got {text!r:.60}")
    return int(text)
