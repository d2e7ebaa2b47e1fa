"""A Ray data set of pictures in, the same rows with predictions out.

An actor holds one runtime, opened once, with as many threads as the actor has CPUs. A batch of the data set goes
through `Runtime.stream`, so pictures are decoded while others are at work in the engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluinfer.artifact import read_artifact
from cluinfer.errors import CluinferError, EngineError, PictureError
from cluinfer.prediction import Prediction
from cluinfer.preprocess import open_bytes
from cluinfer.runtime import Failure, Runtime
from cluinfer.scale.columns import Columns, table

PICTURES = ("image", "bytes", "path", "item")  # as Ray's readers name them, the likeliest to be the pixels first
BATCH = 256  # the engine is idle for a moment between two batches of the data set: 1 % of the time in small ones


def predict_dataset(
    dataset: Any,
    model: str | os.PathLike[str],
    *,
    picture: str | None = None,
    columns: Columns | None = None,
    batch: int = BATCH,
    actors: int | tuple[int, int] | None = None,
    cpus: int = 1,
    gpus: float = 0,
    device: str | None = None,
) -> Any:
    """A `ray.data.Dataset` with a row for every row of this one: its columns, and those of `columns`.

    `picture`: the column with paths, with bytes (a file's content) or with uint8 arrays [height, width, channels]; by
    default image, bytes, path or item, whichever is there. The column itself stays only where it holds paths. A
    picture that cannot be served is a row with an `error`. `actors`: how many, or the fewest and the most; by default
    as many as the cluster has CPUs for. `cpus`, `gpus`: of one actor; where the data set is read by tasks, leave them a
    CPU. `model` and paths are opened by the actors: they must be there on every machine.
    """
    from ray.data import ActorPoolStrategy

    path = Path(model).absolute()
    columns = columns or Columns()
    columns.shown(read_artifact(path).manifest.promise)  # what is wrong is said here, not by an actor
    for name, number in (("batch", batch), ("cpus", cpus)):
        if not (isinstance(number, int) and number >= 1):
            raise EngineError(f"{name} must be a positive number, got {number!r:.60}")
    fewest, most = pool(actors, cpus)
    return dataset.map_batches(
        Predictor,
        fn_constructor_args=(path, columns, cpus, device, picture),
        batch_size=batch,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )


def pool(actors: int | tuple[int, int] | None, cpus: int) -> tuple[int, int]:
    """The fewest and the most actors."""
    if actors is None:
        import ray

        if not ray.is_initialized():
            return 1, 1
        return 1, max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)  # type: ignore[no-untyped-call]
    fewest, most = actors if isinstance(actors, tuple) else (actors, actors)
    if not 1 <= fewest <= most:
        raise EngineError(f"actors must be a positive number, or the fewest and the most, got {actors!r:.60}")
    return fewest, most


class Predictor:
    """What an actor is: made once, called with every batch."""

    def __init__(self, model: Path, columns: Columns, cpus: int, device: str | None, picture: str | None) -> None:
        self.runtime = Runtime(model, device, threads=cpus)
        self.columns = columns
        self.picture = picture

    def __call__(self, batch: Any) -> Any:
        """The rows of the batch, predicted."""
        column = self.picture or next((name for name in PICTURES if name in batch.column_names), None)
        if column is None or column not in batch.column_names:
            wanted = column or " or ".join(PICTURES)
            raise CluinferError(f"wanted a column {wanted} with pictures, there are {', '.join(batch.column_names)}")
        values, are_paths = pictures(batch.column(column))
        made = table(predicted(self.runtime, values), self.runtime.promise, self.columns)
        kept = batch if are_paths else batch.drop_columns([column])
        taken = [name for name in kept.column_names if name in made.column_names]
        if taken:
            raise CluinferError(f"the data set has a column {taken[0]} already, which predictions have too: rename it")
        for field in made.schema:
            kept = kept.append_column(field, made.column(field.name))
        return kept


def pictures(column: Any) -> tuple[list[Any], bool]:
    """What the rows hold, None for nothing; and whether they are paths."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.to_pylist(), True
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.to_pylist(), False
    rows = (each.as_py() for each in column)
    return [None if each is None else np.asarray(each) for each in rows], False


def predicted(runtime: Runtime, values: Sequence[Any]) -> Iterator[Prediction | str]:
    """In order, the prediction of each picture, or what is wrong with it."""
    opened = [_opened(value) for value in values]
    served = runtime.stream(each for each in opened if not isinstance(each, PictureError))
    for each in opened:
        made: Any = each if isinstance(each, PictureError) else next(served)
        made = made.error if isinstance(made, Failure) else made
        yield made if isinstance(made, Prediction) else str(made)


def _opened(value: Any) -> Any:
    """The picture as the runtime takes it, not decoded yet, or the error that says why there is none."""
    try:
        if value is None:
            raise PictureError("wanted a picture, found nothing in the row")
        return open_bytes(value) if isinstance(value, bytes) else value
    except PictureError as error:
        return error
