"""What an application holds of one picture: classes, cluster maps, evidence and attention, as NumPy arrays.

Nothing is computed before it is asked for. Arrays are read-only, so nothing done to one prediction changes another;
copy one to write to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluinfer import draw, segments
from cluinfer.cluster_map import ClusterMap, Clusters, View
from cluinfer.errors import GraphError, NotShownError, ShapeError
from cluinfer.graph import (
    ATTENTION,
    ATTENTION_CLASSES,
    EVIDENCE,
    EVIDENCE_CLASSES,
    FEATURES,
    LOGITS,
    Promise,
)
from cluinfer.preprocess import Picture

Array = NDArray[Any]
Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
EMPTY = 1e-12  # two attention maps whose sum is below this are empty


class Score(NamedTuple):
    """One class of a prediction; its name is its number where the classes' names are not known."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody looks for here
    name: str
    probability: float
    logit: float


@dataclass(frozen=True)
class Timings:
    """Seconds that one call took, for all of its pictures."""

    preprocess: float
    inference: float
    postprocess: float

    @property
    def total(self) -> float:
        """All together."""
        return self.preprocess + self.inference + self.postprocess


@dataclass(frozen=True, eq=False)
class Attention:
    """Where an ICASC model looks for each of its classes, at the last stage and at an inner one; never negative."""

    last: Floats = field(repr=False)  # [k, h, w]
    inner: Floats = field(repr=False)  # [k, 2h, 2w]
    classes: Ids  # [k]: the likeliest and the one it is most confused with, or those chosen at export

    @property
    def separability(self) -> float | None:
        """How far the first two classes' maps differ at the last stage, from 0 to 1; None for a single class."""
        return separability(self.last[0], self.last[1]) if len(self.classes) > 1 else None

    @property
    def inner_separability(self) -> float | None:
        """The same at the inner stage."""
        return separability(self.inner[0], self.inner[1]) if len(self.classes) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without the maps."""
        return {
            "classes": self.classes.tolist(),
            "separability": self.separability,
            "inner_separability": self.inner_separability,
        }


class Prediction:
    """What a model says of one picture. The predictions of a batch share its memory: the last of them frees it."""

    def __init__(
        self, outputs: Mapping[str, Array], promise: Promise, picture: Image.Image | None, timings: Timings
    ) -> None:
        self._outputs = outputs  # of this picture, without the batch's dimension
        self._view = View(promise, picture)
        self.timings = timings

    @property
    def picture(self) -> Image.Image | None:
        """The crop that the model saw, of its size; None where it was given a tensor."""
        return self._view.picture

    @property
    def logits(self) -> Floats | None:
        """Float32 [classes]; None for a backbone."""
        return self._outputs.get(LOGITS)

    @cached_property
    def probabilities(self) -> Floats | None:
        """The softmax of the logits, float32 [classes]; None for a backbone."""
        if self.logits is None:
            return None
        with np.errstate(invalid="ignore", over="ignore"):  # of logits that are not finite, NaN
            powers = np.exp(self.logits - self.logits.max())
        return _locked(powers / powers.sum())

    def top(self, k: int = 5) -> list[Score]:
        """The k likeliest classes, the likeliest first, on a tie the one of the lower number; all if there are less."""
        logits, probabilities = self.logits, self.probabilities
        if logits is None or probabilities is None:
            raise NotShownError("this model is a backbone: it gives features and maps, no classes")
        if k < 1:
            raise ShapeError(f"the top {k} classes were asked for; wanted 1 or more")
        order = np.argsort(-logits, kind="stable")[:k].tolist()
        return [Score(i, self._name(i), float(probabilities[i]), float(logits[i])) for i in order]

    @cached_property
    def clusters(self) -> Clusters:
        """The cluster maps by alias (stage1..4, pool1..3) and by layer (network.0.2.token_mixer)."""
        maps = self._view.promise.maps
        return Clusters(tuple(ClusterMap.of(each, self._outputs, self._view) for each in maps))

    def segments(self) -> Ids:
        """Which token of the last map each pixel of the crop belongs to, int32 [height, width].

        The pools' assignments, composed; token row * columns + column. FEC and CLUENet have pools, CoC has none.
        """
        return self._segments

    @cached_property
    def _segments(self) -> Ids:
        last = None if self.evidence is None else (self.evidence.shape[1], self.evidence.shape[2])
        return _locked(segments.compose(self._view.promise, self._outputs, last))

    @property
    def evidence(self) -> Floats | None:
        """Each final position's exact share of a class's logit, [k, h, w]; with the head's bias they sum to it."""
        return self._outputs.get(EVIDENCE)

    @property
    def evidence_classes(self) -> Ids | None:
        """The classes of the evidence, the k likeliest in order."""
        return self._outputs.get(EVIDENCE_CLASSES)

    @cached_property
    def attention(self) -> Attention | None:
        """Where an ICASC model looks; None for others."""
        if not self._view.promise.attention:
            return None
        last, inner = (self._outputs[name] for name in ATTENTION)
        return Attention(last, inner, self._outputs[ATTENTION_CLASSES])

    @property
    def features(self) -> tuple[Floats, ...]:
        """The maps of a backbone, [channels, h, w] one a stage; empty for a classifier."""
        return tuple(self._outputs[f"{FEATURES}/{i + 1}"] for i in range(self._view.promise.features))

    def overlay(
        self, what: str | None = None, picture: Picture | None = None, *, head: int | None = None, **options: Any
    ) -> Image.Image:
        """Something that the model shows, painted over the crop that it saw.

        `what`: a cluster map by name, "segments", "evidence", "attention" (of the last stage) or "attention/inner"; by
        default the last cluster map, else attention, else evidence. `picture`: in any form, what the runtime was
        given; its crop is then painted over in full resolution. `options`: of `cluinfer.draw`.
        """
        what = what or self._most_telling()
        if what == "segments":
            return draw.overlay_clusters(self.segments(), self._view.under(picture), **options)
        if what in (EVIDENCE, "attention", *ATTENTION):
            return self._overlay_heat(what, picture, **options)
        return self.clusters[what].overlay(picture, head, **options)

    def to_dict(self, maps: bool = False, k: int = 5) -> dict[str, Any]:
        """For JSON: the k likeliest classes, and all else there is by its shape; with `maps`, by its values too."""

        def array(values: Array) -> dict[str, Any]:
            return {"shape": list(values.shape)} | ({"values": values.tolist()} if maps else {})

        held: dict[str, Any] = {"top": [score._asdict() for score in self.top(k)]} if self.logits is not None else {}
        held["clusters"] = {
            name: each.to_dict()
            | array(each.ids)
            | ({"similarity": array(each.similarity)} if each.similarity is not None else {})
            for name, each in self.clusters.items()
        }
        if self.evidence is not None and self.evidence_classes is not None:
            held["evidence"] = {"classes": self.evidence_classes.tolist()} | array(self.evidence)
        if self.attention is not None:
            held["attention"] = self.attention.to_dict() | {
                "last": array(self.attention.last),
                "inner": array(self.attention.inner),
            }
        if self.features:
            held["features"] = [array(each) for each in self.features]
        held["timings"] = asdict(self.timings)
        finite: dict[str, Any] = _finite(held)
        return finite

    def __repr__(self) -> str:
        best = [f"{each.name!r} {each.probability:.1%}" for each in self.top(1)] if self.logits is not None else []
        return f"Prediction({', '.join([*best, *self._outputs])})"

    def _name(self, index: int) -> str:
        names = self._view.promise.names
        return names[index] if 0 <= index < len(names) else str(index)

    def _most_telling(self) -> str:
        if self.clusters:
            return list(self.clusters)[-1]
        if self.attention is not None:
            return "attention"
        if self.evidence is not None:
            return EVIDENCE
        raise NotShownError("this model shows neither maps nor evidence nor attention; export it with --maps stages")

    def _overlay_heat(self, what: str, picture: Picture | None, **options: Any) -> Image.Image:
        name, classes = (EVIDENCE, EVIDENCE_CLASSES) if what == EVIDENCE else (ATTENTION[0], ATTENTION_CLASSES)
        name = what if what in ATTENTION else name
        if name not in self._outputs:
            advice = "export the model with --evidence K" if name == EVIDENCE else "ICASC models have it"
            raise NotShownError(f"this model shows no {what}; {advice}")
        under = self._view.under(picture)
        options = {"signed": name == EVIDENCE, **options}  # shares are for or against, even if none is negative
        painted = [draw.overlay_heat(values, under, **options) for values in self._outputs[name]]
        titles = [self._name(int(index)) for index in self._outputs[classes]]
        return draw.grid(painted, titles) if len(painted) > 1 else painted[0]


def predictions(
    outputs: Mapping[str, Array], promise: Promise, pictures: Sequence[Image.Image | None], timings: Timings
) -> list[Prediction]:
    """One prediction for each image of a batch; refuses outputs that are not as promised.

    `outputs`: of an engine, which gives them away. `pictures`: the crop of each image, None for a tensor's.
    """
    promise.check_outputs({name: array.shape for name, array in outputs.items()})
    held = {name: _typed(name, array) for name, array in outputs.items()}
    for name, array in held.items():
        if array.shape[:1] != (len(pictures),):
            raise GraphError(f"{name}: wanted a batch of {len(pictures)}, the engine gave {list(array.shape)}")
    return [
        Prediction({name: array[i] for name, array in held.items()}, promise, picture, timings)
        for i, picture in enumerate(pictures)
    ]


def separability(a: Array, b: Array) -> float:
    """How far two attention maps differ: 1 - 2 * sum min(a, b) / sum(a + b), each scaled to a maximum of 1.

    0 for the same map at any scale and for two empty ones, 1 where they share no position.
    """
    a, b = (each.astype(np.float64) / (each.max() if each.max() > 0 else 1) for each in (a, b))
    total = float((a + b).sum())
    return 1 - 2 * float(np.minimum(a, b).sum()) / total if total > EMPTY else 0.0


def _typed(name: str, array: Array) -> Array:
    """The array as int32 or float32, whichever the output is of, locked."""
    numbers = name not in (EVIDENCE_CLASSES, ATTENTION_CLASSES) and not name.startswith("clusters/")
    wanted, kinds = (np.float32, "f") if numbers else (np.int32, "iu")
    if array.dtype == wanted:
        return _locked(array.view())
    if array.dtype.kind not in kinds:
        raise GraphError(f"{name}: wanted {np.dtype(wanted)}, the engine gave {array.dtype}")
    return _locked(array.astype(wanted))


def _locked(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _finite(held: Any) -> Any:
    """The same for JSON, which has neither NaN nor infinity: null instead."""
    if isinstance(held, dict):
        return {key: _finite(value) for key, value in held.items()}
    if isinstance(held, list):
        return [_finite(value) for value in held]
    return None if isinstance(held, float) and not math.isfinite(held) else held
