"""An exported graph held against the checkpoint it came from: ONNX Runtime against PyTorch, on the same images.

Polygraphy runs both and compares the numbers; what it has no measure for, how many points changed their cluster, is
`cluinfer.fidelity`'s. The images are smooth noise, the same every time, unless some are given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner  # type: ignore[import-untyped]
from polygraphy.backend.onnxrt import OnnxrtRunner  # type: ignore[import-untyped]
from polygraphy.common import TensorMetadata  # type: ignore[import-untyped]
from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc  # type: ignore[import-untyped]
from polygraphy.exception import PolygraphyException  # type: ignore[import-untyped]
from polygraphy.logger import G_LOGGER  # type: ignore[import-untyped]
from torch import nn

from cluinfer.errors import CluinferError, GraphError, ShapeError
from cluinfer.export.load import load_model
from cluinfer.export.models import ARCHS
from cluinfer.export.onnx_file import read_onnx, read_promise
from cluinfer.export.reference import check_classes, reference_outputs
from cluinfer.fidelity import MAX_ERROR, MIN_AGREEMENT, NEAR, Fidelity, compare
from cluinfer.graph import ATTENTION_CLASSES, EVIDENCE_CLASSES, INPUT, ClusterOutput, Promise

Array = NDArray[Any]
BATCHES = (1, 5)  # what is fixed to one batch by mistake shows with the other


@dataclass(frozen=True)
class Tensors:
    """What Polygraphy's comparator says of one output: its verdict and absolute errors."""

    passed: bool
    max_absolute: float
    mean_absolute: float


@dataclass(frozen=True)
class Verification:
    """What verifying found; `failures` is empty where the graph does what its checkpoint does."""

    fidelity: Fidelity
    tensors: Mapping[str, Tensors]  # by output
    maps: tuple[ClusterOutput, ...]
    failures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": not self.failures,
            "failures": list(self.failures),
            **self.fidelity.to_dict(),
            "polygraphy": {
                name: {
                    "passed": t.passed,
                    "max_absolute": _json(t.max_absolute),
                    "mean_absolute": _json(t.mean_absolute),
                }
                for name, t in self.tensors.items()
            },
        }

    def table(self) -> str:
        """Plain text."""
        verdicts = [f"not the same: {failure}" for failure in self.failures]
        return "\n".join([self.fidelity.table(self.maps), "", *(verdicts or ["the same, within the thresholds"])])


def verify(
    path: str | Path,
    reference: str | Path,
    images: Array | None = None,
    batches: Sequence[int] = BATCHES,
    arch: str | None = None,
    min_agreement: float = MIN_AGREEMENT,
    max_error: float = MAX_ERROR,
    near: float = NEAR,
    **overrides: object,
) -> Verification:
    """Run the graph and its checkpoint on the same images and compare everything that the graph promises.

    `images`: float32 [N, 3, H, W], as the graph takes them. `arch` and `overrides` as for `load_model`; by default the
    graph's own arch. The thresholds as for `Fidelity.failures`.
    """
    if Path(path).suffix == ".clu":
        raise GraphError(f"{path}: an artifact, wanted an ONNX file; verify the graph that it was built from")
    if Path(reference).suffix == ".pt2":
        raise GraphError(
            f"{reference}: a torch.export program, wanted a checkpoint; programs cannot be compared with yet"
        )
    graph = read_onnx(path)
    promise = read_promise(graph)
    if promise is None:
        raise GraphError(f"{path}: does not say what its outputs are; export the checkpoint with cluinfer export")
    model = load_model(reference, arch or (promise.arch if promise.arch in ARCHS else None), **overrides)
    check_classes(model, promise, reference)
    feeds = _feeds(graph, promise, images, batches)
    session = _session(graph, path)
    torch_runner = _TorchRunner(model, promise, session)
    runners = [torch_runner, OnnxrtRunner(session, name="onnx")]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # what is critical is raised as well
        try:
            results = Comparator.run(runners, data_loader=feeds)
        except CluinferError:
            raise
        except Exception as error:  # ONNX Runtime and Polygraphy have their own kinds
            raise GraphError(f"{path}: cannot be run: {_line(error)}") from error
        fidelity = _compare_runs(results, torch_runner.margins, near)
        tensors = _compare_tensors(results, fidelity, max_error)
    failures = fidelity.failures(min_agreement, max_error)
    named = [failure.partition(":")[0] for failure in failures]
    failures += [
        f"{name}: Polygraphy finds it off by up to {each.max_absolute:.1e}"
        for name, each in tensors.items()
        if not each.passed and name not in named and not fidelity.moved  # it does not tell such images apart
    ]
    return Verification(fidelity, tensors, promise.maps, tuple(failures))


def synthetic_images(count: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise [count, 3, H, W] with zero mean and unit deviation: octaves of random grids, stretched linearly."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 3, *size))
    for cells in (2, 4, 8, 16, 32):
        grid = random.standard_normal((count, 3, cells + 1, cells + 1))
        images += _stretch(_stretch(grid, 2, size[0]), 3, size[1]) / np.sqrt(cells)
    images -= images.mean((2, 3), keepdims=True)
    normal: NDArray[np.float32] = (images / np.maximum(images.std((2, 3), keepdims=True), 1e-6)).astype(np.float32)
    return normal


def _stretch(array: Array, axis: int, size: int) -> Array:
    """Linear interpolation of one axis to `size` points."""
    at = np.linspace(0, array.shape[axis] - 1, size)
    low = np.minimum(at.astype(int), array.shape[axis] - 2)
    shape = [1] * array.ndim
    shape[axis] = size
    share = (at - low).reshape(shape)
    stretched: Array = array.take(low, axis) * (1 - share) + array.take(low + 1, axis) * share
    return stretched


def read_images(path: str | Path) -> NDArray[np.float32]:
    """The images of a `.npy` or `.npz` file, float32 [N, 3, H, W]; of several arrays in an `.npz`, the first."""
    if not Path(path).is_file():
        raise ShapeError(f"{path}: wanted a .npy or .npz file with images, found none")
    try:
        held = np.load(path, allow_pickle=False)
        array = held if isinstance(held, np.ndarray) else held[held.files[0]]
    except Exception as error:  # a damaged file can fail in any of NumPy's and zipfile's readers
        raise ShapeError(f"{path}: not a .npy or .npz file with an array ({_line(error)})") from error
    if array.dtype != np.float32 or array.ndim != 4 or array.shape[1] != 3 or not len(array):
        raise ShapeError(f"{path}: wanted images as float32 [N, 3, H, W], got {array.dtype} {list(array.shape)}")
    images: NDArray[np.float32] = array
    return images


class _TorchRunner(BaseRunner):  # type: ignore[misc]
    """The checkpoint as a Polygraphy runner; the margins, which the comparator has no use for, are kept beside."""

    def __init__(self, model: nn.Module, promise: Promise, session: onnxruntime.InferenceSession) -> None:
        super().__init__(name="torch")
        self.model, self.promise, self.session = model, promise, session
        self.margins: list[dict[str, Array]] = []

    def get_input_metadata_impl(self) -> TensorMetadata:
        """As the graph has it."""
        (image,) = self.session.get_inputs()
        return TensorMetadata().add(INPUT, np.float32, image.shape)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """The classes that evidence and attention are for come from the graph: a tie between two is no error."""
        names = [name for name in (EVIDENCE_CLASSES, ATTENTION_CLASSES) if name in self.promise.outputs]
        classes = dict(zip(names, self.session.run(names, dict(feed_dict)), strict=True)) if names else {}
        found, margins = reference_outputs(self.model, self.promise, feed_dict[INPUT], classes)
        self.margins.append(margins)
        self.inference_time = 0.0  # Polygraphy complains without one
        return OrderedDict(found)


def _compare_runs(results: RunResults, margins: Sequence[Mapping[str, Array]], near: float) -> Fidelity:
    total: Fidelity | None = None
    for reference, candidate, margin in zip(results["torch"], results["onnx"], margins, strict=True):
        part = compare(dict(reference.items()), dict(candidate.items()), margin, near)
        total = part if total is None else total + part
    assert total is not None  # there is at least one batch
    return total


def _compare_tensors(results: RunResults, fidelity: Fidelity, max_error: float) -> dict[str, Tensors]:
    """Polygraphy's comparison of the numbers, at the same tolerance: this share of an output's deviation."""
    deviations = {name: (each.squares / max(each.count, 1)) ** 0.5 for name, each in fidelity.numbers.items()}
    function = SimpleCompareFunc(
        atol={name: max_error * deviation for name, deviation in deviations.items()},
        rtol=0.0,
        check_error_stat="max",
        find_output_func=lambda name, _index, _other: [name] if name in deviations else [],
    )
    try:
        (accuracy,) = Comparator.compare_accuracy(results, compare_func=function)
    except PolygraphyException as error:
        raise GraphError(f"Polygraphy cannot compare the outputs: {_line(error)}") from error
    found: dict[str, Tensors] = {}
    for batch in accuracy["torch", "onnx"]:
        for name, result in batch.items():
            before = found.get(name, Tensors(True, 0.0, 0.0))
            found[name] = Tensors(
                before.passed and bool(result),
                max(before.max_absolute, result.max_absdiff),
                max(before.mean_absolute, result.mean_absdiff),
            )
    return found


def _feeds(
    graph: onnx.ModelProto, promise: Promise, images: Array | None, batches: Sequence[int]
) -> list[dict[str, Array]]:
    """The images in batches of these sizes, over and over; a graph of fixed batch gets that one."""
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    if fixed := sides[0].dim_value:
        batches = [fixed]
    if not batches or min(batches) < 1:
        raise ShapeError(f"batches of {list(batches)}: wanted one positive number or more")
    if images is None:
        images = synthetic_images(sum(batches), promise.size)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.float32 or len(images) < (fixed or 1):
        raise ShapeError(f"images: wanted float32 [N, 3, H, W], got {images.dtype} {list(images.shape)}")
    if any(side.dim_value not in (0, size) for side, size in zip(sides[2:], images.shape[2:], strict=True)):
        raise ShapeError(f"images: wanted {promise.size[0]}x{promise.size[1]}, got {images.shape[2]}x{images.shape[3]}")
    feeds: list[dict[str, Array]] = []
    start = 0
    while start < len(images) and (not fixed or start + fixed <= len(images)):
        size = batches[len(feeds) % len(batches)]
        feeds.append({INPUT: np.ascontiguousarray(images[start : start + size])})
        start += size
    return feeds


def _session(graph: onnx.ModelProto, path: str | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    try:
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds
        raise GraphError(f"{path}: ONNX Runtime cannot load it: {_line(error)}") from error


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:240] if lines else type(error).__name__


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
