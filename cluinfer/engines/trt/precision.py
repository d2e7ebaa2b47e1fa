"""What a graph or an engine computes in, held against what was asked for.

A strongly typed network takes its types from the graph. So a precision is a property of the graph: float16 weights for
fp16, quantization nodes for int8. One that was asked for and is not there is an error, not a slower engine.
"""

from __future__ import annotations

from cluinfer.engines.trt.graph import count_quantized, types_of_weights
from cluinfer.errors import EngineError

PRECISIONS = ("fp32", "fp16", "int8")


def check_precision(precision: str) -> None:
    """Refuse what no engine can be built in."""
    if precision not in PRECISIONS:
        raise EngineError(f"the trt engine has precisions {', '.join(PRECISIONS)}, got {precision!r:.60}")


def check_types(graph: bytes, precision: str) -> None:
    """Refuse a graph that is not of this precision."""
    check_precision(precision)
    sizes = types_of_weights(graph)
    half = sizes["float16"]
    quantized = count_quantized(graph)
    if precision == "int8" and not quantized:
        raise EngineError("int8 was asked for, but the graph has no QuantizeLinear nodes: quantize it first")
    if precision == "fp16" and not half and not quantized:
        raise EngineError("fp16 was asked for, but none of the graph's weights are float16: convert it first")
    if (precision == "fp32" and half) or (precision != "int8" and quantized):
        what = "quantized" if quantized else "in float16"
        raise EngineError(
            f"{precision} was asked for, but the graph is {what}: ask for {'int8' if quantized else 'fp16'}"
        )


def check_pairs(graph: bytes, version: str) -> None:
    """Refuse, before TensorRT 10, an int8 graph with fp16 in it: its scales need opset 19, 8.6's parser has 17."""
    if count_quantized(graph) and types_of_weights(graph)["float16"]:
        raise EngineError(
            f"the int8 graph has float16 in it, for TensorRT 10 and later, this is {version}: build it here from the "
            "model, or from a graph of `cluinfer calibrate`, which leaves the rest in float32"
        )
