"""The artifact, a `.clu` file: a graph, what an engine made of it, and a manifest that says what they are.

- manifest.json: schema version, the graph's promise, what the engine was compiled for, the fidelity measured at build,
  size and sha256 of every other entry.
- graph.onnx: the graph itself, portable.
- engine.bin: the compiled graph, a cache that fits one kind of machine and one release; may be absent.

An artifact may come from anyone. `read_artifact` checks its structure, every field and every hash, and nothing in it is
ever executed or unpickled. `write_artifact` writes a temporary file beside the target, reads it back, and renames: a
build that is killed leaves no artifact, and its temporary file is removed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cluinfer.errors import ArtifactError, GraphError
from cluinfer.graph import Promise
from cluinfer.json_fields import Fields
from cluinfer.stored_zip import MAX_BYTES, Span, read_entries, write_entries

SCHEMA = 1
GRAPH, ENGINE, MANIFEST = "graph.onnx", "engine.bin", "manifest.json"
MAX_MANIFEST = 8 << 20  # 65,536 classes of 100 letters each fit
MAX_BATCH_PIXELS = 1 << 28  # of one call: 3 GiB, which a session pads its inputs to
_CHUNK = 1 << 20
_SOURCES = (".pt", ".pth", ".pt2", ".onnx", ".safetensors")  # what people may take for an artifact
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ][\d:.]{1,15}(Z|[+-]\d\d:\d\d)?)?")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.clu\.tmp")


@dataclass(frozen=True)
class Built:
    """What the engine was compiled for, with what, and where."""

    engine: str  # openvino, ort, trt
    precision: str  # fp32, bf16, fp16, int8
    hint: str  # latency, throughput
    batch: int
    versions: Mapping[str, str]  # of cluinfer, the engine's package, numpy, python
    machine: Mapping[str, str]  # system, architecture, cpu or gpu, isa
    created: str  # ISO date


@dataclass(frozen=True)
class Entry:
    """What the manifest says of another entry."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that an artifact says of itself."""

    promise: Promise
    built: Built
    fidelity: Mapping[str, Any] | None
    entries: Mapping[str, Entry]

    def to_json(self) -> str:
        """The content of manifest.json."""
        held = {
            "schema": SCHEMA,
            "promise": json.loads(self.promise.to_json()),
            "built": asdict(self.built),
            "fidelity": self.fidelity,
            "entries": {name: asdict(entry) for name, entry in self.entries.items()},
        }
        return json.dumps(held, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read manifest.json, refusing whatever is not as `to_json` writes it."""
        try:
            held = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
            return _Reader(held).manifest()
        except ValueError as error:
            raise ArtifactError(f"the manifest is not JSON: {error}") from error
        except RecursionError as error:
            raise ArtifactError("the manifest is nested too deeply") from error


@dataclass(frozen=True)
class Artifact:
    """An artifact that has been read and checked; its parts are read, and checked again, when asked for."""

    path: Path
    manifest: Manifest
    spans: Mapping[str, Span]

    def graph(self) -> bytes:
        """The ONNX graph."""
        return self._content(GRAPH)

    def engine(self) -> bytes | None:
        """The compiled graph, if there is one."""
        return self._content(ENGINE) if ENGINE in self.spans else None

    def _content(self, name: str) -> bytes:
        span = self.spans[name]
        with _explained(self.path), self.path.open("rb") as file:
            file.seek(span.start)
            content = file.read(span.size)
            if hashlib.sha256(content).hexdigest() != self.manifest.entries[name].sha256:
                raise ArtifactError("the file has changed since it was read; read it again")
            return content


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """The artifact in this file, checked throughout."""
    path = Path(path)
    with _explained(path):
        if not path.is_file():
            found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
            raise ArtifactError(f"wanted an artifact, which `cluinfer build` makes, found {found}")
        try:
            with path.open("rb") as file:
                return Artifact(path, *_read(file))
        except ArtifactError as error:
            if path.suffix in _SOURCES:
                raise ArtifactError(
                    "wanted an artifact; `cluinfer build` makes one of a file like this, if it is a model"
                ) from error
            raise


def write_artifact(
    path: str | os.PathLike[str],
    graph: bytes,
    engine: bytes | None,
    promise: Promise,
    built: Built,
    fidelity: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact whole or not at all; what was at `path` stays until it is replaced by a good one."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        wrong = "is a folder" if path.is_dir() else "its folder does not exist"
        raise ArtifactError(f"{path}: cannot write an artifact there: {wrong}")
    contents = {GRAPH: graph} if engine is None else {GRAPH: graph, ENGINE: engine}
    entries = {name: Entry(len(each), hashlib.sha256(each).hexdigest()) for name, each in contents.items()}
    try:
        manifest = Manifest(promise, built, fidelity, entries).to_json().encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: the fidelity cannot be written as JSON: {error}") from error
    if sum(map(len, contents.values())) + len(manifest) + _CHUNK > MAX_BYTES:
        raise ArtifactError(f"{path}: an artifact holds at most 2 GiB, this one is larger; leave the engine out")
    try:
        sweep(path.parent)
        with _temporary(path.parent) as (temporary, file):
            write_entries(file, {MANIFEST: manifest, **contents})
            file.flush()
            os.fsync(file.fileno())
            _read(file)  # a file that nobody could read must not replace one that works
            if sys.platform == "win32":
                file.close()  # an open file has its name for good there
            temporary.replace(path)
        _sync_folder(path.parent)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: what is to be written would not be readable: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise ArtifactError(f"{path}: cannot write an artifact there: {_reason(error)}") from error


def sweep(folder: Path) -> None:
    """Remove the temporary files of builds that were killed; those at work hold a lock on theirs."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():  # a pipe would be waited for
            try:
                if sys.platform == "win32":  # refuses to remove what is open
                    path.unlink()
                    continue
                with path.open("rb") as file:
                    if _lock(file, wait=False):
                        path.unlink()
            except OSError:  # another's, or already gone: not ours to report
                continue


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in the folder, locked for as long as it is written, and gone afterwards."""
    while True:
        path = folder / f".{uuid.uuid4().hex}.clu.tmp"
        file = path.open("x+b")
        try:
            _lock(file, wait=True)
            if path.exists():  # else another build has swept it before it was locked
                yield path, file
                return
        finally:
            file.close()
            path.unlink(missing_ok=True)


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Lock the file until it is closed or this process ends; false if another holds it, or where there are no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """The new name itself, on the disk; Windows has no such thing."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(file: BinaryIO) -> tuple[Manifest, dict[str, Span]]:
    """Check structure, manifest, names, sizes, hashes, in this order: a newer schema is named as such."""
    spans = read_entries(file)
    span = spans.pop(MANIFEST, None)
    if span is None:
        raise ArtifactError(f"a zip without {MANIFEST} is no artifact; `cluinfer build` makes one")
    if span.size > MAX_MANIFEST:
        raise ArtifactError(f"the manifest has {span.size} bytes, wanted at most {MAX_MANIFEST}")
    file.seek(span.start)
    text = file.read(span.size)
    if zlib.crc32(text) != span.crc:
        raise ArtifactError("the manifest is damaged: its checksum is wrong; copy or build it again")
    manifest = Manifest.from_json(text)
    if surplus := [name for name in spans if name not in (GRAPH, ENGINE)]:
        raise ArtifactError(f"the zip holds {surplus[0]!r:.60}, which no artifact holds")
    if manifest.entries.keys() != spans.keys() or GRAPH not in spans:
        listed, held = ", ".join(manifest.entries) or "nothing", ", ".join(spans) or "nothing"
        raise ArtifactError(f"the manifest lists {listed}, the zip holds {held}; copy or build it again")
    for name, entry in manifest.entries.items():
        if entry.bytes != spans[name].size:
            raise ArtifactError(f"{name} has {spans[name].size} bytes, the manifest says {entry.bytes}; build it again")
        if _sha256(file, spans[name]) != entry.sha256:
            raise ArtifactError(f"{name} is damaged or was changed: its sha256 is wrong; copy or build it again")
    return manifest, spans


def _sha256(file: BinaryIO, span: Span) -> str:
    digest = hashlib.sha256()
    file.seek(span.start)
    left = span.size
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


class _Reader(Fields):
    what = "the manifest"
    error = ArtifactError

    def manifest(self) -> Manifest:
        schema = self.number("schema", 1)
        if schema > SCHEMA:
            raise ArtifactError(
                f"the artifact has schema {schema}, this cluinfer reads up to {SCHEMA}; update cluinfer"
            )
        try:
            promise = Promise.from_json(json.dumps(self.take("promise", dict)))
        except GraphError as error:
            raise ArtifactError(f"the manifest is wrong: {error}") from error
        built = _Reader(self.take("built", dict), "built.").built()
        if built.batch * promise.size[0] * promise.size[1] > MAX_BATCH_PIXELS:
            raise self.wrong(f"built.batch = {built.batch} images are more than {MAX_BATCH_PIXELS} pixels")
        fidelity = None if self.held.get("fidelity", 0) is None else self.take("fidelity", dict)
        self.held.pop("fidelity", None)
        _check_plain(fidelity)
        entries = _Reader(self.take("entries", dict), "entries.")
        read = {name: entries.entry(name) for name in (GRAPH, ENGINE) if name in entries.held}
        entries.end()
        self.end()
        return Manifest(promise, built, fidelity, read)

    def built(self) -> Built:
        made = Built(
            engine=self.text("engine"),
            precision=self.text("precision"),
            hint=self.text("hint"),
            batch=self.number("batch", 1),
            versions=self.texts("versions"),
            machine=self.texts("machine"),
            created=self.text("created"),
        )
        self.end()
        if made.hint not in ("latency", "throughput"):
            raise self.wrong(f"built.hint must be latency or throughput, got {made.hint!r:.60}")
        if not _DATE.fullmatch(made.created):
            raise self.wrong(f"built.created must be an ISO date, got {made.created!r:.60}")
        return made

    def entry(self, name: str) -> Entry:
        inner = _Reader(self.take(name, dict), f"{self.path}{name}.")
        made = Entry(inner.number("bytes", 0, MAX_BYTES), inner.text("sha256"))
        inner.end()
        if not re.fullmatch(r"[0-9a-f]{64}", made.sha256):
            raise self.wrong(f"{inner.path}sha256 must be 64 hexadecimal digits, got {made.sha256!r:.60}")
        return made


def _check_plain(value: Any) -> None:
    """The fidelity is free, but it is shown: no text in it moves a cursor or paints, every number is one in JSON."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str) and not each.isprintable():
            raise ArtifactError(f"the manifest is wrong: fidelity holds {each!r:.60}, which is not plain text")
        if isinstance(each, int | float) and not abs(each) <= sys.float_info.max:  # 1e999 is read as infinity
            raise ArtifactError(f"the manifest is wrong: fidelity holds {each!r:.60}, which is no finite number")
        if isinstance(each, Mapping):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise ValueError("an object names a field twice")
    return held


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors begin with the path, on one line; those of the operating system are ours too."""
    name = str(path) if str(path).isprintable() else repr(str(path))
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{name}: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{name}: the file cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
