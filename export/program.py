"""Read a user's own model from a `torch.export.save`d `.pt2` file, which may come from anyone: nothing is executed.

torch.export.load is not safe with such a file: it unpickles, evaluates size expressions and guards as Python, looks
operators up by any name, and puts the graph's names into source code that it runs. So the file is taken apart and
checked here, and torch loads one that is written anew from the parts that are known to be harmless.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import cluinfer.export.torch_ops  # noqa: F401 - registers the operators that a program may call
from cluinfer.errors import CheckpointError
from cluinfer.export.pt2.archive import (
    CONSTANT,
    CONSTANTS,
    MODEL,
    WEIGHT,
    WEIGHTS,
    read_entries,
    write_archive,
)
from cluinfer.export.pt2.check import WrongError, show
from cluinfer.export.pt2.document import parse, read_document
from cluinfer.export.pt2.tensors import check_against_graph, read_payloads

LARGEST = 2**31  # bytes of a file; it is held in memory thrice


def read_program(path: str | Path) -> torch.export.ExportedProgram:
    """The program: one float32 image [batch, 3, height, width] in, logits [batch, classes] out."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: wanted a .pt2 file, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)  # once: nothing can change it between a check and its use
    except OSError as error:
        raise CheckpointError(f"{path}: the file cannot be read ({error.strerror})") from error
    try:
        if torch.torch_version.TorchVersion(torch.__version__) < "2.9":
            raise WrongError(f"torch {torch.__version__} cannot load programs without pickles; install a later version")
        if len(data) > LARGEST:
            raise WrongError(f"larger than {LARGEST >> 30} GiB, which is not read from a file")
        if not data.startswith(b"PK"):
            raise WrongError("the file is empty" if not data else "not a torch.export program (no zip file)")
        return _read(data)
    except WrongError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # torch's readers fail in any way for what is well-formed but makes no sense
        raise CheckpointError(
            f"{path}: torch {torch.__version__} cannot read this program ({_line(error)}); if it was saved by another "
            "version, export it again with this one"
        ) from error


def _read(data: bytes) -> torch.export.ExportedProgram:
    held = read_entries(data)
    model = read_document(held[MODEL])
    lists = []
    for name, folder, prefix in ((WEIGHTS, WEIGHT, "weight_"), (CONSTANTS, CONSTANT, "tensor_")):
        files = {entry.removeprefix(folder): held[entry] for entry in held if entry.startswith(folder + prefix)}
        lists.append(read_payloads(parse(held[name], name), files, prefix, name))
    weights, constants = lists
    check_against_graph(model["graph_module"], weights, constants)
    with _quiet() as remarks:
        try:
            return torch.export.load(write_archive(model, weights, constants, held))
        except Exception as error:
            raise remarks.cause or error  # noqa: B904 - torch logs what is wrong, and raises that it logged something


def _line(error: BaseException) -> str:
    """The last line of an error's message, where torch puts the cause, cut where it grows long."""
    lines = str(error).strip().splitlines()
    return show((lines[-1] if lines else type(error).__name__)[:160])


class _Remarks(logging.Filter):
    """Keeps torch's remarks on the file from the user, but remembers the exception among them."""

    cause: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            self.cause = record.exc_info[1]
        return False


@contextmanager
def _quiet() -> Iterator[_Remarks]:
    """Keep torch's warnings about the file to itself: an error says what counts."""
    remarks, parts = _Remarks(), logging.getLogger("torch._export")
    load, level = logging.getLogger("torch.export"), parts.level
    try:
        load.addFilter(remarks)
        parts.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield remarks
    finally:
        load.removeFilter(remarks)
        parts.setLevel(level)
