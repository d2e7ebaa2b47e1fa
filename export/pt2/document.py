"""`models/model.json`: the program itself, its signature, and whether it is one that can be deployed.

Not taken, because torch would execute or import what it names: `guards_code` (Python source; repeats what the shapes
say), custom notes, and the types of inputs and outputs beyond tuples, lists and dictionaries.
"""

from __future__ import annotations

import json
from typing import Any

from cluinfer.export.pt2.archive import SAVES
from cluinfer.export.pt2.check import (
    UnknownError,
    WrongError,
    boolean,
    integer,
    list_of,
    mapping,
    nullable,
    one_of,
    record,
    show,
    text,
    union,
)
from cluinfer.export.pt2.graph import FLOAT, argument, graph, name, parameter_name, ranges, tensor

SCHEMA = 8  # the major version of torch's format that is read here
ADVICE = "torch.export.export(model.eval(), (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
DEEPEST = 16  # tuples, lists and dictionaries in each other

_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_TUPLE, _DICT = {"type": "builtins.tuple", "context": "null"}, {"type": "builtins.dict", "context": "[]"}
_IN_SPEC = {
    **_TUPLE,
    "children_spec": [{**_TUPLE, "children_spec": [_LEAF]}, {**_DICT, "children_spec": []}],
}


def _refused(what: str) -> Any:
    def check(value: Any, where: str) -> Any:
        raise WrongError(f"{what}, which is not read from files; export it with {ADVICE}")

    return check


def _mutates(value: Any, where: str) -> Any:
    parameter = value.get("buffer_name") if isinstance(value, dict) else None
    changed = f"changes its buffer {show(parameter)} in every call" if parameter else "changes its parameters or inputs"
    raise WrongError(f"{changed}, as a model in training does; call model.eval() before exporting")


_buffer = record({"arg": tensor, "buffer_name": parameter_name, "persistent": boolean})
_input_specs = union(
    {
        "user_input": record({"arg": argument}),
        "parameter": record({"arg": tensor, "parameter_name": parameter_name}),
        "buffer": _buffer,
        "tensor_constant": record({"arg": tensor, "tensor_constant_name": parameter_name}),
        "constant_input": _refused("takes a constant besides the image"),
        "custom_obj": _refused("takes custom objects"),
        "token": _refused("has side effects"),
    }
)
_output_specs = union(
    {
        "user_output": record({"arg": argument}),
        "buffer_mutation": _mutates,
        "parameter_mutation": _mutates,
        "user_input_mutation": _mutates,
        "loss_output": _refused("computes a loss"),
        "gradient_to_parameter": _refused("computes gradients"),
        "gradient_to_user_input": _refused("computes gradients"),
        "token": _refused("has side effects"),
    }
)
_signature = record({"input_specs": list_of(_input_specs), "output_specs": list_of(_output_specs)})


def _tree(value: Any, where: str, depth: int = 0) -> Any:
    """What a call takes or gives: tuples, lists and dictionaries with text keys. Others would be imported by name."""
    parts = {"type": nullable(text(r"[ -~]*")), "context": nullable(text(r"[ -~]*", limit=10_000))}
    clean = record({**parts, "children_spec": list_of(lambda child, _: child, limit=1000)})(value, where)
    kind, context = clean["type"], clean["context"]
    children = [_tree(child, where, depth + 1) for child in clean["children_spec"]] if depth < DEEPEST else None
    if kind is None and context is None and children == []:
        return _LEAF
    if kind in ("builtins.tuple", "builtins.list") and context in (None, "null"):
        return {"type": kind, "context": "null", "children_spec": children}
    if kind in ("builtins.dict", "collections.OrderedDict") and context is not None and children is not None:
        keys = list_of(text(r"[\w. /-]*"), limit=1000)(_parse(context, where), where)
        if len(keys) == len(children):
            return {"type": kind, "context": json.dumps(keys), "children_spec": children}
    raise WrongError(f"takes or gives a {show(kind)}; wanted one image in, and tensors, tuples or dictionaries out")


def _leaves(tree: dict[str, Any]) -> int:
    return sum(_leaves(child) for child in tree["children_spec"]) if tree["type"] else 1


def _tree_text(value: Any, where: str) -> Any:
    """A tree in the text that holds it: [1, {...}]."""
    read = _parse(value, where)
    if not isinstance(read, list) or len(read) != 2 or read[0] != 1:
        raise UnknownError(f"{where}: a description of inputs or outputs that is not known here: {show(value)}")
    return _tree(read[1], where)


_call = record(
    {
        "fqn": text(r"[ -~]*"),
        "signature": nullable(
            record(
                {
                    "inputs": list_of(argument),
                    "outputs": list_of(argument),
                    "in_spec": _tree_text,
                    "out_spec": _tree_text,
                    "forward_arg_names": nullable(list_of(name, limit=100)),
                },
                {"forward_arg_names": None},
            )
        ),
    },
    {"signature": None},
)
_any_text = text(r"(?s:.*)", limit=1_000_000)
_program = record(
    {
        "graph_module": record(
            {
                "graph": graph(),
                "signature": _signature,
                "module_call_graph": list_of(_call),
                "metadata": mapping(_any_text, _any_text, limit=100),
                "treespec_namedtuple_fields": mapping(_any_text, lambda value, _: value, limit=1000),
            },
            {"metadata": {}, "treespec_namedtuple_fields": {}},
        ),
        "opset_version": mapping(text(r"\w+"), integer(0, 10_000), limit=100),
        "range_constraints": ranges,
        "schema_version": record({"major": integer(0), "minor": integer(0)}),
        "verifiers": list_of(one_of("TRAINING", "ATEN", ""), limit=10),
        "torch_version": text(r"[ -~]*", limit=100),
        "guards_code": list_of(_any_text),
    },
    {"verifiers": [], "guards_code": []},
)


def read_document(data: bytes) -> dict[str, Any]:
    """The program written anew from what is known of it, after every check that needs no weights."""
    raw = parse(data, "models/model.json")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    major = version.get("major") if isinstance(version, dict) else None
    saved = show(raw.get("torch_version")) if isinstance(raw, dict) else "unknown"
    if major != SCHEMA:
        raise WrongError(
            f"is in version {show(major)} of torch's format, wanted {SCHEMA}: it was saved by another version of torch "
            f"({saved}); export it again with torch {SAVES} or later"
        )
    try:
        clean = _program(raw, "model")
    except UnknownError as error:
        raise UnknownError(f"{error}; the file says that torch {saved} saved it") from error
    held = clean["graph_module"]
    _check_signature(held)
    held["module_call_graph"] = [_root_call(held)]
    held["metadata"], held["treespec_namedtuple_fields"] = {}, {}
    clean["guards_code"] = []
    clean["opset_version"] = {"aten": clean["opset_version"].get("aten", 0)}
    _check_use(held)
    return dict(clean)


def parse(data: bytes, where: str) -> Any:
    """JSON, strictly."""
    try:
        return _parse(data.decode(), where)
    except UnicodeDecodeError as error:
        raise WrongError(f"{where} is damaged; copy or save it again") from error


def _parse(source: Any, where: str) -> Any:
    def constant(token: str) -> Any:
        raise ValueError(token)

    try:
        return json.loads(source, parse_constant=constant)
    except (ValueError, TypeError, RecursionError) as error:
        raise WrongError(f"{where} is damaged; copy or save it again") from error


def _check_signature(held: dict[str, Any]) -> None:
    """The graph's inputs and outputs are those of the signature, in order."""
    signature = held["signature"]
    for side, specs in (("inputs", signature["input_specs"]), ("outputs", signature["output_specs"])):
        given = [{"as_tensor": body["arg"]} if "name" in body["arg"] else body["arg"] for body in _bodies(specs)]
        if given != held["graph"][side]:
            raise WrongError(f"the {side} of its graph are not those of its signature; it is damaged")


def _bodies(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [body for spec in specs for body in spec.values()]


def _root_call(held: dict[str, Any]) -> dict[str, Any]:
    """How the whole model is called; how its modules are is of no use here."""
    calls = held["module_call_graph"]
    root = calls[0]["signature"] if calls and calls[0]["fqn"] == "" else None
    if root is None:
        raise WrongError("does not say how it is called; it is damaged")
    takes = _leaves(root["in_spec"])
    if takes != 1 or root["in_spec"] != _IN_SPEC:
        names = [body["arg"]["as_tensor"]["name"] for body in _user_tensors(held["signature"]["input_specs"])]
        named = ", ".join(called[:40] for called in names[:5])
        raise WrongError(f"takes {takes} inputs ({named}), wanted one image as model(image); export it with {ADVICE}")
    outputs = [spec for spec in held["signature"]["output_specs"] if "user_output" in spec]
    if _leaves(root["out_spec"]) != len(outputs):
        raise WrongError("does not give as many outputs as it says; it is damaged")
    called = root["forward_arg_names"] if len(root["forward_arg_names"] or ()) == 1 else None
    trees = {side: json.dumps([1, root[side]]) for side in ("in_spec", "out_spec")}
    return {"fqn": "", "signature": {"inputs": [], "outputs": [], **trees, "forward_arg_names": called}}


def _user_tensors(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tensors that a caller gives or gets."""
    users = [body for spec in specs for kind, body in spec.items() if kind in ("user_input", "user_output")]
    return [body for body in users if "as_tensor" in body["arg"]]


def _check_use(held: dict[str, Any]) -> None:
    """One float32 image [B, 3, H, W] in, with B dynamic; float32 logits [B, classes] out, before anything else."""
    values, signature = held["graph"]["tensor_values"], held["signature"]
    taken, given = _user_tensors(signature["input_specs"]), _user_tensors(signature["output_specs"][:1])
    if len(taken) != 1:
        raise WrongError(f"takes {len(taken)} tensors, wanted one image; export it with {ADVICE}")
    image = _described(values, taken[0])
    sizes = image["sizes"]
    if image["dtype"] != FLOAT or len(sizes) != 4 or sizes[1] != {"as_int": 3}:
        raise WrongError(f"takes a tensor of {_written(image)}, wanted a float32 image [batch, 3, height, width]")
    if "as_expr" not in sizes[0]:
        raise WrongError(f"takes batches of {sizes[0]['as_int']} only; make the batch dynamic, export it with {ADVICE}")
    if any("as_int" not in size for size in sizes[2:]):
        raise WrongError(f"takes images of any size, wanted one size; export it with {ADVICE}")
    if not given:
        raise WrongError("first gives what is no tensor, wanted logits [batch, classes]")
    logits = _described(values, given[0])
    batched = logits["sizes"][:1] and logits["sizes"][0].get("as_expr", {}).get("expr_str") == _batch(sizes)
    if logits["dtype"] != FLOAT or len(logits["sizes"]) != 2 or not batched or "as_int" not in logits["sizes"][1]:
        raise WrongError(f"first gives a tensor of {_written(logits)}, wanted float32 logits [batch, classes]")


def _batch(sizes: list[dict[str, Any]]) -> str:
    return str(sizes[0]["as_expr"]["expr_str"])


def _described(values: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    called = body["arg"]["as_tensor"]["name"]
    if called not in values:
        raise WrongError(f"does not describe its tensor {called}; it is damaged")
    return dict(values[called])


def _written(meta: dict[str, Any]) -> str:
    """A tensor's type and shape, for an error."""
    sizes = [str(size["as_int"]) if "as_int" in size else "?" for size in meta["sizes"]]
    return f"{'float32' if meta['dtype'] == FLOAT else 'another type'} [{', '.join(sizes)}]"
