"""Predictions for the report's tests: small, not square, folded, with ids beyond a byte, and made of real arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluinfer.graph import ClusterOutput, Promise
from cluinfer.prediction import Prediction, Timings, predictions

Array = NDArray[Any]
SIZE = (48, 64)
NAMES = ("disc", "<b>ring</b>", "</script><script>document.title = 'broken'</script>", "{data}", "étoile ★")
STAGE1 = ClusterOutput("network.0.1.token_mixer", "stage1", False, 1, 2, (1, 1), (2, 2), (12, 16))
POOL1 = ClusterOutput("network.1", "pool1", True, 1, 1, (2, 2), (3, 4), (12, 16))
STAGE2 = ClusterOutput("network.2.0.token_mixer", "stage2", False, 2, 3, (1, 1), (20, 20), (6, 8))
PROMISE = Promise("clue_<i>test</i>", "cluenet", SIZE, len(NAMES), NAMES, maps=(STAGE1, POOL1, STAGE2), evidence=2)
ICASC = Promise("icasc_test", "icasc", SIZE, len(NAMES), NAMES, attention=2)
BARE = replace(PROMISE, maps=(), evidence=0)
BACKBONE = replace(PROMISE, classes=None, names=(), evidence=0, features=1)


def picture(seed: int = 0) -> Image.Image:
    """Bright everywhere, so that what is dimmed can be told."""
    return Image.fromarray(np.random.default_rng(seed).integers(170, 250, (*SIZE, 3), np.uint8))


def outputs(promise: Promise, seed: int = 0) -> dict[str, Array]:
    """What an engine could give for a batch of one."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for each in promise.maps:
        regions = np.arange(each.fold[0] * each.fold[1]).reshape(each.fold) * each.grid[0] * each.grid[1]
        first = regions.repeat(each.size[0] // each.fold[0], 0).repeat(each.size[1] // each.fold[1], 1)
        ids = rng.integers(0, each.grid[0] * each.grid[1], (1, each.heads, *each.size))
        made[each.output] = (first + ids).astype(np.int32)
        if promise.similarities:
            made[each.similarity] = rng.random((1, each.heads, *each.size), np.float32)
    if promise.classes is not None:
        made["logits"] = rng.permuted(np.linspace(-2, 3, promise.classes)).astype(np.float32)[None]
    order = np.argsort(-made["logits"][0])[:2].astype(np.int32)[None] if "logits" in made else None
    if promise.evidence and order is not None:
        made |= {"evidence": rng.normal(0, 1, (1, 2, 6, 8)).astype(np.float32), "evidence_classes": order}
    if promise.attention and order is not None:
        made["attention/last"] = rng.random((1, 2, 3, 4), np.float32)
        made["attention/inner"] = rng.random((1, 2, 6, 8), np.float32)
        made["attention_classes"] = order
    made |= {f"features/{i + 1}": rng.random((1, 8, 6, 8), np.float32) for i in range(promise.features)}
    return made


def prediction(
    promise: Promise = PROMISE, seed: int = 0, changed: Mapping[str, Array] | None = None, shown: bool = True
) -> Prediction:
    """One picture's; `changed` replaces outputs."""
    made = outputs(promise, seed) | dict(changed or {})
    (one,) = predictions(made, promise, [picture(seed) if shown else None], Timings(0, 0, 0))
    return one


def requantised(seed: int = 0) -> Prediction:
    """The same with some points in other clusters and another top class, as a coarser precision might do."""
    made = outputs(PROMISE, seed)
    rng = np.random.default_rng(seed + 100)
    ids = made[STAGE1.output].copy()
    moved = rng.random(ids.shape) < 0.1
    ids[moved] = (ids[moved] + 1) % 4
    return prediction(seed=seed, changed={STAGE1.output: ids, "logits": -made["logits"]})
