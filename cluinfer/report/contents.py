"""What a report holds, as an object for JSON: texts, pictures as data URLs, arrays deflated in one piece a picture.

Arrays keep their values: ids in the smallest integer type that holds them, shares and attention in float32. The first
dimension of each is heads (cluster maps), classes (evidence, attention) or 1 (segments). Of similarities, the clusters'
means are there, [heads, 1, clusters].
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluinfer.cluster_map import stretch
from cluinfer.draw import heat_colors, palette
from cluinfer.errors import NotShownError, ShapeError
from cluinfer.graph import ClusterOutput, Promise
from cluinfer.prediction import Prediction, Score

Array = NDArray[Any]
Named = tuple[str, Prediction]

SHOWN = 512  # pixels of the longer side that a picture is shown with, at most
LOSSLESS = 128 * 128  # pixels up to which a picture is small enough to be kept as it is
CLASSES = 5
COLORS = 1 << 10  # ids from here on use the colours again

SEGMENTS, EVIDENCE = "segments", "evidence"
LAST, INNER = "attention/last", "attention/inner"

_NOTES = {
    SEGMENTS: "Every pixel has the colour of the final token that the pools put it into.",
    "clusters": "",
    EVIDENCE: "Shares of the class's logit: all positions together are the logit minus its bias.",
    "attention": "Where the network looks for a class; each panel is scaled to its own maximum.",
    "picture": "This engine shows no maps. Build it with --maps stages to see the clusters.",
}


def contents(
    predictions: Sequence[Named], promise: Promise, against: Sequence[Named] | None, engines: tuple[str, str]
) -> dict[str, Any]:
    """Everything that the page shows."""
    if against is not None and len(against) != len(predictions):
        raise ShapeError(
            f"a comparison needs predictions of the same pictures, got {len(predictions)} and {len(against)} of them"
        )
    runs = [[each for _, each in predictions]] + ([] if against is None else [[each for _, each in against]])
    arrays = [[_arrays(each, promise) for each in run] for run in runs]
    pictures = [
        _picture(name, [run[i] for run in runs], [run[i] for run in arrays], promise)
        for i, (name, _) in enumerate(predictions)
    ]
    known = set().union(*arrays[0])
    largest = max(
        (int(ids.max()) for run in arrays for each in run for ids in each.values() if ids.dtype.kind in "iu"), default=0
    )
    engines = _short(engines)
    return {
        "title": promise.arch,
        "about": _about(promise, len(predictions)),
        "engines": list(engines[: len(runs)]),
        "palette": _base64(palette(min(largest + 1, COLORS)).tobytes()),
        "heat": {"plain": _base64(heat_colors(False).tobytes()), "signed": _base64(heat_colors(True).tobytes())},
        "views": _views(promise, known),
        "comparison": _comparison(promise, pictures, arrays, engines) if against is not None else None,
        "pictures": pictures,
    }


def _about(promise: Promise, count: int) -> str:
    classes = "a backbone" if promise.classes is None else f"{promise.classes:,} classes"
    pictures = f"{count:,} picture{'' if count == 1 else 's'}"
    return f"{pictures}, seen at {promise.size[0]}x{promise.size[1]} pixels; {classes}"


def _short(engines: tuple[str, str]) -> tuple[str, str]:
    """Files of artifacts by their names alone, as long as these tell them apart."""
    one, other = (PurePath(name).name.removesuffix(".clu") if name.endswith(".clu") else name for name in engines)
    return (one, other) if one != other else engines


def _views(promise: Promise, known: set[str]) -> list[dict[str, Any]]:
    """What can be chosen to be seen, in order; a view without layers stands alone."""

    def view(kind: str, label: str, layers: Sequence[dict[str, str]] = (), note: str = "") -> dict[str, Any]:
        return {"kind": kind, "label": label, "note": note or _NOTES[kind], "layers": list(layers)}

    views = []
    if SEGMENTS in known:
        layer = {"array": SEGMENTS, "label": "Segments", "about": "The pools composed"}
        views.append(view("clusters", "Segments", [layer], _NOTES[SEGMENTS]))
    shown = [each for each in promise.maps if each.output in known]
    for stage in sorted({each.stage for each in shown}):
        layers = [_layer(each, known) for each in shown if each.stage == stage]
        views.append(view("clusters", f"Stage {stage}", layers))
    if EVIDENCE in known:
        views.append(view("evidence", "Evidence"))
    attention = [
        {"array": name, "label": f"{label} layer"}
        for name, label in ((LAST, "Last"), (INNER, "Inner"))
        if name in known
    ]
    if attention:
        views.append(view("attention", "Attention", attention))
    return views or [view("picture", "Picture")]


def _layer(output: ClusterOutput, known: set[str]) -> dict[str, str]:
    label = output.layer
    if output.alias:
        label = f"Pool into stage {output.stage + 1}" if output.pool else "Last layer"
    similarity = {"similarity": output.similarity} if output.similarity in known else {}
    return {"array": output.output, "label": label, "about": output.layer} | similarity


def _arrays(prediction: Prediction, promise: Promise) -> dict[str, Array]:
    """The arrays to show, by name; each of three dimensions."""
    found: dict[str, Array] = {}
    for pool in [each for each in promise.maps if each.pool][:1]:
        with suppress(NotShownError):  # not every pool is shown
            # In the size of the first pool's map, which they are composed in: no more is known, and less is drawn
            found[SEGMENTS] = stretch(prediction.segments(), pool.size)[None]
    for each in promise.maps:
        if (map_ := prediction.clusters.get(each.layer)) is None:
            continue
        found[each.output] = map_.ids
        if map_.similarity is not None:
            found[each.similarity] = map_.mean_similarity()[:, None]
    if prediction.evidence is not None:
        found[EVIDENCE] = prediction.evidence
    if prediction.attention is not None:
        found |= {LAST: prediction.attention.last, INNER: prediction.attention.inner}
    return {name: _smallest(each) for name, each in found.items()}


def _smallest(array: Array) -> Array:
    """The same values in the smallest type that the page reads."""
    if array.dtype.kind == "f":
        return array.astype("<f4")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for kind in ("<u1", "<u2"):
        if low >= 0 and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype("<i4")


def _picture(
    name: str, runs: Sequence[Prediction], arrays: Sequence[Mapping[str, Array]], promise: Promise
) -> dict[str, Any]:
    shown = runs[0].picture or Image.new("RGB", promise.size[::-1], (128, 128, 128))
    best = {each.top(1)[0].index for each in runs if each.logits is not None}
    held: dict[str, Any] = {
        "name": name,
        "image": _data_url(shown),
        "classes": _classes(runs, promise),
        "runs": [_run(each, packed, promise) for each, packed in zip(runs, arrays, strict=True)],
        "moved": len(best) > 1,
        "note": "" if runs[0].picture else "The engine was given a tensor, so there is no picture.",
    }
    if len(runs) > 1:
        held["changes"] = _changes(*arrays)
    return held


def _run(prediction: Prediction, arrays: Mapping[str, Array], promise: Promise) -> dict[str, Any]:
    packed = b"".join(np.ascontiguousarray(each).tobytes() for each in arrays.values())
    held: dict[str, Any] = {
        "arrays": [
            {"name": name, "type": each.dtype.str[1:], "shape": list(each.shape)} for name, each in arrays.items()
        ],
        "packed": _base64(zlib.compress(packed, 6)),
    }
    if prediction.evidence is not None and prediction.evidence_classes is not None:
        held["evidence"] = _labels(prediction.evidence_classes, promise)
    if (attention := prediction.attention) is not None:
        held["attention"] = {
            "classes": _labels(attention.classes, promise, prediction.top(2)),
            "separability": {LAST: attention.separability, INNER: attention.inner_separability},
        }
    return held


def _classes(runs: Sequence[Prediction], promise: Promise) -> list[dict[str, Any]]:
    """The likeliest classes of any engine, by the first one's opinion, with the probability that each gives."""
    shares = [share for each in runs if (share := each.probabilities) is not None]
    if len(shares) < len(runs):
        return []
    found = dict.fromkeys(score.index for each in runs for score in each.top(CLASSES))
    rows = [
        {"index": index, "name": _name(index, promise), "probabilities": [_share(index, share) for share in shares]}
        for index in found
    ]
    return sorted(rows, key=lambda row: -(row["probabilities"][0] or 0))


def _labels(classes: Array, promise: Promise, best: Sequence[Score] = ()) -> list[dict[str, Any]]:
    """Classes by name, and what those that are the likeliest are to the picture."""
    remarks = {score.index: said for score, said in zip(best, ("predicted", "the most confusing"), strict=False)}
    return [{"index": i, "name": _name(i, promise), "remark": remarks.get(i, "")} for i in map(int, classes)]


def _name(index: int, promise: Promise) -> str:
    return promise.names[index] if 0 <= index < len(promise.names) else f"class {index}"


def _changes(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, list[int]]:
    """By cluster map and head: how many points are in another cluster."""
    both = [
        name for name in one if name in other and one[name].dtype.kind in "iu" and one[name].shape == other[name].shape
    ]
    return {name: [int(count) for count in (one[name] != other[name]).sum((1, 2))] for name in both}


def _comparison(
    promise: Promise,
    pictures: Sequence[Mapping[str, Any]],
    arrays: Sequence[Sequence[Mapping[str, Array]]],
    engines: tuple[str, str],
) -> dict[str, Any]:
    layers = []
    for each in promise.maps:
        changed = [sum(picture["changes"][each.output]) for picture in pictures if each.output in picture["changes"]]
        points = sum(
            run[each.output].size
            for run, picture in zip(arrays[0], pictures, strict=True)
            if each.output in picture["changes"]
        )
        if points:
            alias = f" ({each.alias})" if each.alias else ""
            layers.append({"name": each.layer + alias, "points": points, "changed": sum(changed)})
    same = sum(not picture["moved"] for picture in pictures)
    said = f"{engines[0]} beside {engines[1]}."
    if promise.classes is not None and pictures:
        said += f" The top class is the same on {same} of {len(pictures)} picture{'' if len(pictures) == 1 else 's'}."
    if total := sum(layer["points"] for layer in layers):
        changed_points = sum(layer["changed"] for layer in layers)
        said += f" {changed_points:,} of {total:,} points changed their cluster ({changed_points / total:.2%})."
    return {"verdict": said, "layers": layers}


def _data_url(picture: Image.Image) -> str:
    picture = picture.convert("RGB")
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if picture.width * picture.height <= LOSSLESS:
        picture.save(file, "PNG", optimize=True)
        return f"data:image/png;base64,{_base64(file.getvalue())}"
    picture.save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{_base64(file.getvalue())}"


def _share(index: int, shares: Array) -> float | None:
    """A class's probability, if it is one: JSON has no NaN, and another model may have fewer classes."""
    return float(shares[index]) if index < len(shares) and math.isfinite(shares[index]) else None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
