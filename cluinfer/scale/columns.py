"""Predictions as columns of a table: a row a picture, whatever became of it.

    error                        text; null where the picture was served, and then all below are there
    classes, scores              the k likeliest, list<int32>, and their probabilities, list<float32>
    names                        theirs, where the model knows them
    logits                       list<float32>
    clusters/<alias or layer>    the ids of a map as bytes, each of the smallest unsigned type that holds all of them
    evidence, evidence_classes   float32 as bytes; list<int32>

`packed` says of what type and shape the bytes are: the same for every row, so no row repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cluinfer.engines import Array
from cluinfer.errors import GraphError, NotShownError, ShapeError
from cluinfer.graph import EVIDENCE, ClusterOutput, Promise
from cluinfer.prediction import Prediction

ERROR = "error"
MAPS = "clusters/"


@dataclass(frozen=True)
class Columns:
    """Which columns are wanted. `maps`: by alias or layer; None for all that the model shows."""

    top: int = 5
    logits: bool = False
    maps: tuple[str, ...] | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.top, int) and self.top >= 1):
            raise ShapeError(f"the top {self.top!r:.60} classes were asked for; wanted 1 or more")

    def shown(self, promise: Promise) -> tuple[ClusterOutput, ...]:
        """The maps that are wanted of this model, which must have them."""
        if self.evidence and not promise.evidence:
            raise NotShownError("this model shows no evidence; export the model with --evidence K")
        if self.logits and promise.classes is None:
            raise NotShownError("this model is a backbone: it gives features and maps, no classes")
        if self.maps is None:
            return promise.maps
        found = []
        for name in dict.fromkeys(self.maps):
            each = next((one for one in promise.maps if name in (one.alias, one.layer)), None)
            if each is None:
                there = ", ".join(_name(one) for one in promise.maps) or "none: it was exported with --maps none"
                raise NotShownError(f"no cluster map {name!r:.100}; there are {there}")
            found.append(each)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Packed:
    """What the bytes of a column are."""

    dtype: str
    shape: tuple[int, ...] | None  # None: as many as there are, in one dimension

    def array(self, content: bytes) -> Array:
        """The array of one row, read-only."""
        flat = np.frombuffer(content, self.dtype)
        return flat if self.shape is None else flat.reshape(self.shape)


def packed(promise: Promise, columns: Columns | None = None) -> dict[str, Packed]:
    """The columns that hold bytes, and of what."""
    columns = columns or Columns()
    made = {column(each): Packed(smallest(each), (each.heads, *each.size)) for each in columns.shown(promise)}
    if columns.evidence:
        made[EVIDENCE] = Packed("<f4", (promise.evidence, *_last(promise)) if _last(promise) else None)
    return made


def column(output: ClusterOutput) -> str:
    """The name of a map's column."""
    return f"{MAPS}{_name(output)}"


def smallest(output: ClusterOutput) -> str:
    """The smallest unsigned type that every id of a map fits into, little-endian."""
    ids = output.fold[0] * output.fold[1] * output.grid[0] * output.grid[1]
    return str(np.min_scalar_type(ids - 1).newbyteorder("<").str)


def schema(promise: Promise, columns: Columns) -> Any:
    """The columns as an Arrow schema, `packed` as JSON in its metadata."""
    import json

    import pyarrow as pa

    classes, floats = pa.list_(pa.int32()), pa.list_(pa.float32())
    kinds: dict[str, Any] = {ERROR: pa.string()}
    if promise.classes is not None:
        kinds |= {"classes": classes, "scores": floats}
        kinds |= {"names": pa.list_(pa.string())} if promise.names else {}
    kinds |= {"logits": floats} if columns.logits else {}
    bytes_of = packed(promise, columns)
    kinds |= dict.fromkeys(bytes_of, pa.binary())
    kinds |= {"evidence_classes": classes} if columns.evidence else {}
    said = json.dumps({name: asdict(each) for name, each in bytes_of.items()})
    return pa.schema(list(kinds.items()), metadata={"cluinfer.packed": said})


def table(made: Iterable[Prediction | str], promise: Promise, columns: Columns) -> Any:
    """An Arrow table of predictions, or of what is wrong with a picture; each is let go as soon as it is in it."""
    import pyarrow as pa

    wanted = schema(promise, columns)
    maps = [(column(each), each, np.dtype(smallest(each))) for each in columns.shown(promise)]
    held: dict[str, list[Any]] = {name: [] for name in wanted.names}
    for each in made:
        row = {ERROR: each} if isinstance(each, str) else _row(each, promise, columns, maps)
        for name, values in held.items():
            values.append(row.get(name))
    return pa.table([pa.array(held[field.name], field.type) for field in wanted], schema=wanted)


def _row(
    prediction: Prediction, promise: Promise, columns: Columns, maps: Sequence[tuple[str, ClusterOutput, Any]]
) -> Mapping[str, Any]:
    row: dict[str, Any] = {}
    if prediction.logits is not None:
        best = prediction.top(columns.top)
        row |= {"classes": [each.index for each in best], "scores": [each.probability for each in best]}
        row |= {"names": [each.name for each in best], "logits": prediction.logits}
    for name, output, dtype in maps:
        found = prediction.clusters[output.layer]
        if found.ids.min() < 0 or found.ids.max() >= found.clusters:  # a smaller type would make others of them
            raise GraphError(f"{output.output} holds ids beyond 0 to {found.clusters - 1}, which it promises")
        row[name] = found.ids.astype(dtype).tobytes()
    if columns.evidence and prediction.evidence is not None:
        row |= {EVIDENCE: prediction.evidence.astype("<f4").tobytes(), "evidence_classes": prediction.evidence_classes}
    return row


def _last(promise: Promise) -> tuple[int, ...]:
    """The size of the last map, which evidence has; empty where no map tells it."""
    last = max((each.stage for each in promise.maps), default=0)
    sizes = {each.size for each in promise.maps if each.stage == last and not each.pool}
    return sizes.pop() if len(sizes) == 1 else ()


def _name(output: ClusterOutput) -> str:
    return output.alias or output.layer
