"""What the CPU benchmark runs: each a function from a batch of images to logits, and how to build it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from cluinfer.engines import Options, Session, get_engine
from cluinfer.engines import openvino as engine

Run = Callable[[np.ndarray[Any, Any]], Any]


def eager(arch: str, size: int, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    model = models.published(arch, size)

    def run(x: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


def compiled(arch: str, size: int, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    model: Any = torch.compile(models.published(arch, size))

    def run(x: np.ndarray[Any, Any]) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


def onnx_runtime(path: Path, threads: int) -> Run:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda x: session.run(None, {"image": x})[0]


def published_blob(path: Path, options: Options) -> bytes:
    """The published graph compiled by plain OpenVINO, with the settings that ours has."""
    import openvino

    model = openvino.Core().read_model(path)
    return compile_plainly(openvino.Core(), model, options)


def compile_plainly(core: Any, model: Any, options: Options) -> bytes:
    engine._fix_batch(model, options.batch)
    exported: bytes = core.compile_model(model, "CPU", engine._settings(options)).export_model().getvalue()
    return exported


def load_plainly(blob: bytes, options: Options, core: Any = None) -> Session:
    import openvino

    core = core or openvino.Core()
    loaded = core.import_model(io.BytesIO(blob), "CPU", engine._settings(options))
    return engine.OpenVINOSession(loaded, options.batch)


def session(blob: bytes, options: Options) -> Session:
    return get_engine("openvino").load(blob, options)


def runner(made: Session) -> Run:
    return lambda x: made.run({"image": x})["logits"]


def floor(path: Path, options: Options) -> Session:
    """Our graph with the cluster operators cut out: what the convolutions and norms around them cost.

    A mixer passes its values on, a pool averages them: one copy of the map, which any operator there must write. What
    CLUENet's aggregation gives becomes a constant, so that the small layers behind it vanish too.
    """
    from openvino import opset13 as ov

    core, library = engine._core()
    if not library:
        raise RuntimeError("the floor needs the OpenVINO extension")
    from cluinfer.engines.openvino_fusion import fuse
    from cluinfer.engines.openvino_fusion.edit import TO_LAST, replace

    model = core.read_model(path)
    fuse(model, library, projections=False)  # they are convolutions
    engine._fix_batch(model, options.batch)
    last = np.array(TO_LAST)
    sources: dict[tuple[int, ...], Any] = {}
    for node in list(model.get_ordered_ops()):
        kind, given = node.get_type_name(), node.get_attributes()
        if kind in ("ClusterBlock", "ClusterPool"):
            start, source = given["first_value"], node.input_value(1).get_node().input_value(0)
            channels = given.get("value_channels", given["channels"])
            values = _channels(source, start, given["heads"] * channels)
            if kind == "ClusterPool":
                shape = list(source.get_shape())
                kernel = [
                    shape[2] // (given["fold"][0] * given["grid"][0]),
                    shape[3] // (given["fold"][1] * given["grid"][1]),
                ]
                values = ov.avg_pool(values, kernel, [0, 0], [0, 0], kernel, True)
            replace(node.output(0), ov.transpose(values, last).output(0))
        elif kind == "ClusterAggregate":
            source = node.input_value(1).get_node().input_value(0)
            sources[tuple(source.get_shape()[2:])] = _channels(
                source, given["first_value"], given["heads"] * given["channels"]
            )
            for output in node.outputs():
                replace(output, ov.constant(np.ones(output.get_shape(), np.float32)).output(0))
        elif kind == "ClusterMapGather":
            replace(node.output(0), ov.transpose(sources[given["rows"], given["columns"]], last).output(0))
    model.validate_nodes_and_infer_types()
    left = {n.get_type_name() for n in model.get_ops() if n.get_type_name().startswith("Cluster")}
    assert left <= {"ClusterMapNorm"}, left  # a norm, which stays
    return load_plainly(compile_plainly(core, model, options), options, core)


def _channels(source: Any, first: int, count: int) -> Any:
    from openvino import opset13 as ov

    one = np.array([1], np.int64)
    return ov.slice(source, np.array([first]), np.array([first + count]), one, one)
