"""Two runs of one model compared: how far its numbers are off, and how many points changed their cluster.

Rules:
- A run is a mapping from output names to arrays, as graphs name them: `logits`, `clusters/<layer>`, `evidence`, ...
  Everything that the reference gives is compared; what only the candidate gives is not looked at.
- A point of a cluster map agrees if both runs put it in the same cluster. One that does not is a near tie if the
  reference's margin there, the difference of its two best similarities, is below `near`; else it is a real flip.
  Without margins nobody can tell: every such point counts as a flip, and the report says that ties are not known.
- A point is clear if its margin is above CLEAR: what becomes of those tells a coarse precision from a wrong one.
- An error is in units of the standard deviation of the reference's values, over everything compared.
- One point that changes its cluster moves every number after it (by about a percent, in a network with random weights).
  So numbers are judged on the images whose maps are all the same, as long as there are any.
- Evidence and attention are of certain classes; where the runs show different classes they are not compared.
- Comparisons add up: compare(a, b) + compare(c, d) says of both batches what one comparison would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluinfer.errors import ShapeError
from cluinfer.graph import ATTENTION, ATTENTION_CLASSES, EVIDENCE, EVIDENCE_CLASSES, LOGITS, ClusterOutput

NEAR = 1e-5  # float32 engines differ by about a tenth of this in a similarity
CLEAR = 0.01  # int8 moves a similarity by about a tenth of this
MIN_AGREEMENT = 0.998
MAX_ERROR = 2e-3
MAPS = "clusters/"

Array = NDArray[Any]
_CLASSES_OF = {EVIDENCE: EVIDENCE_CLASSES, **dict.fromkeys(ATTENTION, ATTENTION_CLASSES)}


@dataclass(frozen=True)
class MapAgreement:
    """How many points of a layer's maps are in the same cluster, and how many of the others were near ties."""

    points: int
    same: int
    near_ties: int | None  # of those that are not the same; None where the reference's margins are not known
    clear: int | None = None  # points whose margin is above CLEAR; None where margins are not known
    clear_same: int | None = None
    heads: tuple[int, ...] = ()  # of `same`, by head; each has an equal part of the points

    @property
    def flips(self) -> int:
        """Points that changed their cluster and were no near tie, as far as that is known."""
        return self.points - self.same - (self.near_ties or 0)

    @property
    def agreement(self) -> float:
        """Share of the points in the same cluster."""
        return self.same / self.points if self.points else 1.0

    @property
    def fair_agreement(self) -> float:
        """Share of the points that did not flip: a near tie may fall either way."""
        return 1 - self.flips / self.points if self.points else 1.0

    @property
    def clear_agreement(self) -> float | None:
        """Share of the clear points in the same cluster; None where it is not known which are clear."""
        if self.clear is None or self.clear_same is None:
            return None
        return self.clear_same / self.clear if self.clear else 1.0

    @property
    def head_agreements(self) -> tuple[float, ...]:
        """Share of the points in the same cluster, of each head."""
        return tuple(same * len(self.heads) / self.points for same in self.heads) if self.points else ()

    def __add__(self, other: MapAgreement) -> MapAgreement:
        return MapAgreement(
            self.points + other.points,
            self.same + other.same,
            _sum(self.near_ties, other.near_ties),
            _sum(self.clear, other.clear),
            _sum(self.clear_same, other.clear_same),
            tuple(map(sum, zip(self.heads, other.heads, strict=True))) if len(self.heads) == len(other.heads) else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "points": self.points,
            "same": self.same,
            "near_ties": self.near_ties,
            "flips": self.flips,
            "agreement": self.agreement,
            "fair_agreement": self.fair_agreement,
            "clear": self.clear,
            "clear_agreement": self.clear_agreement,
            "heads": list(self.head_agreements),
        }


@dataclass(frozen=True)
class NumberAgreement:
    """How far the numbers of an output are off, and how the reference's spread: what is needed to add up batches."""

    count: int
    mean: float  # of the reference
    squares: float  # sum of the reference's squared distances from its mean
    largest_error: float  # absolute; infinite where one run alone gives no finite number
    total_error: float

    @property
    def max_error(self) -> float:
        """The largest error, in standard deviations of the reference."""
        return self._relative(self.largest_error)

    @property
    def mean_error(self) -> float:
        """The mean error, in standard deviations of the reference."""
        return self._relative(self.total_error / self.count) if self.count else 0.0

    def _relative(self, error: float) -> float:
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        return error / deviation if deviation > 0 else math.inf if error else 0.0

    def __add__(self, other: NumberAgreement) -> NumberAgreement:
        count = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / count if count else 0.0
        return NumberAgreement(
            count,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.count * share,
            max(self.largest_error, other.largest_error),
            self.total_error + other.total_error,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: an infinite error is null."""
        errors = {"max_error": self.max_error, "mean_error": self.mean_error}
        return {"count": self.count} | {k: v if math.isfinite(v) else None for k, v in errors.items()}


@dataclass(frozen=True)
class Fidelity:
    """What comparing two runs found; `numbers`, `settled` and `maps` are keyed by the outputs' names."""

    images: int
    top1_same: int | None  # images whose likeliest class is the same; None without logits
    numbers: Mapping[str, NumberAgreement]  # over all images
    settled: Mapping[str, NumberAgreement]  # over the images in which no point changed its cluster
    maps: Mapping[str, MapAgreement]
    moved: int = 0  # images in which a point did
    near: float = NEAR

    @property
    def _judged(self) -> Mapping[str, NumberAgreement]:
        return self.settled if self.moved < self.images else self.numbers

    @property
    def overall(self) -> MapAgreement:
        """All maps together."""
        total = MapAgreement(0, 0, 0, 0, 0)
        for each in self.maps.values():
            total += each
        return replace(total, heads=())  # layers have heads of their own

    def __add__(self, other: Fidelity) -> Fidelity:
        if self.maps.keys() != other.maps.keys() or self.numbers.keys() != other.numbers.keys():
            raise ShapeError("comparisons of different outputs do not add up")
        top1 = None if self.top1_same is None or other.top1_same is None else self.top1_same + other.top1_same
        return Fidelity(
            self.images + other.images,
            top1,
            {name: each + other.numbers[name] for name, each in self.numbers.items()},
            {name: each + other.settled[name] for name, each in self.settled.items()},
            {name: each + other.maps[name] for name, each in self.maps.items()},
            self.moved + other.moved,
            self.near,
        )

    def failures(
        self, min_agreement: float = MIN_AGREEMENT, max_error: float = MAX_ERROR, min_top1: float = 0.0
    ) -> list[str]:
        """What is worse than it may be, one line each; empty if all is well.

        Each layer is judged by itself, near ties forgiven; each output of numbers by its largest error.
        """
        if not self.images:
            return ["nothing was compared"]
        found = [
            f"{name}: only {percent(each.fair_agreement)} of the points agree"
            f"{' or are near ties' if each.near_ties is not None else ''}, wanted {percent(min_agreement)}"
            for name, each in self.maps.items()
            if not each.fair_agreement >= min_agreement
        ]
        found += [
            f"{name}: off by up to {each.max_error:.1e} of its standard deviation, wanted at most {max_error:.1e}"
            for name, each in self._judged.items()
            if not each.max_error <= max_error
        ]
        if self.top1_same is not None and self.top1_same < min_top1 * self.images:
            share = percent(self.top1_same / self.images)
            found.append(f"{LOGITS}: the likeliest class is the same for only {share}, wanted {percent(min_top1)}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images": self.images,
            "top1_same": self.top1_same,
            "moved": self.moved,
            "near": self.near,
            "numbers": {name: each.to_dict() for name, each in self.numbers.items()},
            "settled": {name: each.to_dict() for name, each in self.settled.items()},
            "maps": {name: each.to_dict() for name, each in self.maps.items()},
            "overall": self.overall.to_dict(),
        }

    def table(self, maps: Sequence[ClusterOutput] = ()) -> str:
        """Plain text: a line for each layer and for all together, then one for each output of numbers.

        With the promise's `maps`, layers go by their short names as well.
        """
        alias = {each.output: each.alias for each in maps}
        rows = [(name.removeprefix(MAPS), alias.get(name, ""), *_cells(each)) for name, each in self.maps.items()]
        if rows:
            rows = [("layer", "", "points", "same", "near ties", "real flips"), *rows]
            rows.append(("all layers", "", *_cells(self.overall)))
        lines = [*_aligned(rows), ""] if rows else []
        if any(each.near_ties is None for each in self.maps.values()):
            lines += ["near ties are not known here: every point that changed its cluster counts as a flip", ""]
        numbers = [("output", "largest error", "mean error", "of the reference's standard deviation")]
        for name, error in self._judged.items():
            numbers.append((name, f"{error.max_error:.1e}", f"{error.mean_error:.1e}", ""))
            if 0 < self.moved < self.images:
                moved = self.numbers[name]
                numbers.append((f"{name}, all images", f"{moved.max_error:.1e}", f"{moved.mean_error:.1e}", ""))
        lines += _aligned(numbers) if self.numbers else []
        images = f"{self.images} image{'' if self.images == 1 else 's'} compared"
        if self.top1_same is not None:
            images += f"; the likeliest class is the same for {self.top1_same}"
        if self.moved:
            images += f"; in {self.moved} a point changed its cluster, which moves the numbers after it"
        return "\n".join([*lines, images])


def compare(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    margins: Mapping[str, Array] | None = None,
    near: float = NEAR,
) -> Fidelity:
    """Compare one batch. `margins`: of the reference, by the maps' output names, an array of a map's shape each."""
    sizes = {name: array.shape[0] if array.ndim else -1 for name, array in reference.items()}
    if len(set(sizes.values())) > 1 or -1 in sizes.values():
        raise ShapeError(f"the outputs are of batches of different sizes: {sizes}")
    for name, array in reference.items():
        if name not in candidate:
            raise ShapeError(f"{name}: the reference gives it, the candidate does not; it gives {', '.join(candidate)}")
        if candidate[name].shape != array.shape:
            shapes = f"wanted {list(array.shape)} as the reference gives, got {list(candidate[name].shape)}"
            raise ShapeError(f"{name}: {shapes}; compare two runs of the same model and images")
    count = next(iter(sizes.values()), 0)
    kept = np.ones(count, bool)
    for name, array in reference.items():
        if name.startswith(MAPS):
            kept &= (array == candidate[name]).all(axis=tuple(range(1, array.ndim)))
    maps, numbers, settled = {}, {}, {}
    for name, array in reference.items():
        other = candidate[name]
        if name.startswith(MAPS):
            maps[name] = _compare_maps(name, array, other, (margins or {}).get(name), near)
        elif name not in _CLASSES_OF.values():
            numbers[name] = _compare_numbers(*_of_the_same_classes(name, reference, candidate, np.ones(count, bool)))
            settled[name] = _compare_numbers(*_of_the_same_classes(name, reference, candidate, kept))
    top1 = None
    if LOGITS in reference:
        top1 = int((reference[LOGITS].argmax(axis=1) == candidate[LOGITS].argmax(axis=1)).sum())
    return Fidelity(count, top1, numbers, settled, maps, count - int(kept.sum()), near)


def _compare_maps(name: str, reference: Array, candidate: Array, margin: Array | None, near: float) -> MapAgreement:
    for array in (reference, candidate):
        if not np.issubdtype(array.dtype, np.integer):
            raise ShapeError(f"{name}: wanted cluster ids, which are integers, got {array.dtype}")
    if margin is not None and margin.shape != reference.shape:
        raise ShapeError(f"{name}: wanted a margin for each point {list(reference.shape)}, got {list(margin.shape)}")
    same = reference == candidate
    by_head = same.sum(axis=(0, *range(2, same.ndim))) if same.ndim > 1 else np.zeros(0, int)
    heads = tuple(int(count) for count in by_head)
    if margin is None:
        return MapAgreement(reference.size, int(same.sum()), None, heads=heads)
    clear = margin > CLEAR
    ties, clear_same = int((~same & (margin < near)).sum()), int((same & clear).sum())
    return MapAgreement(reference.size, int(same.sum()), ties, int(clear.sum()), clear_same, heads)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _compare_numbers(reference: Array, candidate: Array) -> NumberAgreement:
    wanted, got = reference.astype(np.float64), candidate.astype(np.float64)
    finite = wanted[np.isfinite(wanted)]
    mean = float(finite.mean()) if finite.size else 0.0
    with np.errstate(invalid="ignore"):
        error = np.abs(wanted - got)
    same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
    return NumberAgreement(
        wanted.size,
        mean,
        float(np.square(finite - mean).sum()),
        float(error.max(initial=0.0)),
        float(error.sum()),
    )


def _of_the_same_classes(
    name: str, reference: Mapping[str, Array], candidate: Mapping[str, Array], images: Array
) -> tuple[Array, Array]:
    """Both runs' values of an output, of these images, and of the classes that both show."""
    chosen = images
    classes = _CLASSES_OF.get(name)
    if classes is not None and classes in reference:
        chosen = (reference[classes] == candidate[classes]) & images[:, None]  # [B, k], the outputs are [B, k, h, w]
    return reference[name][chosen], candidate[name][chosen]


def _cells(each: MapAgreement) -> tuple[str, str, str, str]:
    ties = "not known" if each.near_ties is None else str(each.near_ties)
    return str(each.points), percent(each.agreement), ties, str(each.flips)


def percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{math.floor(share * 1e4 + 1e-6) / 100:g} %"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first two aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)) if w]
        lines.append("  ".join(cells).rstrip())
    return lines
