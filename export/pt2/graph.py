"""The graph of a program, as torch.export writes it to `models/model.json`: what of it is taken, field by field.

Every name in it becomes a word of Python source that torch generates and executes, so each must be an identifier.
"""

from __future__ import annotations

import keyword
from typing import Any

from cluinfer.export.pt2.check import (
    WrongError,
    boolean,
    integer,
    list_of,
    mapping,
    nullable,
    number,
    one_of,
    record,
    show,
    text,
    union,
)
from cluinfer.export.pt2.operators import GRAD_MODE, operator
from cluinfer.export.pt2.symbols import SYMBOL, expression

DEEPEST = 4  # graphs within graphs
FLOAT, BOOL = 7, 12
# torch's numbers of the dtypes, and how many bytes an element has: integers, half, float, double, bool, bfloat16
BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, FLOAT: 4, 8: 8, BOOL: 1, 13: 2}

_IDENTIFIER = text(r"[A-Za-z_][A-Za-z0-9_]*")
_PRINTABLE = text(r"[ -~]*", limit=1000)
_PATH = r"[\w.@]*"
_MODULE = rf"{_PATH},{_PATH},[\w.@<>\[\](), ]*"
_MODULES = text(rf"{_MODULE}(;{_MODULE})*", limit=20_000)  # "key,path,class;...", outermost first


def name(value: Any, where: str) -> str:
    """The name of a value: an identifier, and no keyword."""
    if keyword.iskeyword(_IDENTIFIER(value, where)):
        raise WrongError(f"{where}: not as torch writes it: {show(value)}")
    return str(value)


def parameter_name(value: Any, where: str) -> str:
    """The dotted path of a parameter or buffer, which leads to no special attribute such as `__class__`."""
    text(r"\w+(\.\w+)*")(value, where)
    if not value.isascii() or any(part.startswith("__") for part in value.split(".")):
        raise WrongError(f"{where}: no name of a parameter: {show(value)}")
    return str(value)


def _device(value: Any, where: str) -> Any:
    clean = record({"type": _PRINTABLE, "index": nullable(integer(0, 255))}, {"index": None})(value, where)
    if clean["type"] != "cpu":
        raise WrongError(
            f"was exported on the device {show(clean['type'])}; move the model to the CPU and export again"
        )
    return {"type": "cpu", "index": None}


def _dtype(value: Any, where: str) -> Any:
    if type(value) is not int or value not in BYTES:
        raise WrongError(f"{where}: a tensor type that is not read (number {show(value)}); use float32")
    return value


def _unread(what: str) -> Any:
    def check(value: Any, where: str) -> Any:
        raise WrongError(f"{where}: holds {what}, which are never loaded because loading them runs code")

    return check


_hint = nullable(union({"as_int": integer(), "as_bool": boolean, "as_float": number}))
_expression = record({"expr_str": expression, "hint": _hint}, {"hint": None})
_sym_int = union({"as_int": integer(), "as_expr": _expression})
_sym_bool = union({"as_bool": boolean, "as_expr": _expression})
_sym_float = union({"as_float": number, "as_expr": _expression})

_length = union({"as_int": integer(low=0), "as_expr": _expression})
_lengths = list_of(_length, limit=64)
tensor_meta = record(
    {
        "dtype": _dtype,
        "sizes": _lengths,
        "requires_grad": boolean,
        "device": _device,
        "strides": _lengths,
        "storage_offset": _length,
        "layout": one_of(7),  # strided
    }
)

tensor = record({"name": name})
_optional_tensor = union({"as_tensor": tensor, "as_none": boolean})
_named_int = union({"as_name": name, "as_int": integer()})
_named_float = union({"as_name": name, "as_float": number})
_named_bool = union({"as_name": name, "as_bool": boolean})
_ints = list_of(integer())

_PLAIN = {
    "as_none": boolean,
    "as_tensor": tensor,
    "as_tensors": list_of(tensor),
    "as_int": integer(),
    "as_ints": _ints,
    "as_float": number,
    "as_floats": list_of(number),
    "as_string": _PRINTABLE,
    "as_strings": list_of(_PRINTABLE, limit=100),
    "as_sym_int": _named_int,
    "as_sym_ints": list_of(_named_int),
    "as_scalar_type": _dtype,
    "as_memory_format": integer(0, 4),
    "as_layout": one_of(7),
    "as_device": _device,
    "as_bool": boolean,
    "as_bools": list_of(boolean),
    "as_sym_bool": _named_bool,
    "as_sym_bools": list_of(_named_bool),
    "as_optional_tensors": list_of(_optional_tensor),
    "as_optional_tensor": _optional_tensor,
    "as_sym_float": _named_float,
    "as_sym_floats": list_of(_named_float),
    "as_custom_obj": _unread("custom objects"),
}
argument = union(_PLAIN)


def _node(depth: int) -> Any:
    """A call. Graphs are taken only as what `with torch.no_grad()` wraps."""
    inner = record({"name": name, "graph": graph(depth + 1)}) if depth < DEEPEST else None
    nested = union({**_PLAIN, "as_graph": inner}) if inner else argument
    kind = nullable(integer(0, 2))
    parts = {
        "target": operator,
        "outputs": list_of(argument, limit=1000),
        "metadata": _metadata,
        "is_hop_single_tensor_return": nullable(boolean),
        "name": nullable(name),
    }
    defaults = {"is_hop_single_tensor_return": None, "name": None}

    def inputs(checked: Any) -> Any:
        parameter = text(r"|[A-Za-z_][A-Za-z0-9_]*")
        return list_of(record({"name": parameter, "arg": checked, "kind": kind}, {"kind": None}), limit=1000)

    plain = record({**parts, "inputs": inputs(argument)}, defaults)
    wrapping = record({**parts, "inputs": inputs(nested)}, defaults)

    def check(value: Any, where: str) -> Any:
        wraps = isinstance(value, dict) and value.get("target") == GRAD_MODE
        clean = (wrapping if wraps else plain)(value, where)
        _refuse_training(clean)
        return clean

    return check


def _metadata(value: Any, where: str) -> Any:
    """Of the notes on a node only the modules it belongs to; the rest names functions, files and lines."""
    notes = mapping(text(r"\w+"), lambda note, _: note, limit=100)(value, where)
    return {"nn_module_stack": _MODULES(notes["nn_module_stack"], where)} if notes.get("nn_module_stack") else {}


def _refuse_training(node: dict[str, Any]) -> None:
    """Dropout and batch norm say whether they were exported for training."""
    called = ".".join(node["target"].split(".")[3:4])
    flag = "training" if called in ("batch_norm", "native_batch_norm") else "train" if "dropout" in called else None
    if any(given["name"] == flag and given["arg"] == {"as_bool": True} for given in node["inputs"]):
        raise WrongError(f"was exported for training ({called}); call model.eval() before exporting")


def graph(depth: int = 0) -> Any:
    """The check of a graph; `depth` graphs stand around it."""
    fields: dict[str, Any] = {
        "inputs": list_of(argument),
        "outputs": list_of(argument),
        "tensor_values": mapping(name, tensor_meta),
        "sym_int_values": mapping(name, _sym_int),
        "sym_bool_values": mapping(name, _sym_bool),
        "sym_float_values": mapping(name, _sym_float),
        "is_single_tensor_return": boolean,
        "custom_obj_values": mapping(name, _unread("custom objects")),
    }
    made: list[Any] = []

    def check(value: Any, where: str) -> Any:
        if not made:  # put together when first needed: a graph may hold nodes that hold graphs
            defaults = {"is_single_tensor_return": False, "custom_obj_values": {}, "sym_float_values": {}}
            made.append(record({**fields, "nodes": list_of(_node(depth))}, defaults))
        return made[0](value, where)

    return check


ranges = mapping(text(SYMBOL), record({"min_val": nullable(integer()), "max_val": nullable(integer())}))
