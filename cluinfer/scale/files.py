"""Millions of picture files to a folder of Parquet files, by Ray's actors; what is finished is not done again.

- The list of pictures is cut into parts of `rows`; part i becomes part-<i>.parquet, in the order of the list. Any
  reader takes the folder as one table.
- An actor writes its part itself, under a temporary name that is renamed: a file is whole or not there. So neither
  pictures nor results pass through Ray's memory, and the folder must be the same one on every machine.
- _job.json says what the files are of: artifact, list, columns. A folder of another job is refused.
- An actor that dies is replaced by Ray, which gives its parts to another; a part is a function of the job alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluinfer.artifact import read_artifact
from cluinfer.errors import CluinferError, EngineError, one_line
from cluinfer.runtime import Runtime
from cluinfer.scale.columns import ERROR, Columns, table
from cluinfer.scale.dataset import pool, predicted
from cluinfer.whole import whole_file

JOB = "_job.json"  # readers of a folder of Parquet files leave out what begins with an underscore or a dot
ROWS = 1024
_TEMPORARY = (".part-", f".{JOB}.")  # how `whole_file` begins the names of what a killed job leaves


@dataclass(frozen=True)
class Summary:
    """What a folder holds, or holds so far."""

    parts: int
    done: int  # parts that are there
    rows: int  # of those made in this run
    failed: int  # of these, how many pictures could not be served


def predict_files(
    paths: Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    columns: Columns | None = None,
    rows: int = ROWS,
    actors: int | tuple[int, int] | None = None,
    cpus: int = 1,
    gpus: float = 0,
    device: str | None = None,
    progress: Callable[[Summary], None] | None = None,
) -> Summary:
    """Predict these files into `folder`, but for the parts that it holds already; what is meant by the rest is in
    `predict_dataset`. `progress`: called after every part.
    """
    import ray

    model, folder, columns = Path(model).absolute(), Path(folder).absolute(), columns or Columns()
    if not paths or not (isinstance(rows, int) and rows >= 1):
        raise EngineError(f"wanted pictures and a positive number of rows a file, got {len(paths)} and {rows!r:.60}")
    manifest = read_artifact(model).manifest
    columns.shown(manifest.promise)
    names = [os.path.abspath(each) for each in paths]  # noqa: PTH100 - a Path each would be most of the memory
    job = {
        "version": 1,
        "model": hashlib.sha256(manifest.to_json().encode()).hexdigest(),
        "pictures": hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest(),
        "columns": columns.to_dict(),
        "rows": rows,
    }
    _claim(folder, json.loads(json.dumps(job)))
    parts = [names[start : start + rows] for start in range(0, len(names), rows)]
    waiting = [(i, part) for i, part in enumerate(parts) if not (folder / part_name(i)).exists()]
    summary = Summary(len(parts), len(parts) - len(waiting), 0, 0)
    if not waiting:
        return summary
    fewest, most = pool(actors, cpus)
    made = ray.data.from_items(
        [{"part": i, "paths": part} for i, part in waiting], override_num_blocks=min(len(waiting), 1000)
    ).map_batches(
        PartWriter,
        fn_constructor_args=(model, folder, columns, cpus, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    try:
        for row in made.iter_rows():
            done, count, failed = summary.done + 1, int(row["rows"]), int(row["failed"])
            summary = Summary(len(parts), done, summary.rows + count, summary.failed + failed)
            if progress is not None:
                progress(summary)
    except ray.exceptions.RayError as error:
        raise EngineError(f"{folder}: the job failed, finished files stay: {one_line(_last_line(error))}") from error
    return summary


def part_name(index: int) -> str:
    """Of a part's file."""
    return f"part-{index:06}.parquet"


class PartWriter:
    """What an actor is: made once, called with every part."""

    def __init__(self, model: Path, folder: Path, columns: Columns, cpus: int, device: str | None) -> None:
        self.runtime = Runtime(model, device, threads=cpus)
        self.folder = folder
        self.columns = columns

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Write the parts of the batch, one as a rule; what became of each."""
        counts = [
            self.write(int(i), [str(path) for path in paths])
            for i, paths in zip(batch["part"], batch["paths"], strict=True)
        ]
        rows, failed = zip(*counts, strict=True)
        return {"part": [int(i) for i in batch["part"]], "rows": list(rows), "failed": list(failed)}

    def write(self, index: int, paths: list[str]) -> tuple[int, int]:
        """One file; how many rows it has, and how many with an error."""
        import pyarrow as pa
        from pyarrow import parquet

        target = self.folder / part_name(index)
        if target.exists():  # written by an actor that died before it could say so
            errors = parquet.read_table(target, columns=[ERROR]).column(ERROR)
            return len(errors), len(errors) - errors.null_count
        made = table(predicted(self.runtime, paths), self.runtime.promise, self.columns)
        errors = made.column(ERROR)
        named = made.add_column(0, pa.field("path", pa.string()), pa.array(map(_text, paths), pa.string()))
        with whole_file(target) as file:
            parquet.write_table(named, file, compression="zstd")
        return len(errors), len(errors) - errors.null_count


def _text(path: str) -> str:
    """A path as text that Arrow holds: bytes that are no UTF-8 as escapes."""
    return path.encode(errors="backslashreplace").decode()


def _claim(folder: Path, job: dict[str, Any]) -> None:
    """Make the folder this job's, or find that it is; temporary files of killed actors go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(each.name for each in folder.iterdir())
        if JOB in there:
            _check_same(folder, job)
            for name in there:
                if name.startswith(_TEMPORARY):
                    (folder / name).unlink(missing_ok=True)
            return
        if foreign := [name for name in there if not name.startswith(_TEMPORARY)]:
            raise CluinferError(
                f"{folder}: holds {foreign[0]!r:.60}, which is not of a job of ours: name another folder"
            )
        with whole_file(folder / JOB) as file:
            file.write(json.dumps(job).encode())
    except OSError as error:
        raise CluinferError(f"{folder}: wanted a folder to write to: {error.strerror}") from error


def _check_same(folder: Path, job: dict[str, Any]) -> None:
    try:
        held = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CluinferError(f"{folder / JOB}: is not JSON, so what the folder holds is unknown: remove it") from error
    differing = [name for name in job if not isinstance(held, dict) or held.get(name) != job[name]]
    if differing:
        raise CluinferError(
            f"{folder}: holds another job, of other {', '.join(differing)}: name another folder, or remove this one"
        )


def _last_line(error: BaseException) -> str:
    """What happened in the actor, without its traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
