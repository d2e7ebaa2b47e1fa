"""Small models observed on smooth noise, once a process, for the tests of calibration."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
from engine_cases import SIZE, small

from cluinfer.calibration.agreement import Measure
from cluinfer.calibration.layers import Layer, find_layers
from cluinfer.calibration.plan import plan
from cluinfer.calibration.subject import Settings, Subject
from cluinfer.export.images import synthetic_images

IMAGES = 30  # of which six are held back


@cache
def graph(family: str) -> onnx.ModelProto:
    """Treat it as read-only."""
    return onnx.load_model_from_string(small(family))


@cache
def images() -> np.ndarray:
    return synthetic_images(IMAGES, SIZE)


@cache
def subject(family: str) -> Subject:
    return Subject(graph(family), [images()], Settings(), None, lambda step: None)


@cache
def measure(family: str) -> Measure:
    return Measure(graph(family), subject(family).images.held_back)


@cache
def default(family: str) -> onnx.ModelProto:
    """In int8 as it is by default."""
    those = subject(family)
    return those.in_int8([each.layer.name for each in plan(those.layers, those.usable) if each.int8])


def layers(model: ir.Model | onnx.ModelProto) -> dict[str, Layer]:
    """By name."""
    found = find_layers(model if isinstance(model, ir.Model) else ir.from_proto(model))
    return {layer.name: layer for layer in found}


def nodes(proto: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == op_type]
