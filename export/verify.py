"""A graph or an artifact held against the checkpoint it came from, on the same images.

A graph runs in ONNX Runtime, an artifact in its engine, the checkpoint in PyTorch. Polygraphy compares the numbers;
what it has no measure for, how many points changed their cluster, is `cluinfer.fidelity`'s. The images are smooth
noise, the same every time, unless some are given. `measure` compares any two ways to run a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc  # type: ignore[import-untyped]
from polygraphy.exception import PolygraphyException  # type: ignore[import-untyped]
from polygraphy.logger import G_LOGGER  # type: ignore[import-untyped]

from cluinfer.errors import GraphError, ShapeError
from cluinfer.export.images import prepare_pictures, synthetic_images
from cluinfer.export.load import load_model
from cluinfer.export.models import ARCHS
from cluinfer.export.onnx_file import read_onnx, read_promise
from cluinfer.export.reference import check_classes, reference_outputs
from cluinfer.fidelity import MAX_ERROR, MIN_AGREEMENT, NEAR, Fidelity, compare
from cluinfer.graph import ATTENTION_CLASSES, EVIDENCE_CLASSES, INPUT, ClusterOutput, Promise
from cluinfer.preprocess import Picture

Array = NDArray[Any]
Outputs = Mapping[str, Array]
Run = Callable[[Array], Outputs]  # images to all outputs
Reference = Callable[[Array, Outputs], tuple[Outputs, Outputs]]  # images and classes to outputs and margins
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
    pictures: Sequence[Picture] = (),
    **overrides: object,
) -> Verification:
    """Run the graph or artifact and its checkpoint on the same images and compare everything that it promises.

    `images`: float32 [N, 3, H, W], as the graph takes them; or `pictures`, in any form. `arch` and `overrides` as for
    `load_model`; by default the graph's own arch. The thresholds as for `Fidelity.failures`.
    """
    if Path(reference).suffix == ".pt2":
        raise GraphError(
            f"{reference}: a torch.export program, wanted a checkpoint; programs cannot be compared with yet"
        )
    with closing(ArtifactRun(path) if Path(path).suffix == ".clu" else GraphRun(read_onnx(path), path)) as candidate:
        promise = candidate.promise
        model = load_model(reference, arch or (promise.arch if promise.arch in ARCHS else None), **overrides)
        check_classes(model, promise, reference)
        if pictures:
            images = prepare_pictures(pictures, promise)
        feeds = _feeds(candidate.sides, promise, images, batches)
        runs = list(_run_both(candidate, partial(reference_outputs, model, promise), feeds))
    fidelity = _total(runs, near)
    tensors = _compare_tensors(runs, fidelity, max_error)
    failures = fidelity.failures(min_agreement, max_error)
    named = [failure.partition(":")[0] for failure in failures]
    failures += [
        f"{name}: Polygraphy finds it off by up to {each.max_absolute:.1e}"
        for name, each in tensors.items()
        if not each.passed and name not in named and not fidelity.moved  # it does not tell such images apart
    ]
    return Verification(fidelity, tensors, promise.maps, tuple(failures))


@dataclass(frozen=True)
class _Both:
    """What the reference and the candidate give for one batch."""

    wanted: Outputs
    margins: Outputs
    got: Outputs


def measure(candidate: Run, reference: Reference, feeds: Iterable[Array], near: float = NEAR) -> Fidelity:
    """How far the candidate is from the reference on these batches of images, of which there is at least one."""
    return _total(_run_both(candidate, reference, feeds), near)


def _run_both(candidate: Run, reference: Reference, feeds: Iterable[Array]) -> Iterator[_Both]:
    """The classes that evidence and attention are for come from the candidate: a tie between two is no error."""
    for images in feeds:
        got = candidate(images)
        classes = {name: got[name] for name in (EVIDENCE_CLASSES, ATTENTION_CLASSES) if name in got}
        wanted, margins = reference(images, classes)
        yield _Both(wanted, margins, got)


def _total(runs: Iterable[_Both], near: float) -> Fidelity:
    total: Fidelity | None = None
    for both in runs:
        part = compare(both.wanted, both.got, both.margins, near)
        total = part if total is None else total + part
    if total is None:
        raise ShapeError("no images to compare with: wanted one at least")
    return total


def _compare_tensors(runs: Sequence[_Both], fidelity: Fidelity, max_error: float) -> dict[str, Tensors]:
    """Polygraphy's comparison of the numbers, at the same tolerance: this share of an output's deviation."""
    deviations = {name: (each.squares / max(each.count, 1)) ** 0.5 for name, each in fidelity.numbers.items()}
    function = SimpleCompareFunc(
        atol={name: max_error * deviation for name, deviation in deviations.items()},
        rtol=0.0,
        check_error_stat="max",
        find_output_func=lambda name, _index, _other: [name] if name in deviations else [],
    )
    results = RunResults()
    results.add([dict(both.wanted) for both in runs], runtime=0.0, runner_name="reference")
    results.add([dict(both.got) for both in runs], runtime=0.0, runner_name="candidate")
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # what is critical is raised as well
            (accuracy,) = Comparator.compare_accuracy(results, compare_func=function)
    except PolygraphyException as error:
        raise GraphError(f"Polygraphy cannot compare the outputs: {_line(error)}") from error
    found: dict[str, Tensors] = {}
    for batch in accuracy["reference", "candidate"]:
        for name, result in batch.items():
            before = found.get(name, Tensors(True, 0.0, 0.0))
            found[name] = Tensors(
                before.passed and bool(result),
                max(before.max_absolute, result.max_absdiff),
                max(before.mean_absolute, result.mean_absdiff),
            )
    return found


def _feeds(sides: tuple[int, int, int], promise: Promise, images: Array | None, batches: Sequence[int]) -> list[Array]:
    """The images in batches of these sizes, over and over; a graph of fixed batch gets that one."""
    fixed = sides[0]
    if fixed:
        batches = [fixed]
    if not batches or min(batches) < 1:
        raise ShapeError(f"batches of {list(batches)}: wanted one positive number or more")
    if images is None:
        images = synthetic_images(sum(batches), promise.size)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.float32 or len(images) < (fixed or 1):
        raise ShapeError(f"images: wanted float32 [N, 3, H, W], got {images.dtype} {list(images.shape)}")
    if any(side not in (0, size) for side, size in zip(sides[1:], images.shape[2:], strict=True)):
        raise ShapeError(f"images: wanted {promise.size[0]}x{promise.size[1]}, got {images.shape[2]}x{images.shape[3]}")
    feeds: list[Array] = []
    start = 0
    while start < len(images) and (not fixed or start + fixed <= len(images)):
        size = batches[len(feeds) % len(batches)]
        feeds.append(np.ascontiguousarray(images[start : start + size]))
        start += size
    return feeds


class GraphRun:
    """A graph in ONNX Runtime, of the file that errors name; `sides` are batch, height and width, 0 where free."""

    def __init__(self, graph: onnx.ModelProto, path: str | Path) -> None:
        promise = read_promise(graph)
        if promise is None:
            raise GraphError(f"{path}: does not say what its outputs are; export the checkpoint with cluinfer export")
        self.path, self.promise = path, promise
        batch, _, height, width = (side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim)
        self.sides = (batch, height, width)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        try:
            self.session: Any = onnxruntime.InferenceSession(
                graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a dozen kinds
            raise GraphError(f"{path}: ONNX Runtime cannot load it: {_line(error)}") from error

    def __call__(self, images: Array) -> dict[str, Array]:
        """All promised outputs."""
        names = self.promise.outputs
        try:
            return dict(zip(names, self.session.run(names, {INPUT: images}), strict=True))
        except Exception as error:  # ONNX Runtime has a dozen kinds
            raise GraphError(f"{self.path}: cannot be run: {_line(error)}") from error

    def close(self) -> None:
        """Let the session go."""
        self.session = None


class ArtifactRun:
    """An artifact in its engine."""

    def __init__(self, path: str | Path) -> None:
        from cluinfer.runtime import Runtime

        self.runtime = Runtime(path)
        self.promise = self.runtime.promise
        self.sides = (0, *self.promise.size)

    def __call__(self, images: Array) -> dict[str, Array]:
        """All promised outputs."""
        return self.runtime.run(images)

    def close(self) -> None:
        """Free the engine."""
        self.runtime.close()


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:240] if lines else type(error).__name__


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
