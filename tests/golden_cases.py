"""The golden cases of `tests/golden`, ready to be compared with.

    case = golden_cases.load("fec_small")
    model.load_state_dict(golden_cases.state_dict(case.shapes, case.kind))
    logits = model(torch.from_numpy(case.input))

golden/README.md says how the cases were made and what must match; `assert_logits` and
`assert_layer` hold a result against them at those tolerances.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent / "golden"

LOGITS_TOLERANCE = 2e-3  # of the golden logits' standard deviation
INDEX_AGREEMENT = 0.998  # of a layer's points outside near ties
WEIGHT_TOLERANCE = 1e-4

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class GoldenCase:
    """One case: what goes into the published model, and what comes out of it.

    `index`, `weight_mean` and `near_tie` are keyed by the clustering layer's module path;
    they are empty for icasc, whose `attention/...` and `classes` are in `raw`.
    """

    name: str
    kind: str  # fec, coc, clue or icasc
    shapes: dict[str, tuple[int, ...]]
    input: NDArray[np.float32]
    logits: NDArray[np.float32]
    index: dict[str, NDArray[np.int16]]
    weight_mean: dict[str, float]
    near_tie: dict[str, float]
    num_classes: int
    raw: dict[str, NDArray[Any]]

    def assert_logits(self, logits: NDArray[np.float32]) -> None:
        assert logits.shape == self.logits.shape
        error = float(np.abs(logits - self.logits).max() / self.logits.std())
        assert error <= LOGITS_TOLERANCE, f"{self.name}: logits off by {error:.2e} of their standard deviation"

    def assert_layer(self, layer: str, index: NDArray[Any], weight_mean: float | None = None) -> None:
        golden = self.index[layer]
        assert index.shape == golden.shape, f"{self.name} {layer}"
        differing = float((index != golden).mean())
        allowed = 1 - INDEX_AGREEMENT + self.near_tie[layer]
        assert differing <= allowed, f"{self.name} {layer}: {differing:.2%} of the indices differ, {allowed:.2%} may"
        if weight_mean is not None:
            error = abs(weight_mean - self.weight_mean[layer])
            assert error <= WEIGHT_TOLERANCE, f"{self.name} {layer}: weight mean off by {error:.1e}"


def cases(*kinds: str) -> list[str]:
    """Names of all cases, or of those of the given kinds."""
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    return [name for name in names if not kinds or json.loads((FOLDER / f"{name}.json").read_text())["kind"] in kinds]


@cache
def load(name: str) -> GoldenCase:
    """The case `name`; cached, so treat its arrays as read-only."""
    description = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        raw = {key: file[key] for key in file.files}
    shapes = {key: tuple(shape) for key, shape in description["state_dict"].items()}
    head = "fc.weight" if description["kind"] == "icasc" else "head.weight"
    return GoldenCase(
        name=name,
        kind=description["kind"],
        shapes=shapes,
        input=weights().image(description["input"]["seed"], tuple(description["input"]["shape"])),
        logits=raw["logits"],
        index=_below("index/", raw),
        weight_mean={layer: float(value) for layer, value in _below("weight_mean/", raw).items()},
        near_tie={layer: float(value) for layer, value in _below("near_tie/", raw).items()},
        num_classes=shapes[head][0],
        raw=raw,
    )


def state_dict(shapes: Shapes, kind: str) -> dict[str, torch.Tensor]:
    """A state dict of these keys and shapes, with the golden parameters (of any model, not only of the cases)."""
    import torch

    parameter = weights().resnet_parameter if kind == "icasc" else weights().parameter

    def value(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.zeros(shape, dtype=torch.int64)
        return torch.from_numpy(np.array(parameter(key, shape)))

    return {key: value(key, tuple(shape)) for key, shape in shapes.items()}


def fill(model: torch.nn.Module, kind: str) -> None:
    """Give `model` the golden parameters, whatever its architecture."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(state_dict(shapes, kind), strict=True)


@cache
def weights() -> Any:
    """The module golden/weights.py, loaded by path: that folder is data, not a package."""
    spec = importlib.util.spec_from_file_location("golden_weights", FOLDER / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _below(prefix: str, raw: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key[len(prefix) :]: value for key, value in raw.items() if key.startswith(prefix)}
