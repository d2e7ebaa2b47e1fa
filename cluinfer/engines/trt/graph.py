"""An exported graph as TensorRT takes it: the cluster operators as plugins, or as standard operators only.

What the two forms owe to TensorRT's parser (its sources, 8.6 to 10.1, and NVIDIA's documentation):
- A node meets a plugin by operator type and by the attributes plugin_namespace and plugin_version; `aot` asks for the
  kernel that is embedded in the engine. A local function of the same name may win, so there are none.
- A plugin has a fixed number of inputs, so operators with weights are plugins of their own (`...Weighted`).
- 8.6 reads opset 17: opset17.py. It takes the `value_ints` of a Constant for floats, of which there are none, and of a
  Shape ignores `start` and `end`; so neither is used.
- 8.6 knows no functions and no CastLike, and ignores `reduction` of ScatterElements without a word; later versions do
  it with a plugin of theirs, whose order of summing is not fixed. So the standard form sums by a product with a one-hot
  matrix, and spells out types. A NaN value then spreads to every centre of its channel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluinfer.engines.trt.opset17 import lower
from cluinfer.errors import GraphError, MissingPackageError, ShapeError
from cluinfer.graph import KEY, Promise
from cluinfer.native.cuda import Kernel, Shape, assign, gather, scatter
from cluinfer.ops.schema import DOMAIN, EPSILON, OPERATORS

if TYPE_CHECKING:
    import onnx

PLUGIN_NAMESPACE, PLUGIN_VERSION = "cluinfer", "1"
WEIGHTED = "Weighted"  # ends the name of an operator's plugin that takes weights
_FLOAT, _HALF = 1, 10  # of onnx.TensorProto


@dataclass(frozen=True)
class Call:
    """One use of a cluster operator: all that its kernel depends on."""

    operator: str
    shape: Shape
    half: bool
    weighted: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    sigmoid: bool = True

    @property
    def plugin(self) -> str:
        """The name of its plugin."""
        return self.operator + (WEIGHTED if self.weighted else "")

    def kernel(self) -> Kernel:
        """The CUDA kernel for it."""
        if self.operator == "ClusterAssign":
            return assign(self.shape, self.half, self.alpha, self.beta, self.sigmoid)
        make = scatter if self.operator == "ClusterScatter" else gather
        return make(self.shape, self.half, self.weighted)


def with_plugins(graph: bytes) -> tuple[bytes, list[Call]]:
    """The graph with the cluster operators as plugin nodes, and what they are."""
    import onnx

    model = _parse(graph)
    calls = _calls(model)
    for node, call in zip(_nodes(model), calls, strict=True):
        node.op_type = call.plugin
        own = [a for a in node.attribute if a.name in ("alpha", "beta", "sigmoid")]
        del node.attribute[:]
        node.attribute.extend(own)
        present = {a.name for a in own}
        for attribute in OPERATORS[call.operator].attributes:  # plugin attributes have no defaults
            if attribute.name not in present:
                node.attribute.append(onnx.helper.make_attribute(attribute.name, attribute.default))
        for name, value in (("plugin_namespace", PLUGIN_NAMESPACE), ("plugin_version", PLUGIN_VERSION), ("aot", 1)):
            node.attribute.append(onnx.helper.make_attribute(name, value))
    _drop_functions(model)
    return model.SerializeToString(deterministic=True), calls


def standard(graph: bytes) -> bytes:
    """The graph with nothing but standard operators that TensorRT 8.6 and later know."""
    from onnx import inliner

    model = _parse(graph)
    calls = _calls(model)
    _drop_functions(model)
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    bodies: dict[Call, Any] = {}
    for node, call in zip(_nodes(model), calls, strict=True):
        if call not in bodies:
            bodies[call] = _body(call, f"{call.operator}{len(bodies)}", version)
        node.op_type = bodies[call].name
        del node.attribute[:]
    model.functions.extend(bodies.values())
    inlined = inliner.inline_local_functions(model)
    del inlined.functions[:]
    kept = [each for each in inlined.opset_import if each.domain != DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    lower(inlined)
    content: bytes = inlined.SerializeToString(deterministic=True)
    return content


def types_of_weights(graph: bytes) -> Counter[str]:
    """How much of a graph's weights is of which type, in numbers: what a strongly typed network will compute in."""
    import onnx

    sizes: Counter[str] = Counter()
    for tensor in _parse(graph).graph.initializer:
        count = 1
        for side in tensor.dims:
            count *= side
        sizes[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += count
    return sizes


def read_promise(graph: bytes) -> Promise:
    """What the graph says of itself."""
    held = {entry.key: entry.value for entry in _parse(graph).metadata_props}
    if KEY not in held:
        raise GraphError("the graph does not say what it is; `cluinfer export` writes those that do")
    return Promise.from_json(held[KEY])


def count_quantized(graph: bytes) -> int:
    """How many values are quantized."""
    return sum(node.op_type == "QuantizeLinear" for node in _parse(graph).graph.node)


def _parse(graph: bytes) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            "to compile for TensorRT needs onnx, which is not installed: pip install 'cluinfer[trt]'"
        ) from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load_model_from_string(graph)
    except DecodeError as error:
        raise GraphError("the graph is not ONNX, or is damaged; export it again") from error


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


def _drop_functions(model: onnx.ModelProto) -> None:
    kept = [each for each in model.functions if each.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)


def _calls(model: onnx.ModelProto) -> list[Call]:
    """What the nodes of the domain are, in their order."""
    held = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    types = {value.name: value.type.tensor_type for value in held}
    types |= {tensor.name: _type_of(tensor) for tensor in model.graph.initializer}
    return [_call(node, types) for node in _nodes(model)]


def _type_of(tensor: onnx.TensorProto) -> Any:
    from onnx import helper

    return helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type


def _call(node: onnx.NodeProto, types: dict[str, Any]) -> Call:
    from onnx import helper

    called = f"{node.op_type} {node.name!r:.60}"
    if node.op_type not in OPERATORS:
        raise GraphError(f"{called} is no cluinfer operator of this version; update cluinfer")
    operator = OPERATORS[node.op_type]
    names = list(node.input)
    while names and not names[-1]:
        names.pop()
    sides: dict[str, int] = {}
    kinds = set()
    for tensor, name in zip(operator.inputs, names, strict=False):
        if name not in types or not types[name].HasField("shape"):
            raise GraphError(f"{called}: the graph does not say what shape {name!r:.60} has; export it again")
        for symbol, side in zip(tensor.shape, types[name].shape.dim, strict=False):
            if side.dim_value and sides.setdefault(symbol, side.dim_value) != side.dim_value:
                raise GraphError(f"{called}: its inputs do not fit together; export it again")
        if tensor.dtype == "T":
            kinds.add(types[name].elem_type)
    channels = sides.get("D", sides.get("C"))
    points, centers = sides.get("N"), sides.get("M")
    if not (channels and points and centers):
        raise ShapeError(
            f"{called}: TensorRT's kernels are made for one number of channels, points and centres, but the graph "
            "leaves one of them free; export it for a fixed size"
        )
    if len(kinds) != 1 or not kinds <= {_FLOAT, _HALF}:
        raise GraphError(f"{called}: wanted inputs that are all float32 or all float16")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    taken: dict[str, Any] = {
        a.name: type(a.default)(attributes.get(a.name, a.default)) for a in operator.attributes if a.name != "sigmoid"
    }
    if operator.name == "ClusterAssign":
        taken["sigmoid"] = bool(attributes.get("sigmoid", 1))
    weighted = len(names) == len(operator.inputs) and operator.inputs[-1].optional
    return Call(operator.name, Shape(channels, points, centers), kinds == {_HALF}, weighted, **taken)


def _body(call: Call, name: str, version: int) -> onnx.FunctionProto:
    """The operator as a function of operators that every TensorRT since 8.6 knows, computing in float32."""
    from onnx import parser

    operator = OPERATORS[call.operator]
    taken = operator.inputs if call.weighted or call.operator == "ClusterAssign" else operator.inputs[:-1]
    inputs, outputs = (", ".join(each.name for each in tensors) for tensors in (taken, operator.outputs))
    lines = {"ClusterAssign": _assign, "ClusterScatter": _scatter, "ClusterGather": _gather}[call.operator](call)
    text = "\n".join(lines)
    header = f'<domain: "{DOMAIN}", opset_import: ["": {version}]>'
    return parser.parse_function(f"{header} {name} ({inputs}) => ({outputs}) {{\n{text}\n}}")


def _assign(call: Call) -> list[str]:
    if not (math.isfinite(call.alpha) and math.isfinite(call.beta)):
        raise GraphError(f"ClusterAssign with alpha {call.alpha} and beta {call.beta}: TensorRT needs finite ones")
    scaled = [
        f"alpha = Constant <value = float {{{call.alpha!r}}}> ()",
        f"beta = Constant <value = float {{{call.beta!r}}}> ()",
        "scaled = Mul (cosine, alpha)",
        "shifted = Add (scaled, beta)",
    ]
    squashed = [
        "one = Constant <value = float {1.0}> ()",
        "minus = Neg (shifted)",
        "power = Exp (minus)",
        "below = Add (power, one)",
        "s = Reciprocal (below)",
    ]
    return [
        "axis1 = Constant <value = int64[1] {1}> ()",
        f"epsilon = Constant <value = float {{{EPSILON}}}> ()",
        *_unit("point", "points"),
        *_unit("center", "centers"),
        "center_rows = Transpose <perm = [0, 2, 1]> (center_unit)",
        "cosine = MatMul (center_rows, point_unit)",
        *scaled,
        *(squashed if call.sigmoid else ["s = Identity (shifted)"]),
        "best = ArgMax <axis = 1, keepdims = 0> (s)",
        "index = Cast <to = 6> (best)",
        "top = ReduceMax <keepdims = 0> (s, axis1)",
        _cast(call, "weight", "top"),
    ]


def _unit(name: str, source: str) -> list[str]:
    return [
        f"{name} = Cast <to = {_FLOAT}> ({source})",
        f"{name}_norm = ReduceL2 ({name}, axis1)",
        f"{name}_scale = Max ({name}_norm, epsilon)",
        f"{name}_unit = Div ({name}, {name}_scale)",
    ]


def _scatter(call: Call) -> list[str]:
    count = call.shape.centers
    weights = [
        f"weight_value = Cast <to = {_FLOAT}> (weight)",
        "weight_column = Unsqueeze (weight_value, axis2)",
        "share = Mul (one_hot, weight_column)",
    ]
    return [
        "axis1 = Constant <value = int64[1] {1}> ()",
        "axis2 = Constant <value = int64[1] {2}> ()",
        "one = Constant <value = float {1.0}> ()",
        f"every = Constant <value = int32[1, 1, {count}] {{{', '.join(map(str, range(count)))}}}> ()",
        "slot = Unsqueeze (index, axis2)",
        "hit = Equal (slot, every)",
        f"one_hot = Cast <to = {_FLOAT}> (hit)",
        *(weights if call.weighted else ["share = Identity (one_hot)"]),
        f"value = Cast <to = {_FLOAT}> (values)",
        f"start = Cast <to = {_FLOAT}> (base)",
        "sums = MatMul (value, share)",
        "total = Add (sums, start)",
        "masses = ReduceSum (share, axis1)",
        "mass = Add (masses, one)",
        "mean = Div (total, mass)",
        _cast(call, "centers", "mean"),
    ]


def _gather(call: Call) -> list[str]:
    weights = [
        f"weight_value = Cast <to = {_FLOAT}> (weight)",
        "weight_row = Unsqueeze (weight_value, axis1)",
        "found = Mul (picked, weight_row)",
    ]
    nothing = ", ".join("0" * call.shape.channels)
    return [
        "axis1 = Constant <value = int64[1] {1}> ()",
        "zero = Constant <value = int32 {0}> ()",
        "zero_value = Constant <value = float {0.0}> ()",
        f"size = Constant <value = int32 {{{call.shape.centers}}}> ()",
        "not_below = GreaterOrEqual (index, zero)",
        "not_above = Less (index, size)",
        "inside = And (not_below, not_above)",
        "safe = Where (inside, index, zero)",
        "row = Unsqueeze (safe, axis1)",
        f"nothing = Constant <value = int32[1, {call.shape.channels}, 1] {{{nothing}}}> ()",
        "rows = Add (row, nothing)",  # one for each channel
        f"center = Cast <to = {_FLOAT}> (centers)",
        "picked = GatherElements <axis = 2> (center, rows)",
        *(weights if call.weighted else ["found = Identity (picked)"]),
        "inside_row = Unsqueeze (inside, axis1)",
        "made = Where (inside_row, found, zero_value)",
        _cast(call, "points", "made"),
    ]


def _cast(call: Call, made: str, source: str) -> str:
    return f"{made} = Cast <to = {_HALF if call.half else _FLOAT}> ({source})"


def kernels(calls: Sequence[Call]) -> dict[str, Kernel]:
    """The kernels of these calls, each once, by a name that says what it is for."""
    named: dict[str, Kernel] = {}
    for call in dict.fromkeys(calls):
        sides = f"d{call.shape.channels}_n{call.shape.points}_m{call.shape.centers}"
        kernel = call.kernel()
        base = f"{kernel.entry}{'_weighted' if call.weighted else ''}_{sides}_{'fp16' if call.half else 'fp32'}"
        same = sum(name == base or name.startswith(f"{base}_") for name in named)
        named[f"{base}_{same + 1}" if same else base] = kernel
    return named
