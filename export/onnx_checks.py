"""What an ONNX graph from anyone must satisfy before anything here uses it.

In this order, so that each check may rely on those before it: tensors hold what they declare; functions form no ring
and unfold to a bounded number of nodes; every value is made once and before it is used; every node is an operator
that ONNX, cluinfer or the file itself defines; ONNX's own checks; and the graph's description of itself is true.
The bounds keep the work linear in the file's size: ONNX's checks unfold functions and recurse.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto

from cluinfer.errors import GraphError
from cluinfer.export.onnx_parts import (
    Nodes,
    all_attributes,
    all_graphs,
    check_tensor,
    graphs_of,
    name_of,
    nodes_within,
    tensors,
    type_name,
)
from cluinfer.graph import (
    ATTENTION_CLASSES,
    EVIDENCE_CLASSES,
    INPUT,
    KEY,
    Promise,
)
from cluinfer.ops.schema import DOMAIN, OPERATORS, VERSION

MAX_NODES = 100_000  # with functions unfolded: thirty times the largest published model
MAX_DEPTH = 32  # of functions within functions

_INTEGERS = (TensorProto.INT32, TensorProto.INT64)

Key = tuple[str, str, str]  # of a function: domain, name, overload


def check_model(model: onnx.ModelProto) -> None:
    """Refuse, with a GraphError of one line, whatever the rules above do not allow."""
    _check_header(model)
    for tensor in tensors(model):
        check_tensor(tensor)
    functions = _functions(model)
    _check_size(model, functions)
    _check_values(model)
    _check_operators(model, functions)
    promise = read_promise(model)
    checked = _check_with_onnx(model)
    if promise is not None:
        _check_promise(checked.graph, promise)


def read_promise(model: onnx.ModelProto) -> Promise | None:
    """What the graph says of itself, or None where it was not exported by cluinfer."""
    entries = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(entries) > 1:
        raise GraphError(f"describes itself {len(entries)} times (metadata '{KEY}'); export it again")
    return Promise.from_json(entries[0]) if entries else None


# --- what the file holds


def _check_header(model: onnx.ModelProto) -> None:
    if not model.HasField("graph") or model.ir_version < 1:
        raise GraphError("not an ONNX model: it has no graph or no version; export it again")
    if model.ir_version > onnx.IR_VERSION:
        raise GraphError(
            f"is of ONNX format {model.ir_version}, this onnx package reads up to {onnx.IR_VERSION}; update onnx"
        )
    if model.training_info:
        raise GraphError("holds training steps, wanted a graph to run; export the model in evaluation mode")
    _opsets(model.opset_import)
    for function in model.functions:
        _opsets(function.opset_import)
    for graph in all_graphs(model):
        if graph.sparse_initializer:
            raise GraphError("holds sparse tensors, which no engine runs; store them densely")
    for attribute in all_attributes(model):
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise GraphError("holds sparse tensors, which no engine runs; store them densely")


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for each in imports:
        domain = _domain(each.domain)
        if domain in versions:
            raise GraphError(f"imports the operators of domain {name_of(domain)} twice; export it again")
        versions[domain] = each.version
    limits = {"": (onnx.defs.onnx_opset_version(), "ONNX", "onnx"), DOMAIN: (VERSION, "cluinfer", "cluinfer")}
    for domain, (newest, label, package) in limits.items():
        version = versions.get(domain, newest)
        if not 1 <= version <= newest:
            raise GraphError(f"uses {label} operators of version {version}, known are 1 to {newest}; update {package}")
    return versions


# --- functions


def _functions(model: onnx.ModelProto) -> dict[Key, onnx.FunctionProto]:
    functions: dict[Key, onnx.FunctionProto] = {}
    for function in model.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in functions:
            raise GraphError(f"defines the function {_title(key)} twice; export it again")
        functions[key] = function
    return functions


def _check_size(model: onnx.ModelProto, functions: dict[Key, onnx.FunctionProto]) -> None:
    """Refuse rings of functions, and more nodes or depth than any real model unfolds to."""
    known: dict[Key, tuple[int, int]] = {}  # nodes and depth, unfolded

    def measure(nodes: Nodes, path: tuple[Key, ...]) -> tuple[int, int]:
        count, depth = 0, 0
        for callee, times in Counter(map(_key, nodes_within(nodes))).items():
            inner = (1, 0) if callee not in functions else visit(callee, path)
            count, depth = count + times * inner[0], max(depth, inner[1])
        if count > MAX_NODES:
            raise GraphError(f"unfolds to more than {MAX_NODES} nodes, more than any model has; it may be hostile")
        return count, depth

    def visit(key: Key, path: tuple[Key, ...]) -> tuple[int, int]:
        if key in path:
            ring = " -> ".join(_title(each) for each in (*path[path.index(key) :], key))
            raise GraphError(f"has a function that calls itself: {ring}")
        if key not in known and len(path) <= MAX_DEPTH:
            count, depth = measure(functions[key].node, (*path, key))
            known[key] = (count + 1, depth + 1)
        if len(path) + known.get(key, (0, 1))[1] > MAX_DEPTH:
            raise GraphError(f"has functions within functions more than {MAX_DEPTH} deep; inline them before")
        return known[key]

    for key in functions:
        visit(key, ())
    measure(model.graph.node, ())


# --- values


def _check_values(model: onnx.ModelProto) -> None:
    _check_graph(model.graph, [])
    for function in model.functions:
        title = f"function {name_of(function.name)}"
        scope = _distinct(f"{title} has two inputs", function.input)
        _check_nodes(function.node, [scope])
        _check_outputs(title, function.output, [scope])
        _distinct(f"{title} has two attributes", function.attribute)


def _check_graph(graph: onnx.GraphProto, outer: list[set[str]]) -> None:
    scope = _distinct("has two inputs", (value.name for value in graph.input))
    scope |= _distinct("has two tensors", (tensor.name for tensor in graph.initializer))
    scopes = [*outer, scope]
    _check_nodes(graph.node, scopes)
    _check_outputs("the graph", [value.name for value in graph.output], scopes)


def _check_nodes(nodes: Sequence[onnx.NodeProto], scopes: list[set[str]]) -> None:
    """Every value is made once, and before it is used; adds what the nodes make to the innermost scope."""
    scope = scopes[-1]
    for node in nodes:
        for name in node.input:
            if name and not any(name in each for each in scopes):
                raise GraphError(_why_absent(name, node, nodes))
        for attribute in node.attribute:
            for graph in graphs_of(attribute):
                _check_graph(graph, scopes)
        for name in filter(None, node.output):
            if name in scope:
                raise GraphError(f"makes the value {name_of(name)} twice; export it again")
            scope.add(name)


def _why_absent(name: str, reader: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> str:
    makers = {output: node for node in nodes for output in node.output if output}
    if name not in makers:
        return f"reads the value {name_of(name)}, which nothing makes; export it again"
    seen, waiting = set[str](), [name]  # everything that the value is made from
    while waiting:
        current = waiting.pop()
        if current in reader.output:
            return f"goes in a circle through the value {name_of(name)}: it is made from itself"
        if current not in seen and current in makers:
            seen.add(current)
            waiting += makers[current].input
    return f"uses the value {name_of(name)} before it is made; sort the nodes"


def _check_outputs(title: str, names: Sequence[str], scopes: list[set[str]]) -> None:
    _distinct(f"{title} has two outputs".replace("the graph has", "has"), names)
    for name in names:
        if not any(name in scope for scope in scopes):
            raise GraphError(f"{title} gives the output {name_of(name)}, which nothing makes; export it again")


def _distinct(what: str, names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise GraphError(f"{what} called {name_of(name)}; export it again")
        seen.add(name)
    return seen


# --- operators


def _check_operators(model: onnx.ModelProto, functions: dict[Key, onnx.FunctionProto]) -> None:
    for owner in (model.graph, *model.functions):
        versions = _opsets(model.opset_import if isinstance(owner, onnx.GraphProto) else owner.opset_import)
        for node in nodes_within(owner.node):
            key = _key(node)
            if key[0] not in versions:
                raise GraphError(f"uses {_title(key)} without importing its domain; export it again")
            if key[0] == DOMAIN:
                _check_cluinfer_node(node)
            if key in functions:
                _check_call(node, functions[key])
            elif not onnx.defs.has(key[1], versions[key[0]], key[0]):
                advice = "export it again" if key[0] in ("", DOMAIN) else "replace it, or give it a function body"
                raise GraphError(
                    f"uses {_title(key)}, which neither ONNX (operators of version {versions[key[0]]}) nor the file "
                    f"defines; {advice}"
                )


def _check_call(node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    for what, given, taken in (("inputs", node.input, function.input), ("outputs", node.output, function.output)):
        exact = node.domain == DOMAIN and what == "inputs"  # our bodies differ with the number of inputs
        if len(given) > len(taken) or (exact and len(given) != len(taken)):
            raise GraphError(
                f"gives {_title(_key(node))} {len(given)} {what}, its function body has {len(taken)}; export it again"
            )


def _check_cluinfer_node(node: onnx.NodeProto) -> None:
    operator = OPERATORS.get(node.op_type)
    title = f"{DOMAIN}.{name_of(node.op_type, '')}"
    if operator is None:
        raise GraphError(f"uses {title}, which is none of {', '.join(OPERATORS)}; update cluinfer")
    required = sum(not tensor.optional for tensor in operator.inputs)
    if not required <= len(node.input) <= len(operator.inputs) or not all(node.input):
        wanted = f"{required}" if required == len(operator.inputs) else f"{required} or {len(operator.inputs)}"
        raise GraphError(f"gives {title} {sum(map(bool, node.input))} inputs, wanted {wanted}; export it again")
    if not 1 <= len(node.output) <= len(operator.outputs):
        raise GraphError(f"takes {len(node.output)} outputs of {title}, it has {len(operator.outputs)}")
    held = {attribute.name: attribute for attribute in node.attribute}
    wanted_names = [attribute.name for attribute in operator.attributes]
    if sorted(wanted_names) != sorted(attribute.name for attribute in node.attribute):
        given = ", ".join(name_of(attribute.name, "") for attribute in node.attribute) or "none"
        wanted = ", ".join(wanted_names) or "none"
        raise GraphError(f"gives {title} the attributes {given}, wanted {wanted}; export it again")
    for each in operator.attributes:
        attribute = held[each.name]
        kind, value = ("INT", attribute.i) if isinstance(each.default, int) else ("FLOAT", attribute.f)
        if attribute.type != onnx.AttributeProto.AttributeType.Value(kind) or not math.isfinite(value):
            raise GraphError(f"gives {title} a wrong attribute {each.name}: wanted a finite {kind.lower()}")


# --- ONNX's own checks, and the graph's description of itself


def _check_with_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all shapes that follow from its inputs; strictly, so that what it declares must agree."""
    try:
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # ONNX raises half a dozen kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        text = next((line for line in reversed(lines) if "nference error" in line), lines[0])
        text = text.replace("[ShapeInferenceError] ", "").replace("Inference error(s): ", "").strip()[:240]
        raise GraphError(f"ONNX's own check refuses it: {text}") from error


def _check_promise(graph: onnx.GraphProto, promise: Promise) -> None:
    given = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in given}
    if list(inputs) != [INPUT]:
        names = ", ".join(name_of(name) for name in inputs) or "none"
        raise GraphError(f"the graph describes itself as taking '{INPUT}', but its inputs are {names}")
    sides = _sides(inputs[INPUT])
    wanted = (None, 3, *promise.size)
    kind = inputs[INPUT].type.tensor_type.elem_type
    agrees = all(s is None or w is None or s == w for s, w in zip(sides, wanted, strict=False))
    if len(sides) != 4 or not agrees or kind != TensorProto.FLOAT:
        raise GraphError(
            f"the graph describes its input as FLOAT [?, 3, {promise.size[0]}, {promise.size[1]}], but it is "
            f"{type_name(kind)} [{', '.join('?' if side is None else str(side) for side in sides)}]"
        )
    promise.check_outputs({value.name: _sides(value) for value in graph.output})
    maps = {each.output for each in promise.maps}
    for value in graph.output:
        allowed: tuple[int, ...] = (TensorProto.FLOAT,)
        if value.name in maps:
            allowed = (TensorProto.INT32,)
        elif value.name in (EVIDENCE_CLASSES, ATTENTION_CLASSES):
            allowed = _INTEGERS
        kind = value.type.tensor_type.elem_type
        if kind not in allowed:
            raise GraphError(f"the output {value.name} is {type_name(kind)}, wanted {type_name(allowed[0])}")


def _sides(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    if not value.type.HasField("tensor_type"):
        raise GraphError(f"{name_of(value.name)} is not a tensor")
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim)


# --- names


def _key(node: onnx.NodeProto) -> Key:
    return _domain(node.domain), node.op_type, node.overload


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _title(key: Key) -> str:
    return name_of(".".join(filter(None, key)), "")
