"""The measure that counts: how much is left of what the float32 graph sees, both graphs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cluinfer.calibration.data import Images
from cluinfer.calibration.watch import Watched
from cluinfer.fidelity import Fidelity, compare, percent
from cluinfer.graph import LOGITS

BATCH = 8

Array = NDArray[Any]


@dataclass(frozen=True)
class Kept:
    """What is left. Nobody has labels here, so the drop in top-1 is what the float32 model itself expects of it.

    That is the mean, over the images, of its probability for its own class less that for the other graph's class: a
    class that changes where two were as likely costs nothing, one that it was sure of costs a whole image.
    """

    fidelity: Fidelity
    top1_drop: float | None  # None without logits


class Measure:
    """What the float32 graph gives for some images, to hold other graphs against."""

    def __init__(self, graph: onnx.ModelProto, images: Images, most: int | None = None) -> None:
        watched = Watched(graph, margins=True)
        self._batches = [(batch, *watched.run(batch)) for batch in _batches(images, most)]

    def __call__(self, graph: onnx.ModelProto) -> Kept:
        """Each clustering is counted once, however many layers reuse it."""
        watched = Watched(graph)
        parts, drops = [], []
        for images, wanted, margins in self._batches:
            got = watched.run(images)[0]
            parts.append(compare(wanted, got, margins))
            if LOGITS in wanted:
                drops.append(_drop(wanted[LOGITS], got[LOGITS]))
        return Kept(reduce(add, parts), float(np.concatenate(drops).mean()) if drops else None)

    def images(self) -> list[Array]:
        """The images, in batches."""
        return [images for images, _, _ in self._batches]


def _drop(wanted: Array, got: Array) -> Array:
    """For each image."""
    likely = np.exp(wanted - wanted.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    rows = np.arange(len(wanted))
    drop: Array = likely.max(1) - likely[rows, got.argmax(1)]
    return drop


def _batches(images: Images, most: int | None) -> Iterator[Array]:
    remaining = islice(images, most)
    while batch := list(islice(remaining, BATCH)):
        yield np.stack(batch)


def agreement_lines(kept: Kept) -> list[str]:
    """Plain text: a line for each clustering with its worst head, then all together and the answer."""
    fidelity = kept.fidelity
    rows = [("clustering", "points", "same", "of clear ones", "near ties", "worst head")]
    for name, each in [*fidelity.maps.items(), ("all", fidelity.overall)]:
        clear = each.clear_agreement
        rows.append(
            (
                name.partition("/")[2] or name,
                str(each.points),
                percent(each.agreement),
                "" if clear is None else percent(clear),
                "" if each.near_ties is None else str(each.near_ties),
                percent(min(each.head_agreements)) if each.heads else "",
            )
        )
    lines = []
    if fidelity.maps:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  ".join(cells).rstrip())
    if fidelity.top1_same is not None:
        drop = "" if kept.top1_drop is None else f"; top-1 should drop by {100 * kept.top1_drop:.2f} %"
        lines.append(f"likeliest class: the same for {fidelity.top1_same} of {fidelity.images} images{drop}")
    for name, error in fidelity.numbers.items():
        lines.append(
            f"{name}: off by {error.mean_error:.1e} of their standard deviation, at most {error.max_error:.1e}"
        )
    return lines
