"""The artifact: what is written comes back, and every way in which a file can be wrong has its message."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluinfer import artifact as module
from cluinfer import stored_zip
from cluinfer.artifact import ENGINE, GRAPH, MANIFEST, Built, Entry, read_artifact, write_artifact
from cluinfer.errors import ArtifactError
from cluinfer.graph import ClusterOutput, Promise

GRAPH_BYTES, ENGINE_BYTES = b"a graph" * 100, b"\0compiled\xff" * 50
PROMISE = Promise(
    "fec_small", "fec", (32, 48), 2, ("cat", "dog"), maps=(ClusterOutput("l", "stage1", False, 1, 1, *[(1, 1)] * 3),)
)
BUILT = Built(
    "openvino", "fp32", "latency", 4, {"cluinfer": "0.1.0"}, {"system": "Linux", "cpu": "A CPU"}, "2026-01-31"
)
FIDELITY = {"images": 3, "maps": {"clusters/l": {"agreement": 0.5}}, "failures": ["none"], "more": None}
BUILD_AGAIN = "copy or build it again"


def write(path: Path, engine: bytes | None = ENGINE_BYTES, **changed: Any) -> Path:
    write_artifact(path, GRAPH_BYTES, engine, PROMISE, replace(BUILT, **changed), FIDELITY)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "model.clu")


def refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        read_artifact(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    return message.removeprefix(f"{path}: ")


# --- what is right


def test_round_trip(path: Path) -> None:
    read = read_artifact(str(path))
    assert (read.path, read.graph(), read.engine()) == (path, GRAPH_BYTES, ENGINE_BYTES)
    manifest = read.manifest
    assert (manifest.promise, manifest.built, manifest.fidelity) == (PROMISE, BUILT, FIDELITY)
    digest = hashlib.sha256(ENGINE_BYTES).hexdigest()
    assert manifest.entries[ENGINE] == Entry(len(ENGINE_BYTES), digest)
    assert list(manifest.entries) == [GRAPH, ENGINE]


def test_without_engine_and_fidelity(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.clu", GRAPH_BYTES, None, PROMISE, BUILT)
    read = read_artifact(tmp_path / "a.clu")
    assert (read.engine(), read.graph(), read.manifest.fidelity) == (None, GRAPH_BYTES, None)
    assert set(read.manifest.entries) == {GRAPH}


def test_any_unzip_reads_it(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST, GRAPH, ENGINE]
        assert archive.read(GRAPH) == GRAPH_BYTES
        assert json.loads(archive.read(MANIFEST))["schema"] == 1


def test_the_same_content_gives_the_same_bytes(path: Path) -> None:
    assert path.read_bytes() == write(path.with_name("other.clu")).read_bytes()


@pytest.mark.parametrize("created", ["2026-01-31", "2026-01-31T10:00:00Z", "2026-01-31 10:00:00.123456+02:00"])
def test_dates(tmp_path: Path, created: str) -> None:
    assert read_artifact(write(tmp_path / "a.clu", created=created)).manifest.built.created == created


def test_extra_fields_of_another_zip_tool_are_read_over(path: Path) -> None:
    """As `zip -0` writes them: times and owners."""
    extra = struct.pack("<HHL", 0x7875, 4, 7)
    repack(path, lambda info, _: setattr(info, "extra", extra))
    assert read_artifact(path).engine() == ENGINE_BYTES


# --- no artifact at all


def test_nothing_a_folder_and_a_device(tmp_path: Path) -> None:
    wanted = "wanted an artifact, which `cluinfer build` makes, found "
    assert refused(tmp_path / "none.clu") == f"{wanted}nothing"
    assert refused(tmp_path) == f"{wanted}a folder"
    if Path("/dev/null").exists():
        assert refused(Path("/dev/null")) == f"{wanted}something else"


def test_a_name_of_two_lines(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as error:
        read_artifact(tmp_path / "a\n\x1b[2Jb.clu")
    assert str(error.value).startswith(f"'{tmp_path}/a\\n\\x1b[2Jb.clu': wanted an artifact, ")


def test_a_file_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(path) == "the file cannot be read: Permission denied"


NO_ZIP = f"not an artifact, or truncated, or with data behind its end; {BUILD_AGAIN}"


@pytest.mark.parametrize("content", [b"", b"x" * 21, b"no zip" * 1000, b"PK\3\4" + bytes(100)])
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.clu"
    path.write_bytes(content)
    assert refused(path) == NO_ZIP


def test_truncated_anywhere(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert refused(path) == NO_ZIP


def test_any_changed_byte_is_noticed_or_means_nothing(path: Path) -> None:
    """Times, permissions and versions of the zip mean nothing; whatever is read stays the same."""
    whole = path.read_bytes()
    want = read_artifact(path).manifest
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read = read_artifact(path)
        except ArtifactError:
            continue
        assert (read.manifest, read.graph(), read.engine()) == (want, GRAPH_BYTES, ENGINE_BYTES)


# --- the zip


def repack(path: Path, change: Callable[[zipfile.ZipInfo, dict[str, bytes]], Any], **options: Any) -> None:
    """Write the same entries with Python's zipfile, each entry's description changed first."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in list(contents):
            info = zipfile.ZipInfo(name)
            change(info, contents)
            archive.writestr(info, contents[name])


def add(path: Path, name: str, content: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)


def patched(path: Path, where: int, format: str, *values: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(format, content, where, *values)
    path.write_bytes(content)


def directory(path: Path) -> int:
    """Where the zip's directory begins."""
    (start,) = struct.unpack("<L", path.read_bytes()[-6:-2])
    return int(start)


def test_a_bomb(path: Path) -> None:
    add(path, "bomb")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    assert refused(path) == "entry 'zeros' is compressed, encrypted or streamed; an artifact's are stored"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed(path: Path, method: int) -> None:
    repack(path, lambda info, _: setattr(info, "compress_type", method))
    assert refused(path) == f"entry '{MANIFEST}' is compressed, encrypted or streamed; an artifact's are stored"


def test_encrypted(path: Path) -> None:
    patched(path, directory(path) + 8, "<H", 1)
    assert refused(path) == f"entry '{MANIFEST}' is compressed, encrypted or streamed; an artifact's are stored"


def test_a_size_that_is_not_the_stored_one(path: Path) -> None:
    patched(path, directory(path) + 24, "<L", 10**9)
    assert refused(path) == f"entry '{MANIFEST}' is compressed, encrypted or streamed; an artifact's are stored"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\evil", "C:\\evil", "sub/graph.onnx", "GRAPH.ONNX", "\u202emk.exe"]
)
def test_names_that_no_artifact_holds(path: Path, name: str) -> None:
    add(path, name)
    assert refused(path) == f"the zip holds {name!r}, which no artifact holds"


def test_a_name_is_cut_and_shown_plainly(path: Path) -> None:
    add(path, "\x1b[2J" + "x" * 1000)
    assert refused(path) == "the zip holds " + repr("\x1b[2J" + "x" * 1000)[:60] + ", which no artifact holds"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [MANIFEST, GRAPH, "other"])
def test_a_name_twice(path: Path, name: str) -> None:
    add(path, name)
    if name == "other":
        add(path, name)
    assert refused(path) == f"the zip holds '{name}' twice"


def test_overlapping_entries(path: Path) -> None:
    """Two records that point to one content: how a bomb of stored entries is made."""
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0].header_offset
    size = len(MANIFEST) + 46
    patched(path, directory(path) + size + 42, "<L", first)
    assert refused(path) == f"entry '{GRAPH}' does not begin where the one before it ends; build it again"


def test_data_before_the_entries(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert refused(path) == f"the zip's directory does not lie where it says; {BUILD_AGAIN}"
    path.write_bytes(path.read_bytes()[10:])
    add(path, "before", b"#!/bin/sh\n")
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    assert infos[-1].filename == "before"
    patched(path, directory(path) + 42, "<L", infos[-1].header_offset)
    assert refused(path) == f"entry '{MANIFEST}' does not begin where the one before it ends; build it again"


def test_data_behind_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")
    assert refused(path) == NO_ZIP


def test_a_comment(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hidden" * 20
    assert refused(path) == NO_ZIP


def test_data_between_entries_and_directory(path: Path) -> None:
    whole, start = path.read_bytes(), directory(path)
    path.write_bytes(whole[:start] + b"hidden" + whole[start:])
    patched(path, len(whole), "<L", start + 6)
    assert refused(path) == "the zip holds data that belongs to no entry; build it again"


def test_fewer_entries_than_the_directory_holds(path: Path) -> None:
    patched(path, len(path.read_bytes()) - 14, "<HH", 2, 2)
    assert refused(path) == "the zip holds data that belongs to no entry; build it again"


def test_more_entries_than_the_directory_holds(path: Path) -> None:
    patched(path, len(path.read_bytes()) - 14, "<HH", 9, 9)
    assert refused(path) == f"the zip's directory ends too early; {BUILD_AGAIN}"


def test_several_disks(path: Path) -> None:
    patched(path, len(path.read_bytes()) - 18, "<H", 1)
    assert refused(path) == f"the zip's directory does not lie where it says; {BUILD_AGAIN}"


def test_a_directory_without_end(path: Path) -> None:
    for i in range(100):
        add(path, f"{i}")
    size = struct.unpack("<L", path.read_bytes()[-10:-6])[0]
    assert refused(path) == f"the zip's directory has {size} bytes, wanted at most 4096"


@pytest.mark.parametrize("offset", [0, 32])  # the mark; a comment of the entry
def test_a_damaged_directory(path: Path, offset: int) -> None:
    patched(path, directory(path) + offset, "<H", 1)
    assert refused(path) == f"the zip's directory is damaged; {BUILD_AGAIN}"


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (6, 1), (8, 8), (14, 0), (18, 1), (22, 1), (26, 3), (30, 0)])
def test_a_header_that_contradicts_the_directory(path: Path, offset: int, value: int) -> None:
    patched(path, offset, "<H", value)
    assert refused(path) == f"entry '{MANIFEST}' is not what the zip's directory says; {BUILD_AGAIN}"


def test_an_entry_outside_the_file(path: Path) -> None:
    """A first entry of four billion bytes puts the second one there."""
    start, size = directory(path), 0xFFFF0000
    patched(path, 18, "<LL", size, size)
    patched(path, start + 20, "<LL", size, size)
    patched(path, start + 46 + len(MANIFEST) + 42, "<L", 30 + len(MANIFEST) + size)
    assert refused(path) == f"entry '{GRAPH}' lies outside the file; {BUILD_AGAIN}"


def test_a_file_of_more_than_2_gib(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 31)  # a hole: it takes no room
    assert refused(path) == "the file is larger than 2 GiB, which no artifact is"


# --- the manifest


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any] | bytes) -> None:
    """Replace the manifest: by these bytes, or by what the function makes of it."""

    def replaced(info: zipfile.ZipInfo, contents: dict[str, bytes]) -> None:
        if info.filename != MANIFEST:
            return
        if isinstance(change, bytes):
            contents[MANIFEST] = change
        else:
            held = json.loads(contents[MANIFEST])
            change(held)
            contents[MANIFEST] = json.dumps(held).encode()

    repack(path, replaced)


def test_no_manifest(path: Path) -> None:
    repack(path, lambda info, _: setattr(info, "filename", info.filename.replace("manifest", "other")))
    assert refused(path) == f"a zip without {MANIFEST} is no artifact; `cluinfer build` makes one"


def test_a_manifest_that_is_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(path, bytes(module.MAX_MANIFEST + 1))
    assert refused(path) == f"the manifest has {module.MAX_MANIFEST + 1} bytes, wanted at most {module.MAX_MANIFEST}"


def test_a_damaged_manifest(path: Path) -> None:
    patched(path, 60, "<B", 0)
    assert refused(path) == f"the manifest is damaged: its checksum is wrong; {BUILD_AGAIN}"


NOT_JSON = [
    (b"", "Expecting value: line 1 column 1 (char 0)"),
    (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b'{"schema": 1, "schema": 1}', "an object names a field twice"),
    (b'{"schema": NaN}', "NaN is no number in JSON"),
    (b'{"schema": -Infinity}', "-Infinity is no number in JSON"),
    (b"\xff\xfe\xfd", "'utf-16-le' codec can't decode byte 0xfd in position 2: truncated data"),
]


@pytest.mark.parametrize(("text", "message"), NOT_JSON)
def test_a_manifest_that_is_no_json(path: Path, text: bytes, message: str) -> None:
    rewritten(path, text)
    assert refused(path) == f"the manifest is not JSON: {message}"


@pytest.mark.parametrize("depth", [100_000, 900])
@pytest.mark.parametrize("start", [b"", b'{"schema": 1, "promise": {"a": ', b'{"schema": '])
def test_nesting_without_end(path: Path, start: bytes, depth: int) -> None:
    rewritten(path, start + b"[" * depth + b"]" * depth + b"}" * start.count(b"{"))
    message = refused(path)
    assert message == "the manifest is nested too deeply" or message.startswith("the manifest is wrong: ")


def test_a_newer_schema_is_named_before_anything_else(path: Path) -> None:
    add(path, "weights.bin")
    rewritten(path, b'{"schema": 2, "other": []}')
    assert refused(path) == "the artifact has schema 2, this cluinfer reads up to 1; update cluinfer"


MISSING = object()
WRONG: list[tuple[str, Any, str]] = [
    ("schema", MISSING, "schema must be int, got None"),
    ("schema", "1", "schema must be int, got '1'"),
    ("schema", True, "schema must be int, got True"),
    ("schema", 0, "schema = 0 is not in 1..65536"),
    ("promise", MISSING, "promise must be dict, got None"),
    ("promise.arch", 3, "the graph's description is wrong: arch must be str, got 3"),
    ("promise.maps", [{}], "the graph's description is wrong: maps.0.layer must be str, got None"),
    ("built", [], "built must be dict, got []"),
    ("built.engine", 1, "built.engine must be str, got 1"),
    ("built.engine", "a\x1b[2J", "built.engine = 'a\\x1b[2J' is not plain text"),
    ("built.precision", MISSING, "built.precision must be str, got None"),
    ("built.hint", "speed", "built.hint must be latency or throughput, got 'speed'"),
    ("built.batch", 0, "built.batch = 0 is not in 1..65536"),
    ("built.batch", 10**400, f"built.batch = {'1' + '0' * 59} is not in 1..65536"),
    (
        "promise.size",
        [65536, 65536],
        "the graph's description is wrong: size = 65536x65536 has more than 67108864 pixels",
    ),
    ("built.batch", 10**5, "built.batch = 100000 is not in 1..65536"),
    ("built.batch", 1.0, "built.batch must be int, got 1.0"),
    ("built.versions", [], "built.versions must be dict, got []"),
    ("built.versions", {"numpy": 2}, "built.versions.numpy must be str, got 2"),
    ("built.versions", {"num\npy": "2"}, "built.versions has a name 'num\\npy' that is not plain text"),
    ("built.machine", {"cpu": "a\nb"}, "built.machine.cpu = 'a\\nb' is not plain text"),
    ("built.machine", MISSING, "built.machine must be dict, got None"),
    ("built.created", "today", "built.created must be an ISO date, got 'today'"),
    ("built.created", None, "built.created must be str, got None"),
    ("built.more", 1, "unknown field built.more"),
    ("fidelity", MISSING, "fidelity must be dict, got None"),
    ("fidelity", [], "fidelity must be dict, got []"),
    ("fidelity.a", [{"b": 10**400}], f"fidelity holds {'1' + '0' * 59}, which is no finite number"),
    ("fidelity.a", ["\x1b[2J"], "fidelity holds '\\x1b[2J', which is not plain text"),
    ("fidelity.a", {"b": [{"c\n": 1}]}, "fidelity holds 'c\\n', which is not plain text"),
    ("entries", None, "entries must be dict, got None"),
    ("entries.more", {}, "unknown field entries.more"),
    ("entries/engine.bin", 1, "entries.engine.bin must be dict, got 1"),
    ("entries/engine.bin/bytes", "1", "entries.engine.bin.bytes must be int, got '1'"),
    ("entries/engine.bin/bytes", -1, f"entries.engine.bin.bytes = -1 is not in 0..{stored_zip.MAX_BYTES}"),
    ("entries/engine.bin/sha256", 1, "entries.engine.bin.sha256 must be str, got 1"),
    ("entries/engine.bin/sha256", "AB" * 32, "entries.engine.bin.sha256 must be 64 hexadecimal digits, got 'ABAB"),
    ("entries/engine.bin/more", 1, "unknown field entries.engine.bin.more"),
    ("more", 1, "unknown field more"),
    ("\x1b[2J", 1, "unknown field \\x1b[2J"),
]


@pytest.mark.parametrize(
    ("where", "value", "message"), WRONG, ids=lambda value: "missing" if value is MISSING else str(value)[:24]
)
def test_every_field_is_checked(path: Path, where: str, value: Any, message: str) -> None:
    def change(held: dict[str, Any]) -> None:
        *outer, last = where.split("/" if "/" in where else ".")
        for step in outer:
            held = held[step]
        if value is MISSING:
            del held[last]
        else:
            held[last] = value

    rewritten(path, change)
    got = refused(path)
    assert got.startswith(f"the manifest is wrong: {message}")
    assert got == f"the manifest is wrong: {message}" or "ABAB" in message


def test_a_batch_that_no_memory_holds(path: Path) -> None:
    def change(held: dict[str, Any]) -> None:
        held["promise"]["size"], held["built"]["batch"] = [224, 224], 6000

    rewritten(path, change)
    assert refused(path) == "the manifest is wrong: built.batch = 6000 images are more than 268435456 pixels"


def test_a_number_too_large_to_be_one(path: Path) -> None:
    """JSON has no infinity, but Python reads 1e999 as such, and could not write it again."""
    rewritten(path, lambda held: held.update(fidelity={"latency_ms": {"median": 0.25}}))
    manifest = read_artifact(path).manifest.to_json()
    rewritten(path, manifest.replace("0.25", "-1e999").encode())
    assert refused(path) == "the manifest is wrong: fidelity holds -inf, which is no finite number"


def test_entries_that_are_not_listed(path: Path) -> None:
    rewritten(path, lambda held: held["entries"].pop(ENGINE))
    listed = "the manifest lists graph.onnx, the zip holds graph.onnx, engine.bin"
    assert refused(path) == f"{listed}; {BUILD_AGAIN}"


def test_entries_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.clu", None)
    rewritten(path, lambda held: held["entries"].update({ENGINE: {"bytes": 1, "sha256": "0" * 64}}))
    assert refused(path) == (f"the manifest lists graph.onnx, engine.bin, the zip holds graph.onnx; {BUILD_AGAIN}")


def test_no_graph(path: Path) -> None:
    rewritten(path, lambda held: held.update(entries={}))
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read(MANIFEST)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), manifest)
    assert refused(path) == f"the manifest lists nothing, the zip holds nothing; {BUILD_AGAIN}"


@pytest.mark.parametrize(("name", "content"), [(GRAPH, GRAPH_BYTES), (ENGINE, ENGINE_BYTES)])
def test_a_tampered_part(path: Path, name: str, content: bytes) -> None:
    repack(path, lambda _, contents: contents.update({name: content[:-1] + b"!"}))
    assert refused(path) == f"{name} is damaged or was changed: its sha256 is wrong; {BUILD_AGAIN}"
    repack(path, lambda _, contents: contents.update({name: content + b"!"}))
    assert refused(path) == (f"{name} has {len(content) + 1} bytes, the manifest says {len(content)}; build it again")


def test_a_file_that_changes_between_reading_and_use(path: Path) -> None:
    read = read_artifact(path)
    repack(path, lambda _, contents: contents.update({GRAPH: GRAPH_BYTES[:-1] + b"!"}))
    assert read.engine() == ENGINE_BYTES
    with pytest.raises(ArtifactError) as error:
        read.graph()
    assert str(error.value) == f"{path}: the file has changed since it was read; read it again"
    path.unlink()
    with pytest.raises(ArtifactError) as error:
        read.graph()
    assert str(error.value) == f"{path}: the file cannot be read: No such file or directory"


# --- writing


def unwritable(path: Path, **given: Any) -> str:
    with pytest.raises(ArtifactError) as error:
        write_artifact(path, **{"graph": GRAPH_BYTES, "engine": None, "promise": PROMISE, "built": BUILT, **given})
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def leftovers(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    assert unwritable(tmp_path) == "cannot write an artifact there: is a folder"
    assert unwritable(tmp_path / "no" / "a.clu") == "cannot write an artifact there: its folder does not exist"
    assert unwritable(tmp_path / "a\0.clu").startswith("cannot write an artifact there: embedded null")
    assert leftovers(tmp_path) == []


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    assert unwritable(path) == "cannot write an artifact there: No space left on device"
    assert (leftovers(path.parent), path.read_bytes()) == (["model.clu"], before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"built": replace(BUILT, hint="speed")},
            "what is to be written would not be readable: the manifest is wrong: built.hint must be latency or "
            "throughput, got 'speed'",
        ),
        (
            {"promise": replace(PROMISE, arch="\n")},
            "what is to be written would not be readable: the manifest is wrong: the graph's description is wrong: "
            "arch = '\\n' is not plain text",
        ),
        (
            {"fidelity": {"error": float("nan")}},
            "the fidelity cannot be written as JSON: Out of range float values are not JSON compliant: nan",
        ),
        (
            {"fidelity": {"error": object}},
            "the fidelity cannot be written as JSON: Object of type type is not JSON serializable",
        ),
    ],
)
def test_what_nobody_could_read_does_not_replace_what_works(path: Path, given: Mapping[str, Any], message: str) -> None:
    before = path.read_bytes()
    assert unwritable(path, **given) == message
    assert (leftovers(path.parent), path.read_bytes()) == (["model.clu"], before)


def test_more_than_2_gib(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    assert unwritable(path) == "an artifact holds at most 2 GiB, this one is larger; leave the engine out"


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_artifact as tests

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[3]
if where == "first byte":
    tests.module.write_entries = die
elif where == "half of it":
    tests.module.write_entries = lambda file, entries: (file.write(b"PK" * 1000), file.flush(), die())
elif where == "before the disk has it":
    os.fsync = die
elif where == "before it is renamed":
    Path.replace = die
elif where == "after it is renamed":
    tests.module._sync_folder = die
tests.write(Path(sys.argv[1]), batch=8)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(
    ("where", "exists"),
    [
        ("first byte", False),
        ("half of it", True),
        ("before the disk has it", False),
        ("before it is renamed", True),
        ("after it is renamed", True),
    ],
)
def test_a_build_that_is_killed(tmp_path: Path, where: str, exists: bool) -> None:
    path = tmp_path / "model.clu"
    before = write(path).read_bytes() if exists else None
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent), where]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (-signal.SIGKILL, "")
    if where == "after it is renamed":
        assert read_artifact(path).manifest.built.batch == 8
        assert leftovers(tmp_path) == ["model.clu"]
    else:
        assert (path.read_bytes() if path.exists() else None) == before
        assert len(leftovers(tmp_path)) == 1 + exists  # nothing but its temporary file
    write(tmp_path / "other.clu")  # the next run sweeps, whatever it writes
    assert leftovers(tmp_path) == (["model.clu"] if path.exists() else []) + ["other.clu"]


def test_the_temporary_file_of_a_build_at_work_stays(tmp_path: Path) -> None:
    other = tmp_path / ".notours.tmp"
    other.write_bytes(b"")
    with module._temporary(tmp_path) as (temporary, file):
        file.write(b"half")
        write(tmp_path / "a.clu")
        assert temporary.exists()
        stale = tmp_path / f".{'0' * 32}.clu.tmp"
        stale.write_bytes(b"")
        module.sweep(tmp_path)
        assert not stale.exists()
    assert leftovers(tmp_path) == [".notours.tmp", "a.clu"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_only_has_the_name_of_a_temporary_file_stays(tmp_path: Path) -> None:
    """A pipe would be waited for, for ever; a link is not ours."""
    names = [f".{str(i) * 32}.clu.tmp" for i in range(3)]
    os.mkfifo(tmp_path / names[0])
    (tmp_path / names[1]).mkdir()
    write(tmp_path / "a.clu")
    (tmp_path / names[2]).symlink_to("a.clu")
    write(tmp_path / "a.clu")
    assert leftovers(tmp_path) == [*names, "a.clu"]


def test_a_temporary_file_that_was_swept_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks: list[Any] = []

    def lock(file: Any, wait: bool) -> bool:
        if not locks:
            Path(file.name).unlink()
        locks.append(wait)
        return True

    monkeypatch.setattr(module, "_lock", lock)
    write(tmp_path / "a.clu")
    assert locks == [True, True]
    assert leftovers(tmp_path) == ["a.clu"]
