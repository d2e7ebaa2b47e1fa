"""The parts of an ONNX model, walked wherever they stand; tensors that must hold what they declare; safe names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import TensorProto

from cluinfer.errors import GraphError

MAX_BYTES = 2**31 - 1  # what protobuf can hold, and so what a graph with all its weights may have
Nodes = Iterable[onnx.NodeProto]

# the field of TensorProto that holds numbers of this type, and the bits of one as raw data
_STORED: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 32),
    TensorProto.DOUBLE: ("double_data", 64),
    TensorProto.FLOAT16: ("int32_data", 16),
    TensorProto.BFLOAT16: ("int32_data", 16),
    TensorProto.FLOAT8E4M3FN: ("int32_data", 8),
    TensorProto.FLOAT8E5M2: ("int32_data", 8),
    TensorProto.INT64: ("int64_data", 64),
    TensorProto.INT32: ("int32_data", 32),
    TensorProto.INT16: ("int32_data", 16),
    TensorProto.INT8: ("int32_data", 8),
    TensorProto.INT4: ("int32_data", 4),
    TensorProto.UINT64: ("uint64_data", 64),
    TensorProto.UINT32: ("uint64_data", 32),
    TensorProto.UINT16: ("int32_data", 16),
    TensorProto.UINT8: ("int32_data", 8),
    TensorProto.UINT4: ("int32_data", 4),
    TensorProto.BOOL: ("int32_data", 8),
    TensorProto.STRING: ("string_data", 0),
}


def check_text(message: Message) -> None:
    """Refuse texts that are none: protobuf hands them over as bytes, which nothing else here expects."""
    if isinstance(message, TensorProto):  # not its numbers: listing them would copy all weights
        texts: list[object] = [message.name, message.doc_string]
        inner: list[Message] = [*message.external_data, *message.metadata_props]
    else:
        fields = [
            (field.type, value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value])
            for field, value in message.ListFields()
            if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
        ]
        texts = [text for kind, values in fields if kind == FieldDescriptor.TYPE_STRING for text in values]
        inner = [each for kind, values in fields if kind == FieldDescriptor.TYPE_MESSAGE for each in values]
    if not all(isinstance(text, str) for text in texts):
        raise GraphError("holds a name that is not text; it is damaged: copy or export it again")
    for each in inner:
        check_text(each)


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every subgraph."""
    yield model.graph
    for attribute in all_attributes(model):
        yield from graphs_of(attribute)


def all_attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """Of all nodes, those in subgraphs and functions included, and the defaults of functions."""
    for node in nodes_within(model.graph.node):
        yield from node.attribute
    for function in model.functions:
        for node in nodes_within(function.node):
            yield from node.attribute
        for attribute in function.attribute_proto:
            yield attribute
            for graph in graphs_of(attribute):
                for node in nodes_within(graph.node):
                    yield from node.attribute


def nodes_within(nodes: Nodes) -> Iterator[onnx.NodeProto]:
    """These nodes and all in their subgraphs, whose depth protobuf limits when it reads the file."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in graphs_of(attribute):
                yield from nodes_within(graph.node)


def graphs_of(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The subgraphs that an attribute holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every dense tensor of the model, wherever it stands."""
    for graph in all_graphs(model):
        yield from graph.initializer
    for attribute in all_attributes(model):
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t


def elements(tensor: onnx.TensorProto) -> int:
    """How many numbers a tensor declares to hold."""
    if any(side < 0 for side in tensor.dims):
        raise GraphError(f"tensor {name_of(tensor.name)} has a negative side in {list(tensor.dims)}")
    return math.prod(tensor.dims)


def size_in_bytes(tensor: onnx.TensorProto) -> int:
    """How many bytes a tensor's declared type and sides take as raw data."""
    if tensor.data_type not in _STORED:
        kind = type_name(tensor.data_type)
        raise GraphError(
            f"tensor {name_of(tensor.name)} is of type {kind}, which no engine runs; use floats or integers"
        )
    size = -(-elements(tensor) * _STORED[tensor.data_type][1] // 8)
    if size > MAX_BYTES:
        raise GraphError(f"tensor {name_of(tensor.name)} declares sides {list(tensor.dims)}: more than 2 GiB")
    return size


def check_tensor(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor whose data is not as much as its type and sides declare."""
    wanted = size_in_bytes(tensor)
    field, bits = _STORED[tensor.data_type]
    declared = f"tensor {name_of(tensor.name)} declares {type_name(tensor.data_type)} {list(tensor.dims)}"
    if tensor.HasField("raw_data"):
        if bits == 0 or len(tensor.raw_data) != wanted:
            raise GraphError(f"{declared}, {wanted} bytes, but holds {len(tensor.raw_data)}; export it again")
    else:
        count = elements(tensor) if bits != 4 else wanted
        held = len(getattr(tensor, field))
        if held != count:
            raise GraphError(f"{declared}, {count} numbers, but holds {held}; export it again")


def name_of(name: str, quote: str = "'") -> str:
    """A name from the file, safe to print: one line, not endless."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return f"{quote}{printable if len(printable) <= 60 else printable[:57] + '...'}{quote}"


def type_name(kind: int) -> str:
    """FLOAT, INT32, ...; a number where ONNX knows none."""
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else f"number {kind}"
