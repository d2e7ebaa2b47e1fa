"""How close each assignment was: the difference of a point's two best similarities, seen while a model runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

import cluinfer.export.torch_ops  # noqa: F401 - registers the operator that is watched
from cluinfer.export.nn.watch import Assignment
from cluinfer.ops.schema import EPSILON


class Margins:
    """The margins of the assignments made in a `watch_margins` block, [G, N] each."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, assignment: Assignment) -> Tensor:
        """The margin of each point of this assignment; infinite where there is one centre alone."""
        return self._held[assignment.index.data_ptr()][1]

    def note(self, index: Tensor, margin: Tensor) -> None:
        """Remember a margin; the index is held as well, since its place in memory is what tells assignments apart."""
        self._held[index.data_ptr()] = (index, margin)


@contextmanager
def watch_margins() -> Iterator[Margins]:
    """Collect the margins of every assignment made inside the block, whatever module makes it."""
    margins = Margins()
    with _Watcher(margins):
        yield margins


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, margins: Margins) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.margins = margins

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.cluinfer.cluster_assign.default:
            points, centers, alpha, beta, sigmoid = args[:5]
            self.margins.note(out[1], _margin(points, centers, alpha, beta, sigmoid))
        return out


def _margin(points: Tensor, centers: Tensor, alpha: Tensor, beta: Tensor, sigmoid: bool) -> Tensor:
    if centers.shape[2] == 1:
        return torch.full((points.shape[0], points.shape[2]), math.inf)
    cosine = normalize(centers, dim=1, eps=EPSILON).transpose(1, 2) @ normalize(points, dim=1, eps=EPSILON)
    s = cosine * alpha.to(cosine.dtype) + beta.to(cosine.dtype)
    best = (s.sigmoid() if sigmoid else s).topk(2, dim=1).values
    return best[:, 0] - best[:, 1]
