"""What the layers of a graph read while it sees images: the range of each channel, and some points.

Rules:
- Nothing is held but, for each value, the least and greatest number of each channel over all images, and POINTS points
  (all channels at one place), chosen at random by the seed, the same number from each image.
- It can be resumed: every SAVE_SECONDS, when it is interrupted, and at its end if it took that long (a search follows,
  which may be interrupted, too), what has been seen goes to the state file, whole or not at all. A state is taken up
  only by the same graph, images, seed and values; any other, or a damaged one, is passed over. It is removed by whoever
  has finished with it.
- A NaN or an infinity that the model makes of a good image is an error, which names the value.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cluinfer.calibration import state
from cluinfer.calibration.data import Images
from cluinfer.calibration.watch import run_with
from cluinfer.errors import CalibrationError
from cluinfer.graph import INPUT

POINTS = 2048
SAVE_SECONDS = 20.0
STEP = 25  # images between lines of progress

Array = NDArray[Any]
Progress = Callable[[str], None]


@dataclass
class Observation:
    """What is known of one value."""

    low: Array  # [channels]
    high: Array
    points: Array  # [points, channels]


def observe(
    graph: onnx.ModelProto,
    axes: Mapping[str, int],
    images: Images,
    seed: int = 0,
    saved: Path | None = None,
    progress: Progress = lambda step: None,
) -> dict[str, Observation]:
    """Of each value named in `axes`, whose channels are on that axis."""
    identity = _identity(graph, axes, images, seed)
    each = -(-POINTS // len(images)) if len(images) else 0
    seen, done, skipped = _resume(saved, identity, axes)
    images.skipped.update(skipped)
    if done:
        progress(f"calibration goes on from image {done} of {len(images)}")
    run = run_with(graph, list(axes))
    start = last = time.monotonic()
    try:
        while done < len(images):
            if done % STEP == 0:
                progress(f"calibrating, image {done + 1} of {len(images)}")
            image = images.read(done)
            after = seen
            if image is not None:
                after = _with(seen, axes, {INPUT: image[None], **run(image)}, np.random.default_rng((seed, done)), each)
            seen, done = after, done + 1  # at once: an interruption finds an image seen or not, never half of it
            if saved is not None and time.monotonic() - last > SAVE_SECONDS:
                _save(saved, identity, seen, done, images)
                last = time.monotonic()
    except BaseException:  # Ctrl-C and SIGTERM too: what has been seen is not lost
        if saved is not None and done:
            _save(saved, identity, seen, done, images)
        raise
    if not seen and axes:
        images.refuse()
    if saved is not None and last > start:
        _save(saved, identity, seen, done, images)
    return {name: Observation(held[0], held[1], np.concatenate(held[2])) for name, held in seen.items()}


_Seen = dict[str, tuple[Array, Array, tuple[Array, ...]]]


def _with(
    seen: _Seen,
    axes: Mapping[str, int],
    values: Mapping[str, Array],
    random: np.random.Generator,
    each: int,
) -> _Seen:
    """What has been seen, and one image more."""
    after: _Seen = {}
    for name, axis in axes.items():
        value = values[name]
        rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
        low, high = rows.min(0), rows.max(0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise CalibrationError(f"{name}: the model makes NaN or infinity of an image; wanted finite numbers")
        points = rows[random.choice(len(rows), min(each, len(rows)), replace=False)]
        if name in seen:
            before = seen[name]
            after[name] = np.minimum(before[0], low), np.maximum(before[1], high), (*before[2], points)
        else:
            after[name] = low, high, (points,)
    return after


def _identity(graph: onnx.ModelProto, axes: Mapping[str, int], images: Images, seed: int) -> str:
    parts = (graph.SerializeToString(deterministic=True), repr((dict(axes), images.identity, seed, POINTS)).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _save(path: Path, identity: str, seen: _Seen, done: int, images: Images) -> None:
    arrays: dict[str, Array] = {}
    for i, held in enumerate(seen.values()):
        arrays |= {f"low{i}": held[0], f"high{i}": held[1], f"points{i}": np.concatenate(held[2])}
    skipped = {str(index): reason for index, reason in images.skipped.items()}
    state.save(path, {"identity": identity, "done": done, "skipped": skipped, "values": list(seen)}, arrays)


def _resume(path: Path | None, identity: str, axes: Mapping[str, int]) -> tuple[_Seen, int, dict[int, str]]:
    head, arrays = state.load(path) if path is not None else ({}, {})
    if head.get("identity") != identity:
        return {}, 0, {}
    try:
        names = head["values"]
        seen: _Seen = {
            name: (arrays[f"low{i}"], arrays[f"high{i}"], (arrays[f"points{i}"],)) for i, name in enumerate(names)
        }
        return seen, int(head["done"]), {int(index): str(reason) for index, reason in head["skipped"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, 0, {}
