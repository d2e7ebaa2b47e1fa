"""See the assignments that a model makes while it runs, by the module path of each clustering layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor, nn

from cluinfer.export.nn.layout import Layout


@dataclass(frozen=True)
class Assignment:
    """Which centre each point went to (index, int32 [G, N]), how similar it was (weight [G, N]), and where it lies."""

    index: Tensor
    weight: Tensor
    layout: Layout


_watcher: ContextVar[Callable[[nn.Module, Assignment], None] | None] = ContextVar("cluinfer_watcher", default=None)


@contextmanager
def watch_clusters(model: nn.Module) -> Iterator[dict[str, Assignment]]:
    """Collect, in the order of computation, every clustering layer's assignment made by `model` inside the block."""
    paths = {module: path for path, module in model.named_modules()}
    seen: dict[str, Assignment] = {}

    def note(module: nn.Module, assignment: Assignment) -> None:
        if module in paths:
            seen[paths[module]] = assignment

    token = _watcher.set(note)
    try:
        yield seen
    finally:
        _watcher.reset(token)


def show(module: nn.Module, assignment: Assignment) -> None:
    """Called by each clustering layer with what it used; costs nothing when nobody watches."""
    if watcher := _watcher.get():
        watcher(module, assignment)
