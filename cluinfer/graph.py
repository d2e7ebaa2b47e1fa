"""What an exported graph says of itself: the promise, kept as JSON in the ONNX file's metadata.

It is enough to prepare a picture for the graph and to make sense of every output. It comes from a file, so `from_json`
checks every field; `check_outputs` holds it against the outputs that a graph really has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from cluinfer.errors import GraphError
from cluinfer.json_fields import LIMIT as LIMIT
from cluinfer.json_fields import Fields
from cluinfer.json_fields import Pair as Pair

KEY = "cluinfer"  # of the metadata entry
VERSION = 1
MAX_PIXELS = 1 << 26  # of an input: 8192x8192, 768 MiB
INPUT, LOGITS = "image", "logits"
EVIDENCE, EVIDENCE_CLASSES = "evidence", "evidence_classes"
ATTENTION = ("attention/last", "attention/inner")
ATTENTION_CLASSES = "attention_classes"
FEATURES = "features"  # prefix of a backbone's outputs: features/1, features/2, ...
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the input: resized so that the crop is this share of it, cropped, then normalised."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 0.9
    interpolation: str = "bicubic"  # of INTERPOLATIONS

    def __post_init__(self) -> None:
        if not 0.01 <= self.crop <= 1 or not all(each >= 1e-6 for each in self.std):
            raise GraphError("preprocess needs a crop from 0.01 to 1 and a std of 1e-6 or more")
        if self.interpolation not in INTERPOLATIONS:
            names = ", ".join(INTERPOLATIONS)
            raise GraphError(f"preprocess needs an interpolation of {names}, got {self.interpolation!r:.60}")


@dataclass(frozen=True)
class ClusterOutput:
    """One cluster map: an output int32 [B, heads, rows, columns] of ids, unique within a head across regions.

    The id of centre m of region r is r * (grid rows * grid columns) + m; regions and centres are counted row by row.
    """

    layer: str  # module path in the checkpoint
    alias: str  # stage1, pool1, ...; empty for a layer that is neither a stage's last nor a pool
    pool: bool  # its centres are the points of the next stage
    stage: int  # from 1
    heads: int
    fold: Pair  # regions
    grid: Pair  # centres of one region
    size: Pair  # points of the whole map

    @property
    def output(self) -> str:
        """The name of the graph's output."""
        return f"clusters/{self.layer}"

    @property
    def similarity(self) -> str:
        """The name of the graph's output float32 [B, heads, rows, columns]: how similar a point is to its centre."""
        return f"similarity/{self.layer}"


@dataclass(frozen=True)
class Promise:
    """Everything that an exported graph says of itself."""

    arch: str
    family: str
    size: Pair
    classes: int | None  # None: a backbone
    names: tuple[str, ...] = ()  # of the classes, if known
    preprocess: Preprocess = field(default_factory=Preprocess)
    maps: tuple[ClusterOutput, ...] = ()
    similarities: bool = False  # whether each map is followed by that of its similarities
    evidence: int = 0  # how many classes the evidence is given for
    attention: int = 0  # how many classes the attention is given for
    features: int = 0  # how many feature maps a backbone gives

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        names = [LOGITS] if self.classes is not None else [f"{FEATURES}/{i + 1}" for i in range(self.features)]
        for each in self.maps:
            names += [each.output, each.similarity] if self.similarities else [each.output]
        names += [EVIDENCE, EVIDENCE_CLASSES] if self.evidence else []
        names += [*ATTENTION, ATTENTION_CLASSES] if self.attention else []
        return tuple(names)

    def to_json(self) -> str:
        """The metadata entry."""
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Promise:
        """Read a metadata entry, refusing whatever is not as `to_json` writes it."""
        try:
            return cls(**_Reader(json.loads(text)).promise())
        except (ValueError, RecursionError) as error:
            raise GraphError(f"the graph's description is not JSON: {error}") from error

    def check_outputs(self, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        """Refuse a graph whose outputs are not the promised ones; None stands for a dimension that is not fixed."""
        missing = [name for name in self.outputs if name not in shapes]
        surplus = [name for name in shapes if name not in self.outputs]
        if missing or surplus:
            what = f"promises outputs it does not have: {', '.join(missing)}" if missing else ""
            what += " and " if missing and surplus else ""
            what += f"has outputs it does not promise: {', '.join(surplus)}" if surplus else ""
            raise GraphError(f"the graph {what}; export it again")
        for name, wanted in self._shapes.items():
            got = shapes[name]
            fits = len(got) == len(wanted) and all(
                w is None or g is None or g == w for g, w in zip(got, wanted, strict=True)
            )
            if not fits:
                raise GraphError(f"the graph promises {name} of shape {_text(wanted)}, but it has {_text(got)}")

    @cached_property  # asked for by every call of a runtime
    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        shapes: dict[str, tuple[int | None, ...]] = {each.output: (None, each.heads, *each.size) for each in self.maps}
        if self.similarities:
            shapes |= {each.similarity: shapes[each.output] for each in self.maps}
        if self.classes is not None:
            shapes[LOGITS] = (None, self.classes)
        if self.evidence:
            shapes |= {EVIDENCE: (None, self.evidence, None, None), EVIDENCE_CLASSES: (None, self.evidence)}
        if self.attention:
            shapes |= dict.fromkeys(ATTENTION, (None, self.attention, None, None))
            shapes[ATTENTION_CLASSES] = (None, self.attention)
        return shapes


class _Reader(Fields):
    what = "the graph's description"
    error = GraphError

    def promise(self) -> dict[str, Any]:
        version = self.number("version")
        if version > VERSION:
            raise GraphError(
                f"the graph's description is of version {version}, this cluinfer reads up to {VERSION}; update cluinfer"
            )
        classes = self.held.pop("classes", None)
        if classes is not None:
            self.held["classes"] = classes
            classes = self.number("classes", 1)
        names = self.take("names", list)
        if not all(isinstance(name, str) for name in names) or (names and len(names) != classes):
            raise self.wrong(f"names must be {classes} texts, got {len(names)} entries")
        size = self.pair("size")
        if size[0] * size[1] > MAX_PIXELS:
            raise self.wrong(f"size = {size[0]}x{size[1]} has more than {MAX_PIXELS} pixels")
        taken = {
            "arch": self.text("arch"),
            "family": self.text("family"),
            "size": size,
            "classes": classes,
            "names": tuple(names),
            "preprocess": _Reader(self.take("preprocess", dict), "preprocess.").preprocess(),
            "maps": tuple(
                _Reader(each, f"maps.{i}.").cluster_output() for i, each in enumerate(self.take("maps", list))
            ),
            "similarities": self.take("similarities", bool) if "similarities" in self.held else False,
            "evidence": self.number("evidence"),
            "attention": self.number("attention"),
            "features": self.number("features"),
        }
        self.end()
        for kind in ("layer", "alias"):
            names = [name for each in taken["maps"] if (name := getattr(each, kind))]
            if len(set(names)) < len(names):
                raise self.wrong(f"maps names a{'n' if kind == 'alias' else ''} {kind} twice")
        return taken

    def preprocess(self) -> Preprocess:
        mean, std = self.floats("mean"), self.floats("std")
        crop, interpolation = self.real("crop"), self.take("interpolation", str)
        self.end()
        try:
            return Preprocess(mean, std, crop, interpolation)
        except GraphError as error:
            raise self.wrong(str(error)) from error

    def cluster_output(self) -> ClusterOutput:
        made = ClusterOutput(
            layer=self.text("layer"),
            alias=self.text("alias"),
            pool=self.take("pool", bool),
            stage=self.number("stage", 1),
            heads=self.number("heads", 1),
            fold=self.pair("fold"),
            grid=self.pair("grid"),
            size=self.pair("size"),
        )
        self.end()
        if any(side % parts for side, parts in zip(made.size, made.fold, strict=True)):
            raise self.wrong(f"{self.path}size does not split into its fold")
        return made


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
