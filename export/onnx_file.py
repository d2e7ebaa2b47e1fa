"""ONNX files: read one that may come from anyone, write one whole or not at all.

Reading refuses, with one line that says why: no file, more than 2 GiB, data that is not ONNX, weights kept outside
the model's folder, and everything that `onnx_checks` refuses. What it returns holds all its weights itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from cluinfer.artifact import Artifact
from cluinfer.errors import GraphError
from cluinfer.export.onnx_checks import check_model, read_promise
from cluinfer.export.onnx_parts import MAX_BYTES, check_text, name_of, size_in_bytes, tensors
from cluinfer.whole import whole_file

__all__ = ["read_graph", "read_onnx", "read_promise", "write_onnx"]


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """The model of an ONNX file, checked throughout, with its external weights taken in."""
    path = Path(path)
    with _explained(path):
        return _checked(_content(path), path.parent)


def read_graph(artifact: Artifact) -> onnx.ModelProto:
    """The model that an artifact was compiled from, checked in the same way."""
    with _explained(artifact.path):
        return _checked(artifact.graph(), None)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except DecodeError as error:
        raise GraphError(f"{path}: not an ONNX file, or truncated or damaged; copy or export it again") from error
    except GraphError as error:
        raise GraphError(f"{path}: {' '.join(str(error).split())}") from error


def _checked(content: bytes, folder: Path | None) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(content)
    check_text(model)
    if folder is not None:
        _take_in_weights(model, folder)
    check_model(model)
    return model


def write_onnx(model: onnx.ModelProto, path: str | Path) -> None:
    """Write the model to `path`, which is never there half-written."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        wrong = "is a folder" if path.is_dir() else "its folder does not exist"
        raise GraphError(f"{path}: cannot write an ONNX file there: {wrong}")
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise GraphError(f"{path}: an ONNX file holds at most 2 GiB, this model is larger") from error
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise GraphError(f"{path}: cannot write an ONNX file there: {error.strerror}") from error


def _content(path: Path) -> bytes:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
        raise GraphError(f"wanted an ONNX file, found {found}")
    size = path.stat().st_size
    if size == 0:
        raise GraphError("the file is empty; copy or export it again")
    if size > MAX_BYTES:
        raise GraphError("the file is larger than 2 GiB, which no ONNX file is; keep its weights in a file beside it")
    try:
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"the file cannot be read: {error.strerror}") from error


def _take_in_weights(model: onnx.ModelProto, folder: Path) -> None:
    """Read the weights that the file keeps beside itself."""
    total = 0
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        size = size_in_bytes(tensor)
        total += size
        if total > MAX_BYTES:
            raise GraphError("its weights are larger than 2 GiB together, more than an engine takes in")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            tensor.raw_data = _read_part(entries, folder, size)
        except GraphError as error:
            raise GraphError(f"tensor {name_of(tensor.name)} lies in another file: {error}") from error
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _read_part(entries: dict[str, str], folder: Path, size: int) -> bytes:
    location = entries.get("location", "")
    shown = name_of(location)
    parts = re.split(r"[/\\]", location)
    if not location or "\0" in location:
        raise GraphError("it does not say which; export it again")
    if parts[0] == "" or ":" in parts[0]:
        raise GraphError(f"{shown} is an absolute path; weights must lie in the model's folder")
    if ".." in parts:
        raise GraphError(f"{shown} leaves the model's folder; weights must lie in it")
    path = folder / location
    try:
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            raise GraphError(f"{shown} is a link that leaves the model's folder; weights must lie in it")
        if not real.is_file():
            raise GraphError(f"{shown} is not there; copy it beside the model")
        with real.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise GraphError(f"{shown} is not a plain file")
            offset, length = (_number(entries, key, default) for key, default in (("offset", 0), ("length", size)))
            if length != size:
                raise GraphError(f"it declares {size} bytes but keeps {length} there; export it again")
            if offset + length > status.st_size:
                raise GraphError(
                    f"{shown} has {status.st_size} bytes, wanted {length} from {offset} on; copy or export it again"
                )
            file.seek(offset)
            return file.read(length)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise GraphError(f"{shown} cannot be read ({error})") from error


def _number(entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise GraphError(f"its {key} is {text[:40]!r}, wanted a number of bytes; export it again")
    return int(text)
