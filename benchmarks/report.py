"""How long pictures of the clusters and a report take to make, of predictions with the maps that fec_small has.

No engine runs: ids are made up, those of pools close to where they are, as trained ones, those of mixers anywhere,
which compresses and draws worst. An overlay is of 1024x1024 pixels; "whole picture" is over the picture in its own
resolution instead of what the model saw enlarged. Exit code 1 where an overlay takes 30 ms or more at the median, or a
report of ten pictures 3 seconds or 3 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluinfer.graph import ClusterOutput, Promise
from cluinfer.prediction import Prediction, Timings, predictions
from cluinfer.preprocess import seen
from cluinfer.report import write_report

SIDE, PICTURES = 1024, 10
MILLISECONDS, SECONDS, BYTES = 30.0, 3.0, 3_000_000  # asked: less than these
WARM_UP = 3

_HEADS, _SIZES, _CENTERS, _BLOCKS = (4, 4, 8, 8), (56, 28, 14, 7), (4, 4, 2, 2), (3, 4, 5, 2)
Call = Callable[[], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=50, help="of overlays (50); reports are made a tenth as often")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{'milliseconds':28} {'median':>8} {'10 %':>8} {'90 %':>8}")
        for name, row in found["calls"].items():
            print(f"{name:28} {row['median']:8.1f} {row['low']:8.1f} {row['high']:8.1f}")
        print(f"{'size of the report':28} {found['bytes'] / 1e6:8.2f} MB")
    if too_much(found):
        sys.exit(1)


def too_much(found: dict[str, Any]) -> bool:
    """Whether anything is more than what was asked for."""
    limits = {name: SECONDS * 1e3 if name == "report" else MILLISECONDS for name in found["calls"]}
    return found["bytes"] >= BYTES or any(row["median"] >= limits[name] for name, row in found["calls"].items())


def measure(rounds: int) -> dict[str, Any]:
    """Median and spread of each, in milliseconds; overlays take turns."""
    named = [(f"{i}.jpg", each) for i, each in enumerate(made())]
    promise = fec_small()
    one, whole = named[0][1], picture(0)
    size: dict[str, Any] = {"size": (SIDE, SIDE)}
    overlays: dict[str, Call] = {
        "stage1, a head": lambda: one.overlay("stage1", head=0, **size),
        "stage4, a head": lambda: one.overlay("stage4", head=0, **size),
        "pool1": lambda: one.overlay("pool1", **size),
        "segments": lambda: one.overlay("segments", **size),
        "segments, labels": lambda: one.overlay("segments", labels=True, **size),
        "segments, whole picture": lambda: one.overlay("segments", picture=whole, **size),
        "evidence": lambda: one.overlay("evidence", **size),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        calls = timed(overlays, rounds) | timed(
            {"report": lambda: write_report(path, named, promise)}, max(1, rounds // 10)
        )
        return {"rounds": rounds, "pictures": PICTURES, "calls": calls, "bytes": path.stat().st_size}


def timed(calls: dict[str, Call], rounds: int) -> dict[str, dict[str, float]]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(min(WARM_UP, rounds) + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= min(WARM_UP, rounds):
                taken[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: dict(zip(("low", "median", "high"), map(float, np.percentile(each, (10, 50, 90))), strict=True))
        for name, each in taken.items()
    }


def fec_small(size: int = 224) -> Promise:
    """What an export with --maps stages --evidence 1 promises."""
    maps = []
    for stage, (heads, side, centers, blocks) in enumerate(zip(_HEADS, _SIZES, _CENTERS, _BLOCKS, strict=True)):
        mixer, grid = f"network.{2 * stage}.{blocks - 1}.token_mixer", (centers, centers)
        maps.append(ClusterOutput(mixer, f"stage{stage + 1}", False, stage + 1, heads, (1, 1), grid, (side, side)))
        if stage < len(_SIZES) - 1:
            pool, grid = f"network.{2 * stage + 1}", (side // 2, side // 2)
            maps.append(ClusterOutput(pool, f"pool{stage + 1}", True, stage + 1, 1, (1, 1), grid, (side, side)))
    return Promise("fec_small", "fec", (size, size), 1000, maps=tuple(maps), evidence=1)


def made() -> list[Prediction]:
    """A batch of predictions, with the pictures that they are of."""
    promise, rng = fec_small(), np.random.default_rng(0)
    outputs: dict[str, np.ndarray[Any, Any]] = {
        each.output: _near(each, rng)
        if each.pool
        else rng.integers(0, each.grid[0] * each.grid[1], (PICTURES, each.heads, *each.size), np.int32)
        for each in promise.maps
    }
    outputs["logits"] = rng.normal(0, 1, (PICTURES, 1000)).astype(np.float32)
    outputs["evidence"] = rng.normal(0, 1, (PICTURES, 1, 7, 7)).astype(np.float32)
    outputs["evidence_classes"] = outputs["logits"].argmax(1)[:, None].astype(np.int32)
    crops = [seen(picture(i), promise.size, promise.preprocess).resize(promise.size) for i in range(PICTURES)]
    return predictions(outputs, promise, crops, Timings(0, 0, 0))


def _near(pool: ClusterOutput, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Ids of the centre over each point, or one beside it."""
    places = np.indices(pool.size)[:, None] // 2 + rng.integers(-1, 2, (2, PICTURES, *pool.size))
    row, column = places.clip(0, pool.grid[0] - 1)
    ids: np.ndarray[Any, Any] = (row * pool.grid[1] + column).astype(np.int32)[:, None]
    return ids


def picture(seed: int) -> Image.Image:
    """Blots with some noise on them, about as hard to compress as a photograph."""
    rng = np.random.default_rng(seed)
    blots = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noisy = np.asarray(blots).astype(np.int16) + rng.normal(0, 8, (SIDE, SIDE, 3)).astype(np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
