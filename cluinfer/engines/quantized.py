"""Whether there is int8 in a graph, and whether that is what was asked for; told without any package for ONNX."""

from __future__ import annotations

from cluinfer.errors import EngineError

INT8 = "int8"
_OPERATORS = (b"QuantizeLinear", b"DequantizeLinear")


def is_quantized(graph: bytes) -> bool:
    """Whether a node is one of them: its type stands in the file as it is spelt, behind its field's tag and length."""
    return any(b"\x22" + bytes([len(name)]) + name in graph for name in _OPERATORS)


def check_quantized(graph: bytes, precision: str) -> None:
    """Precision is a property of the graph where int8 is concerned: an engine neither makes it nor takes it out."""
    quantized = is_quantized(graph)
    if precision == INT8 and not quantized:
        raise EngineError("int8 wants a graph with int8 in it, which cluinfer calibrate makes of this one")
    if precision != INT8 and quantized:
        raise EngineError(f"the graph has int8 in it, {precision} was asked for: ask for int8")
