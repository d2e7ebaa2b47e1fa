"""Which layers run in int8, and why: the default for models that cluster, and what a user changes in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cluinfer.calibration.layers import DEPTHWISE, EMBEDDING, HEAD, SHOWN, SIMILARITY, Layer
from cluinfer.errors import CalibrationError

_REASONS = {
    EMBEDDING: "reads the image, whose rounding every later layer would see; hardly any work",
    SIMILARITY: "decides which cluster a point belongs to",
    HEAD: "gives the logits; hardly any work",
    SHOWN: "neither logits nor clusters depend on it",
    DEPTHWISE: "moves few numbers for each it reads: int8 gains little, and its weights are the coarsest",
}
_CENTRES = "engines apply it to the centres instead of the points, which is less work than in int8"
_WORK = "much of the work, and far from the clusters"
_CONSTANT = "what it reads never changed while calibrating"


@dataclass(frozen=True)
class Choice:
    """What becomes of one layer."""

    layer: Layer
    int8: bool
    reason: str
    searchable: bool = False  # int8 could speed it up, and nobody has decided

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "layer": self.layer.name,
            "role": self.layer.role,
            "macs": self.layer.macs,
            "int8": self.int8,
            "reason": self.reason,
        }


def plan(layers: Sequence[Layer], usable: Collection[str], in_float: Sequence[str] = ()) -> list[Choice]:
    """The default: dense layers and projections in int8, except those that match one of `in_float`, names or patterns.

    `usable`: the layers whose input has a scale.
    """
    unknown = [each for each in in_float if not any(fnmatchcase(layer.name, each) for layer in layers)]
    if unknown:
        names = ", ".join(layer.name for layer in layers[:8])
        raise CalibrationError(f"no layer is named {unknown[0]!r:.80}; there are: {names}, ... (--explain lists them)")
    choices = []
    for layer in layers:
        if any(fnmatchcase(layer.name, each) for each in in_float):
            choices.append(Choice(layer, False, "as asked for"))
        elif layer.name not in usable:
            choices.append(Choice(layer, False, _CONSTANT))
        elif layer.centres:
            choices.append(Choice(layer, False, _CENTRES))
        elif layer.role in _REASONS:
            choices.append(Choice(layer, False, _REASONS[layer.role], layer.role == SIMILARITY))
        else:
            choices.append(Choice(layer, True, _WORK, True))
    return choices
