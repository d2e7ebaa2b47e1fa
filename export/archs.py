"""The published architectures with their sizes, counted from the models themselves, which are never allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cluinfer.export.models import ARCHS, build, family_of
from cluinfer.export.nn.clustering import HeadLinear

CLASSES = 100  # what the published sizes are given for


@dataclass(frozen=True)
class ArchSummary:
    """One architecture: parameters and multiply-accumulates for one image of its size."""

    name: str
    family: str
    parameters: int
    macs: int
    size: tuple[int, int, int]
    classes: int


def summaries(classes: int = CLASSES) -> list[ArchSummary]:
    """Every published architecture, with a head for this many classes."""
    made = []
    for name, config in ARCHS.items():
        config = replace(config, num_classes=classes)
        with torch.device("meta"):
            model = build(config).eval()
            image = torch.empty(1, 3, *config.size)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        made.append(
            ArchSummary(name, family_of(config), parameters, count_macs(model, image), (3, *config.size), classes)
        )
    return made


def count_macs(model: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of one call, counted as the published sizes are.

    Convolutions, linear layers (their bias counts as one more) and similarities of points and centres by their
    products; scatter, gather, pooling, GELU and ReLU one an element, layer scale and norms one and two. Not counted, as
    there: additions, softmax, the sigmoid, the final mean, and CLUENet's soft aggregation.
    """
    counter = _Counter()
    hooks = [  # torch spells a linear layer in several ways, depending on strides, so modules are counted instead
        module.register_forward_hook(lambda module, inputs, output: counter.add(_of_linear(module, output)))
        for module in model.modules()
        if isinstance(module, nn.Linear | HeadLinear)
    ]
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.total


class _Counter(TorchDispatchMode):
    """Sums the cost of every operator that is run under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def add(self, count: int) -> None:
        self.total += count

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        cost = _COSTS.get(func.overloadpacket)
        if cost is not None:
            self.add(cost(args, output[0] if isinstance(output, tuple) else output))
        return output


def _of_convolution(args: tuple[Any, ...], output: Tensor) -> int:
    weight, bias, transposed = args[1], args[2], args[6]
    macs = (args[0] if transposed else output).numel() * math.prod(weight.shape[1:])
    return int(macs + (output.numel() if bias is not None else 0))


def _of_linear(module: nn.Linear | HeadLinear, output: Tensor) -> int:
    return output.numel() * (module.weight.shape[-1] + 1)


def _of_scale(args: tuple[Any, ...], output: Tensor) -> int:
    """A layer scale is the one product of [C, 1, 1] with a map."""
    a, b = args[0], args[1]
    is_scale = isinstance(b, Tensor) and a.ndim == 3 and b.ndim == 4 and a.shape[1:] == (1, 1)
    return output.numel() if is_scale else 0


def _of_assign(args: tuple[Any, ...], output: Tensor) -> int:
    return int(args[0].numel() * args[1].shape[2])


def _each_output(args: tuple[Any, ...], output: Tensor) -> int:
    return output.numel()


def _two_each_output(args: tuple[Any, ...], output: Tensor) -> int:
    return 2 * output.numel()


def _each_input(args: tuple[Any, ...], output: Tensor) -> int:
    return int(args[0].numel())


_aten, _ours = torch.ops.aten, torch.ops.cluinfer
_COSTS = {
    _aten.convolution: _of_convolution,
    _aten.native_group_norm: _two_each_output,
    _aten.native_layer_norm: _two_each_output,
    _aten.native_batch_norm: _two_each_output,
    _aten._native_batch_norm_legit_no_training: _two_each_output,
    _aten.gelu: _each_output,
    _aten.relu: _each_output,
    _aten.relu_: _each_output,
    _aten.mul: _of_scale,
    _aten.avg_pool2d: _each_input,
    _aten._adaptive_avg_pool2d: _each_input,
    _aten.max_pool2d_with_indices: _each_input,
    _ours.cluster_assign: _of_assign,
    _ours.cluster_scatter: _each_input,
    _ours.cluster_gather: _each_output,
}
