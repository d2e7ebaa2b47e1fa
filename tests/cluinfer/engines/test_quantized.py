"""Whether there is int8 in a graph, told from its bytes."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from cluinfer.engines.quantized import check_quantized, is_quantized
from cluinfer.errors import EngineError


def graph(*op_types: str, said: str = "") -> bytes:
    nodes = [helper.make_node(kind, ["x", "s", "z"], ["y"], name=f"of {kind}") for kind in op_types]
    model = helper.make_model(helper.make_graph(nodes, "main", [], []))
    helper.set_model_props(model, {"cluinfer": said})
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("content", "quantized"),
    [
        (graph("Conv", "Relu"), False),
        (graph("Conv", "QuantizeLinear", "DequantizeLinear"), True),
        (graph("DequantizeLinear"), True),  # weights as they are stored
        (graph("Conv", said='{"names": ["QuantizeLinear", "DequantizeLinear"]}'), False),  # of classes
        (graph("MyQuantizeLinear"), False),
        (b"", False),
    ],
)
def test_it_is_told_by_operators_alone(content: bytes, quantized: bool) -> None:
    assert is_quantized(content) == quantized
    wanted = "int8" if quantized else "fp32"
    check_quantized(content, wanted)
    with pytest.raises(EngineError):
        check_quantized(content, "fp32" if quantized else "int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_int8_is_not_taken_for_something_else(precision: str) -> None:
    with pytest.raises(EngineError) as error:
        check_quantized(graph("QuantizeLinear"), precision)
    assert str(error.value) == f"the graph has int8 in it, {precision} was asked for: ask for int8"


def test_what_is_stored_is_read() -> None:
    assert onnx.load_model_from_string(graph("QuantizeLinear")).graph.node[0].op_type == "QuantizeLinear"
