"""What a user points at to export or build: a checkpoint or a program in, and where the result goes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cluinfer.errors import ArchError, CluinferError
from cluinfer.export.load import load_model
from cluinfer.export.program import read_program

PROGRAM = ".pt2"


def read_model(
    path: str | Path, arch: str | None = None, **overrides: object
) -> nn.Module | torch.export.ExportedProgram:
    """The model of a checkpoint as `load_model` gives it, or the program of a `.pt2`."""
    if Path(path).suffix != PROGRAM:
        return load_model(path, arch, **overrides)
    if arch or overrides:
        raise ArchError("--arch and --set are for checkpoints; a .pt2 program has its architecture in it")
    return read_program(path)


def output_path(source: str | Path, output: str | Path | None, suffix: str) -> Path:
    """Where to write what `source` becomes: beside it by default, and never over it."""
    source = Path(source)
    if not source.is_file():
        raise CluinferError(f"{source}: wanted a checkpoint file, found {'a folder' if source.is_dir() else 'nothing'}")
    target = Path(output or source.with_suffix(suffix))
    if target.is_dir() or not target.parent.is_dir() or target.resolve() == source.resolve():
        raise CluinferError(f"-o {target}: wanted the name of a file to write, in a folder that exists, not {source}")
    return target
