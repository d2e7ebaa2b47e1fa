"""A zip of stored entries, one after the other: what an artifact is outside. Any unzip reads it.

`read_entries` reads no other zip, since it may come from anyone: no compression (so nothing unpacks to more than it
is), no encryption, no data between, before or behind the entries, none that overlap, none that the directory describes
otherwise than it is, no name twice, no zip64. It reads the directory and the entries' headers only, and nothing is
ever unpacked to a path, so a name cannot lead anywhere.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from cluinfer.errors import ArtifactError

MAX_BYTES = (1 << 31) - 1  # of the whole file: no zip64
_MAX_DIRECTORY = 1 << 12
_HEADER, _RECORD, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_UTF8 = 1 << 11  # the one flag that says nothing about how the content is stored


@dataclass(frozen=True)
class Span:
    """Where an entry's content lies in the file."""

    start: int
    size: int
    crc: int


def write_entries(file: BinaryIO, entries: Mapping[str, bytes]) -> None:
    """Write the entries in this order; the same entries give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # Unix, which the attributes are of
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)


def read_entries(file: BinaryIO) -> dict[str, Span]:
    """Where the content of each entry lies."""
    size = file.seek(0, 2)
    if size > MAX_BYTES:
        raise ArtifactError("the file is larger than 2 GiB, which no artifact is")
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise ArtifactError("not an artifact, or truncated, or with data behind its end; copy or build it again")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(end)
    if disk or first_disk or here != count or comment or start + length + _END.size != size:
        raise ArtifactError("the zip's directory does not lie where it says; copy or build it again")
    if length > _MAX_DIRECTORY:
        raise ArtifactError(f"the zip's directory has {length} bytes, wanted at most {_MAX_DIRECTORY}")
    file.seek(start)
    directory = file.read(length)
    entries: dict[str, Span] = {}
    place = follows = 0
    for _ in range(count):
        name, span, place = _entry(file, directory, place, follows)
        if name in entries:
            raise ArtifactError(f"the zip holds {name!r:.60} twice")
        entries[name] = span
        follows = span.start + span.size
    if place != length or follows != start:
        raise ArtifactError("the zip holds data that belongs to no entry; build it again")
    return entries


def _entry(file: BinaryIO, directory: bytes, place: int, wanted: int) -> tuple[str, Span, int]:
    """The record at this place of the directory, whose entry must begin at `wanted`, and the place of the next."""
    if len(directory) < place + _RECORD.size:
        raise ArtifactError("the zip's directory ends too early; copy or build it again")
    record = _RECORD.unpack_from(directory, place)
    mark, _, _, flags, method, _, _, crc, packed, size, name_size, extra, comment, disk, _, _, offset = record
    text = directory[place + _RECORD.size :][:name_size]
    name = text.decode("utf-8", "backslashreplace")
    if mark != b"PK\1\2" or disk or comment:
        raise ArtifactError("the zip's directory is damaged; copy or build it again")
    if method or flags & ~_UTF8 or packed != size:
        raise ArtifactError(f"entry {name!r:.60} is compressed, encrypted or streamed; an artifact's are stored")
    if offset != wanted:
        raise ArtifactError(f"entry {name!r:.60} does not begin where the one before it ends; build it again")
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ArtifactError(f"entry {name!r:.60} lies outside the file; copy or build it again")
    mark, _, *given, local_name_size, local_extra = _HEADER.unpack(header)
    same = mark == b"PK\3\4" and file.read(local_name_size) == text
    if not same or (given[0] & ~_UTF8, given[1], *given[4:]) != (0, 0, crc, size, size):
        raise ArtifactError(f"entry {name!r:.60} is not what the zip's directory says; copy or build it again")
    start = offset + _HEADER.size + local_name_size + local_extra
    return name, Span(start, size, crc), place + _RECORD.size + name_size + extra + comment
