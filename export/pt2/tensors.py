"""The weights and constants: lists of tensors, each a view of raw bytes in the archive."""

from __future__ import annotations

from typing import Any

from cluinfer.export.pt2.check import WrongError, boolean, mapping, nullable, record, show, text
from cluinfer.export.pt2.graph import BOOL, BYTES, parameter_name, tensor_meta

_files = text(r"\w+", limit=100)
_payloads = record(
    {
        "config": mapping(
            parameter_name,
            record(
                {
                    "path_name": _files,
                    "is_param": boolean,
                    "use_pickle": boolean,
                    "tensor_meta": nullable(lambda value, _: value),
                }
            ),
        )
    }
)


def read_payloads(config: Any, held: dict[str, bytes], prefix: str, where: str) -> dict[str, Any]:
    """The list written anew, if each tensor is a plain one that lies within its file of bytes; `held` are the files."""
    clean = _payloads(config, where)
    types: dict[str, int] = {}
    for name, payload in clean["config"].items():
        file, meta = payload["path_name"], payload["tensor_meta"]
        if payload["use_pickle"] or meta is None or not file.startswith(prefix):
            raise WrongError(
                f"holds {name} as a pickled Python object, which is never loaded because loading it runs code; keep "
                "to plain tensors in the model and export it again"
            )
        meta = payload["tensor_meta"] = tensor_meta(meta, f"{where}[{name}]")
        if file not in held:
            raise WrongError(f"the bytes of {name} are missing; copy or save it again")
        if types.setdefault(file, meta["dtype"]) != meta["dtype"]:
            raise WrongError(f"{name} shares its bytes with a tensor of another type; it is damaged")
        _check_bounds(name, meta, held[file])
    return dict(clean)


def _check_bounds(name: str, meta: dict[str, Any], data: bytes) -> None:
    sizes, strides, (offset,) = (
        [length.get("as_int") for length in lengths]
        for lengths in (meta["sizes"], meta["strides"], [meta["storage_offset"]])
    )
    if None in sizes or None in strides or offset is None or len(sizes) != len(strides):
        raise WrongError(f"{name} has no fixed shape; it is damaged")
    stored, rest = divmod(len(data), BYTES[meta["dtype"]])
    wanted = 0 if 0 in sizes else 1 + offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if rest or wanted > stored:
        raise WrongError(f"{name} claims shape {show(sizes)} but the file stores less than that; it is damaged")
    if meta["dtype"] == BOOL and data and max(data) > 1:
        raise WrongError(f"{name} holds other values than true and false; it is damaged")


def check_against_graph(module: dict[str, Any], weights: dict[str, Any], constants: dict[str, Any]) -> None:
    """Each parameter, buffer and constant that the graph takes is there, in the type and shape that it takes."""
    values = module["graph"]["tensor_values"]
    for spec in module["signature"]["input_specs"]:
        ((kind, body),) = spec.items()
        if kind == "user_input":
            continue
        name = next(body[key] for key in ("parameter_name", "buffer_name", "tensor_constant_name") if key in body)
        held = weights if kind == "parameter" or body.get("persistent") else constants
        if name not in held["config"]:
            raise WrongError(f"{name} is missing; copy or save it again")
        payload, wanted = held["config"][name], values.get(body["arg"]["name"])
        meta = payload["tensor_meta"]
        if wanted is None or (meta["dtype"], meta["sizes"]) != (wanted["dtype"], wanted["sizes"]):
            raise WrongError(f"{name} is stored in another type or shape than its graph takes; it is damaged")
        if payload["is_param"] != (kind == "parameter"):
            raise WrongError(f"{name} is a parameter in one place and none in another; it is damaged")
