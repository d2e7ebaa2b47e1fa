"""A graph that has been observed on images: any of its layers can be put into int8."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from cluinfer.calibration import trt_rules
from cluinfer.calibration.data import COUNT, Given, split
from cluinfer.calibration.half import to_half
from cluinfer.calibration.layers import Layer, find_layers
from cluinfer.calibration.observe import observe
from cluinfer.calibration.quantize import quantize
from cluinfer.calibration.scales import METHODS, Scales, choose_scales
from cluinfer.errors import CalibrationError, GraphError
from cluinfer.export.onnx_file import read_promise

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to calibrate; `in_float`: layers, or patterns of their names, to leave in float; `half`: in fp16, as far as
    `to_half` goes, for engines that take their types from the graph.
    """

    method: str = "error"  # of METHODS
    count: int = COUNT  # images
    seed: int = 0
    balance: bool = True
    in_float: tuple[str, ...] = ()
    half: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CalibrationError(f"there is no method {self.method!r:.60}; there are: {', '.join(METHODS)}")
        if self.seed < 0:
            raise CalibrationError(f"seed {self.seed}: wanted 0 or more")


class Subject:
    """What was observed is in `scales`, by the name of the value that a layer reads."""

    def __init__(
        self,
        graph: onnx.ModelProto,
        images: Sequence[Given],
        settings: Settings,
        saved: Path | None,
        progress: Progress,
    ) -> None:
        promise = read_promise(graph)
        if promise is None:
            raise GraphError("the graph does not say what it is; export the checkpoint with cluinfer export")
        if is_quantized(graph):
            raise CalibrationError("the graph holds int8 already; calibrate the float32 graph that it was made of")
        self.graph, self.promise, self.settings = graph, promise, settings
        self.images = split(images, promise, settings.count, settings.seed)
        self.layers = find_layers(ir.from_proto(graph))
        readers: dict[str, list[Layer]] = {}
        for layer in self.layers:
            readers.setdefault(layer.reads, []).append(layer)
        axes = {name: those[0].channel_axis for name, those in readers.items()}
        seen = observe(graph, axes, self.images.calibrating, settings.seed, saved, progress)
        progress("choosing scales")
        chosen = {
            name: choose_scales(those, seen[name], settings.method, settings.balance) for name, those in readers.items()
        }
        self.scales: dict[str, Scales] = {name: scales for name, scales in chosen.items() if scales is not None}
        self.usable = [layer.name for layer in self.layers if layer.reads in self.scales]

    def in_int8(self, layers: Collection[str]) -> onnx.ModelProto:
        """The graph with these layers in int8, as far as they are usable; it obeys TensorRT's rules."""
        made = quantize(self.graph, [name for name in layers if name in self.usable], self.scales)
        trt_rules.demand(made)
        return to_half(made) if self.settings.half else made


def is_quantized(graph: onnx.ModelProto) -> bool:
    """Whether there is int8 in it already."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.graph.node)
