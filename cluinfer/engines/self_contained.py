"""Whether an ONNX graph is all in its bytes: tensors may name a file to be read instead, and this one may be anyone's.

Measured: OpenVINO 2026.4 reads such a file from the working folder, ONNX Runtime 1.31 refuses some. So a graph is
looked through before an engine sees it, wherever a tensor can stand in it, without any package for ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluinfer.errors import EngineError

# By kind of message: in which fields messages of which kind lie. Field numbers are those of onnx.proto.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL = (13, 14)  # of a tensor: where its content is, and whether it is elsewhere
_FIXED = {1: 8, 5: 4}  # bytes of these wire types
_VARINT, _LENGTH = 0, 2


def check_self_contained(graph: bytes) -> None:
    """Refuse what names another file, or is no ONNX."""
    waiting = [("model", memoryview(graph))]
    try:
        while waiting:
            kind, message = waiting.pop()
            if kind == "tensor":
                if any(field in _EXTERNAL and value for field, value in _fields(message)):
                    raise EngineError("the graph keeps tensors in other files, which are not read: store them in it")
                continue
            inside = _INSIDE[kind]
            waiting += [
                (inside[field], value)
                for field, value in _fields(message)
                if field in inside and isinstance(value, memoryview)
            ]
    except (IndexError, ValueError) as error:
        raise EngineError("the graph is damaged or no ONNX: export it again") from error


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a protobuf message: the bytes of those that have a length, the number or 0 of the others."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7  # as protobuf reads it
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
        elif wire == _LENGTH:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("a field goes beyond its message")
            yield field, message[at : at + size]
            at += size
        else:
            at += _FIXED[wire] if wire in _FIXED else _unknown(wire)
            yield field, 0


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def _unknown(wire: int) -> int:
    raise ValueError(f"wire type {wire}, which ONNX does not use")
