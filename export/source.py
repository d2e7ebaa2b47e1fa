"""What a user points at to export or build: a model in, where the result goes, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import nn

from cluinfer.artifact import read_artifact
from cluinfer.engines import Array
from cluinfer.errors import ArchError, CluinferError, GraphError
from cluinfer.export.load import load_model
from cluinfer.export.onnx_file import read_graph, read_onnx, read_promise
from cluinfer.export.program import read_program
from cluinfer.export.reference import reference_outputs
from cluinfer.export.to_onnx import Size, to_onnx
from cluinfer.export.verify import GraphRun, Outputs, Reference
from cluinfer.graph import Promise

PROGRAM, GRAPH, ARTIFACT = ".pt2", ".onnx", ".clu"


@dataclass(frozen=True)
class Source:
    """A graph to be compiled, and what tells whether that went well."""

    content: bytes
    promise: Promise
    reference: Reference
    name: str  # of the reference


def read_model(
    path: str | Path, arch: str | None = None, **overrides: object
) -> nn.Module | torch.export.ExportedProgram:
    """The model of a checkpoint as `load_model` gives it, or the program of a `.pt2`."""
    if Path(path).suffix != PROGRAM:
        return load_model(path, arch, **overrides)
    if arch or overrides:
        raise ArchError("--arch and --set are for checkpoints; a .pt2 program has its architecture in it")
    return read_program(path)


def read_source(
    path: str | Path,
    arch: str | None = None,
    overrides: Mapping[str, object] | None = None,
    size: Size | None = None,
    maps: str | Sequence[str] | None = None,
    evidence: int | None = None,
    attention: Sequence[int] | None = None,
    names: Sequence[str] = (),
    similarities: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Source:
    """The graph of a checkpoint or program, as `to_onnx` makes it with these options, or of an ONNX file as it is.

    That of an artifact is its graph. A checkpoint is the reference of its graph; all others have none but the graph in
    ONNX Runtime.
    """
    progress(f"reading {path}")
    if Path(path).suffix in (GRAPH, ARTIFACT):
        shown = maps is not None or evidence is not None or similarities or attention
        if arch or overrides or size or shown or names:
            raise GraphError(f"{path}: a graph already; what it shows was chosen when it was exported")
        return _of_graph(read_onnx(path) if Path(path).suffix == GRAPH else read_graph(read_artifact(path)), path)
    module = read_model(path, arch, **(overrides or {}))
    proto = to_onnx(
        module,
        size,
        "stages" if maps is None else maps,
        evidence or 0,
        attention=attention,
        names=names,
        similarities=similarities,
        progress=progress,
    )
    promise = read_promise(proto)
    if isinstance(module, torch.export.ExportedProgram) or promise is None:
        return _of_graph(proto, path)
    reference = partial(reference_outputs, module, promise)
    return Source(proto.SerializeToString(), promise, reference, f"{Path(path).name} in PyTorch")


def _of_graph(proto: onnx.ModelProto, path: str | Path) -> Source:
    run = GraphRun(proto, path)

    def reference(images: Array, classes: Outputs) -> tuple[Outputs, Outputs]:
        return run(images), {}

    return Source(proto.SerializeToString(), run.promise, reference, f"the graph of {Path(path).name} in ONNX Runtime")


def output_path(source: str | Path, output: str | Path | None, suffix: str) -> Path:
    """Where to write what `source` becomes: beside it by default, and never over it."""
    source = Path(source)
    if not source.is_file():
        raise CluinferError(f"{source}: wanted a checkpoint file, found {'a folder' if source.is_dir() else 'nothing'}")
    target = Path(output or source.with_suffix(suffix))
    wrong = {
        "this is a folder": target.is_dir(),
        "its folder does not exist": not target.parent.is_dir(),
        "this is what is read": target.resolve() == source.resolve(),
    }
    for what, is_so in wrong.items():
        if is_so:
            raise CluinferError(f"-o {target}: wanted the name of a file to write, but {what}")
    return target
