"""`cluinfer predict --ray`: pictures to a folder of Parquet files, on Ray."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluinfer.errors import CluinferError, EngineError, one_line

if TYPE_CHECKING:
    from cluinfer.scale import Columns, Summary

LOCAL = "local"
_STORE = 256 << 20  # bytes of a local cluster's shared memory: only lists of paths pass through it


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    group = parser.add_argument_group("on Ray")
    group.add_argument(
        "--ray", nargs="?", const=LOCAL, metavar="ADDRESS", help="predict on this Ray cluster; alone: one started here"
    )
    group.add_argument("-o", "--output", metavar="FOLDER", help="folder for Parquet files; those that it has stay")
    group.add_argument("--columns", metavar="LIST", help="what to keep, of logits, maps, evidence, none (maps)")
    group.add_argument("--rows", type=int, metavar="N", help="pictures a file (1024)")
    group.add_argument("--gpus", type=float, default=0, metavar="N", help="of an actor (0); its CPUs are --threads")


def run(arguments: argparse.Namespace) -> int:
    """Predict; a picture that cannot be served is a row with an error, and shows in the exit code."""
    from cluinfer.commands.terminal import DONE, FAULTY, print_json
    from cluinfer.commands.texts import count
    from cluinfer.engines.hardware import cores
    from cluinfer.picture_files import find_pictures
    from cluinfer.scale.files import ROWS, predict_files

    if arguments.output is None:
        raise CluinferError("--ray writes Parquet files: say where, with -o FOLDER")
    for name in ("report", "overlay", "show", "against", "batch"):
        if getattr(arguments, name) is not None:
            raise CluinferError(f"--{name} does not go with --ray: predict a few of the pictures without it")
    columns = _columns(arguments)
    pictures = find_pictures(arguments.pictures)
    with cluster(arguments.ray):
        done = predict_files(
            pictures,
            arguments.model,
            arguments.output,
            columns=columns,
            rows=ROWS if arguments.rows is None else arguments.rows,
            cpus=arguments.threads or min(4, cores()),
            gpus=arguments.gpus,
            progress=_show,
        )
    if arguments.json:
        print_json({"folder": arguments.output, "files": done.done, "predicted": done.rows, "failed": done.failed})
    else:
        said = f", {done.failed} not served" if done.failed else ""
        print(f"{arguments.output}: {count(done.done, 'file')}; {count(done.rows, 'picture')} predicted{said}")
    return FAULTY if done.failed else DONE


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connected to a cluster, which ends with this if it was begun here; one that is connected already is taken."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked whether he wants to report
    import logging

    import ray
    from ray.data import DataContext

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Workers import from the folder that one connects in, before any other; here from an empty one. Pictures may lie
    # beside a numpy.py of anyone, and a checkout's cluinfer has no native operators.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        try:
            with _standing_in(empty):
                if address == LOCAL:
                    ray.init(address=LOCAL, include_dashboard=False, object_store_memory=_STORE, **quiet)
                else:
                    ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise EngineError(f"--ray {address}: no Ray cluster there: {one_line(str(error))}") from error
        try:
            DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _standing_in(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _columns(arguments: argparse.Namespace) -> Columns:
    from cluinfer.scale import Columns

    asked = "maps" if arguments.columns is None else arguments.columns
    names = [name.strip() for name in asked.split(",")]
    known = ("logits", "maps", "evidence", "none")
    if wrong := [name for name in names if name not in known]:
        raise CluinferError(f"--columns {wrong[0]}: wanted {', '.join(known)}")
    return Columns(arguments.top, "logits" in names, None if "maps" in names else (), "evidence" in names)


def _show(summary: Summary) -> None:
    failed = f", {summary.failed} not served" if summary.failed else ""
    print(f"{summary.done} of {summary.parts} files, {summary.rows} pictures{failed}", file=sys.stderr, flush=True)
