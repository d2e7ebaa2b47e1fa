"""The zip file around a program: its entries, and a new one made of those that passed."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from cluinfer.export.pt2.check import WrongError, show

MODEL = "models/model.json"
WEIGHTS, WEIGHT = "data/weights/model_weights_config.json", "data/weights/"
CONSTANTS, CONSTANT = "data/constants/model_constants_config.json", "data/constants/"
SAMPLES = "data/sample_inputs/model.pt"
LARGEST_JSON = 2**26
MOST_ENTRIES = 100_000
SAVES = "2.10"  # the first version of torch that surely saves without pickles

# Exactly what torch.export.save writes; the entries of the last line are never looked at
_KNOWN = re.compile(
    r"models/model\.json|data/weights/(weight_[0-9]+|model_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]+|model_constants_config\.json)|archive_format|archive_version|byteorder"
    r"|data/sample_inputs/model\.pt|\.data/version|\.data/serialization_id|version|extra/[ -~]+"
)
_UNSAFE = {
    r"data/constants/(custom_obj|opaque_obj)_.*": "pickled Python objects, which are never loaded: loading runs code",
    r"data/aotinductor/.*": "compiled machine code, which is never loaded; save the program alone with "
    "torch.export.save(program, ...)",
    r"data/executorch/.*": "an ExecuTorch program; save the program alone with torch.export.save(program, ...)",
    r"models/.*": "programs by other names than 'model'; save one program with torch.export.save(program, ...)",
}


def read_entries(data: bytes) -> dict[str, bytes]:
    """The entries by name, without the folder that all of them are in, of an archive that torch.export.save makes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if not entries or min(entry.header_offset for entry in entries) > 0:
                raise WrongError("the file is truncated or damaged; copy or save it again")  # or ends in another zip
            _check_kind([entry.filename for entry in entries])
            _check_sizes(entries, len(data))
            held = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except WrongError:
        raise
    except Exception as error:  # zipfile raises half a dozen kinds for damaged archives
        raise WrongError("the file is truncated or damaged; copy or save it again") from error
    if held.get("archive_format") != b"pt2":
        raise WrongError("a zip file, but not a torch.export program")
    if held.get("archive_version") != b"0" or WEIGHTS not in held or CONSTANTS not in held or MODEL not in held:
        raise WrongError(
            f"its layout (archive version {show(held.get('archive_version', b'none').decode('latin-1'))}) is that of "
            f"another version of torch; export it again with torch {SAVES} or later"
        )
    if held.get("byteorder", b"little") != b"little":
        raise WrongError("was saved on a big-endian machine, whose numbers are not read; export it on another")
    for name in (MODEL, WEIGHTS, CONSTANTS):
        if len(held[name]) > LARGEST_JSON:
            raise WrongError(f"{name} has {len(held[name]) >> 20} MiB, at most {LARGEST_JSON >> 20} are read")
    return held


def _check_kind(names: list[str]) -> None:
    """Name what else ends in .pt2, or is often taken for it."""
    inner = {name.partition("/")[2] for name in names}
    if "serialized_exported_program.json" in names or "data/weights/model.pt" in inner:
        raise WrongError(
            f"saved by an older version of torch, with pickles in it; export it again with torch {SAVES} or later"
        )
    if any(name.startswith("code/") for name in inner):
        raise WrongError("a TorchScript program, wanted one of torch.export; save it with torch.export.save")
    if any(name.endswith("data.pkl") for name in inner) and "archive_format" not in inner:
        raise WrongError("a PyTorch checkpoint, not a torch.export program; give it the ending .pt so that it is read")
    if "archive_format" not in inner:
        raise WrongError("a zip file, but not a torch.export program")
    for name in inner:
        for pattern, what in _UNSAFE.items():
            if re.fullmatch(pattern, name) and name != MODEL:
                raise WrongError(f"holds {what}")
        if not _KNOWN.fullmatch(name):
            raise WrongError(f"has an entry {show(name)}, which torch.export.save never makes")
    if len({name.partition("/")[0] for name in names}) != 1 or len(inner) != len(names):
        raise WrongError("has entries of the same name or in several folders, which torch.export.save never makes")


def _check_sizes(entries: list[zipfile.ZipInfo], size: int) -> None:
    stored = all(
        entry.compress_type == zipfile.ZIP_STORED and entry.file_size == entry.compress_size and not entry.flag_bits & 1
        for entry in entries
    )
    if not stored or len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > size:
        raise WrongError("has compressed or overlapping entries, which torch.export.save never makes")


def write_archive(
    model: Mapping[str, Any], weights: Mapping[str, Any], constants: Mapping[str, Any], held: Mapping[str, bytes]
) -> io.BytesIO:
    """An archive for torch: these three documents, the bytes that they name, and no sample inputs."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(f"model/{name}", data)

        for name, content in ((MODEL, model), (WEIGHTS, weights), (CONSTANTS, constants)):
            add(name, json.dumps(content, allow_nan=False).encode())
        for folder, document in ((WEIGHT, weights), (CONSTANT, constants)):
            for file in sorted({payload["path_name"] for payload in document["config"].values()}):
                add(folder + file, held[folder + file])
        add(SAMPLES, b"")
        add("archive_format", b"pt2")
        add("archive_version", b"0")
        add("byteorder", b"little")
        add(".data/version", b"6\n")
    written.seek(0)
    return written
