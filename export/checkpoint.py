"""Read the parameters of a checkpoint file that may come from anyone: nothing in it is executed.

Taken: a state dict, raw or under `state_dict`, `model` or `state_dict_ema` (the first of these that is there), with
`module.` (DataParallel) and `_orig_mod.` (torch.compile) prefixes dropped; or a `.safetensors` file.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluinfer.errors import CheckpointError

CONTAINERS = ("state_dict", "model", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.")
LARGEST_GROWTH = 8  # of the file in memory: float16 doubles, a few shared parameters are stored once
SAVE_ADVICE = "save it with torch.save(model.state_dict(), ...) and try again"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The parameters by name, float32 (integers as they are), on the CPU."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: wanted a checkpoint file, found {'a folder' if path.is_dir() else 'nothing'}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; copy or save it again")
    held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    parameters = _unprefixed(path, _parameters(path, held))
    for name, value in parameters.items():
        _check_plain(path, name, value)
    claimed = 4 * sum(value.numel() for value in parameters.values())  # as float32
    if claimed > LARGEST_GROWTH * path.stat().st_size + 2**20:
        raise CheckpointError(f"{path}: claims {claimed >> 20} MiB of parameters, far more than the file stores")
    return {name: _own(value) for name, value in parameters.items()}


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({_line(error)})") from error


def _read_torch(path: Path) -> Any:
    _refuse_programs(path)
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"{path}: holds Python objects ({found[1]}) besides tensors, which are never loaded because loading "
                f"them runs code; where the model's code is, {SAVE_ADVICE}"
            ) from error
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged") from error
    except Exception as error:  # a damaged file can fail in any of torch's readers
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged ({_line(error)})") from error


def _refuse_programs(path: Path) -> None:
    """Name the kinds of zip files that torch.load would misread or refuse less clearly."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return  # an old checkpoint, or nothing that torch.load knows
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises half a dozen kinds for damaged archives
        raise CheckpointError(f"{path}: the file is truncated or damaged; copy or save it again") from error
    names = [entry.filename for entry in entries]
    if sum(entry.file_size for entry in entries) > 2 * path.stat().st_size + 2**20:
        raise CheckpointError(f"{path}: unpacks to more than twice its size, which torch.save never makes")
    if any(name.partition("/")[2].startswith("code/") for name in names):
        raise CheckpointError(f"{path}: a TorchScript program, wanted its parameters; {SAVE_ADVICE}")
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise CheckpointError(f"{path}: a torch.export program; give it the ending .pt2 so that it is read as one")
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(f"{path}: a zip file, but not a PyTorch checkpoint")


def _harmless() -> list[Any]:
    """What training scripts save beside the parameters and what cannot run code: their options, and NumPy numbers."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)]
    return [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]


def _parameters(path: Path, held: Any) -> Mapping[str, Any]:
    """The state dict inside what the file holds."""
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{path}: holds a {type(held).__name__}, wanted a state dict; {SAVE_ADVICE}")
    for container in CONTAINERS:
        if isinstance(held.get(container), Mapping):
            held = held[container]
            break
    if not held or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in held.items()):
        keys = ", ".join(str(key) for key in list(held)[:5]) or "none"
        raise CheckpointError(
            f"{path}: no state dict found, neither bare nor under {', '.join(CONTAINERS)} (keys: {keys}); {SAVE_ADVICE}"
        )
    return dict(held)


def _unprefixed(path: Path, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for name, value in parameters.items():
        short = name
        while short.startswith(PREFIXES):
            short = short.partition(".")[2]
        if short in plain:
            raise CheckpointError(f"{path}: {short} is there twice, with and without a prefix such as 'module.'")
        plain[short] = value
    return plain


def _check_plain(path: Path, name: str, value: Tensor) -> None:
    """Refuse what is not numbers in a row, and what claims more than the file stored (an expanded view)."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type == "meta":
        raise CheckpointError(f"{path}: {name} is not a plain tensor of numbers ({value.dtype}, {value.layout})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: {name} claims shape {list(value.shape)} but the file stores less than that")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise CheckpointError(f"{path}: {name} holds NaN or infinite numbers; its training went astray")


def _own(value: Tensor) -> Tensor:
    return value.detach().float().contiguous() if value.is_floating_point() else value.detach().contiguous()


def _line(error: BaseException) -> str:
    """The first line of an error's message, cut where it grows long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
