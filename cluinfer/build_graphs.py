"""The graph that an engine compiles for a precision: the exported one, or what calibration makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluinfer.engines import Engine, Options
from cluinfer.engines.quantized import INT8, is_quantized
from cluinfer.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluinfer.calibration import Calibrated
    from cluinfer.export.source import Source

AUTO, FP16 = "auto", "fp16"
NO_IMAGES = "int8 needs pictures like those that the model will see: give them with --calibration DIR"


@dataclass(frozen=True)
class Calibration:
    """What to calibrate on, and what int8 must keep: none of both bounds for the default layers."""

    images: Sequence[Any] = ()
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    saved: Path | None = None  # the state of an interrupted run

    def check(self, precision: str) -> None:
        """Refuse what cannot be used, before a model is exported for it."""
        bounded = self.min_agreement is not None or self.max_top1_drop is not None
        if precision in (INT8, AUTO) and (self.images or bounded):
            from cluinfer.calibration.data import check_given

            check_given(self.images)
            self.bounds()
        elif self.images or bounded:
            raise EngineError(f"calibration is for --precision int8 or auto, got {precision}")

    def bounds(self) -> Any:
        """As the search takes them; None for no search."""
        from cluinfer.calibration import Bounds

        given = {"min_agreement": self.min_agreement, "max_top1_drop": self.max_top1_drop}
        chosen = {name: value for name, value in given.items() if value is not None}
        return Bounds(**chosen) if chosen else None


@dataclass(frozen=True)
class Made:
    """A graph, and how it was calibrated if it was."""

    content: bytes
    calibrated: Calibrated | None = None


def make_graph(
    precision: str,
    source: Source,
    calibration: Calibration,
    engine: Engine,
    options: Options,
    progress: Callable[[str], None],
    timed: bool = True,
) -> Made:
    """The graph for this precision; `timed`: the engine works here, so that a search can time what it finds.

    Where an engine takes its types from the graph and has fp16, what int8 leaves is in fp16, as far as `to_half` goes.
    """
    by_graph = FP16 in engine.precisions and (precision != INT8 or engine.half_beside_int8())
    if by_graph and (precision == FP16 or (precision == INT8 and is_quantized(source.content))):
        graph = _parse(source)
        if _is_half(graph):
            return Made(source.content)
        from cluinfer.calibration import to_half

        progress("putting the graph into fp16")
        return Made(to_half(graph).SerializeToString())
    if precision != INT8 or is_quantized(source.content):
        return Made(source.content)
    if not calibration.images:
        raise EngineError(NO_IMAGES)
    from cluinfer.calibration import Settings, calibrate

    made = calibrate(
        _parse(source),
        calibration.images,
        Settings(half=by_graph),
        bounds=calibration.bounds(),
        engine=engine if timed else None,
        options=options,
        saved=calibration.saved,
        progress=progress,
    )
    return Made(made.graph.SerializeToString(), made)


def _is_half(graph: Any) -> bool:
    from onnx import TensorProto

    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.graph.initializer)


def _parse(source: Source) -> Any:
    import onnx

    return onnx.load_model_from_string(source.content)
