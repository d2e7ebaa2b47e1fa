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
    """Collect, in the order of computation, every clustering layer's assignment made by `model` inside the block.

    A layer that clusters again, since it or the model is called again, is there again as `path#2`, `path#3`, ...
    """
    paths = {module: path for path, module in model.named_modules()}
    seen: dict[str, Assignment] = {}

    def note(module: nn.Module, assignment: Assignment) -> None:
        if module in paths:
            path = name = paths[module]
            count = 1
            while name in seen:
                count += 1
                name = f"{path}#{count}"
            seen[name] = assignment

    token = _watcher.set(note)
    try:
        yield seen
    finally:
        _watcher.reset(token)


def show(module: nn.Module, assignment: Assignment) -> None:
    """Called by each clustering layer with what it used; costs nothing when nobody watches."""
    if watcher := _watcher.get():
        watcher(module, assignment)
