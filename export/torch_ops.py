"""The cluinfer operators in PyTorch: forward, shapes for torch.export, and gradients for fine-tuning.

The meaning is that of `cluinfer.ops.reference`. Two arguments go beyond the ONNX operators: `alpha` and `beta` are
tensors here, so that they can be learned, and `layout` says where each point lies on the map (see
`cluinfer.export.nn.layout`), so that an exported program alone is enough to draw it. The code runs on any device;
sums are deterministic on CPU, and on a GPU under `torch.use_deterministic_algorithms(True)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cluinfer.errors import ShapeError
from cluinfer.ops.schema import EPSILON


def cluster_assign(
    points: Tensor,
    centers: Tensor,
    alpha: Tensor | float = 1.0,
    beta: Tensor | float = 0.0,
    sigmoid: bool = True,
    layout: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """points [G,D,N], centers [G,D,M] -> index int32 [G,N], weight [G,N]; differentiable but for the choice itself."""
    weight, index = _assign(points, centers, _scalar(alpha, points), _scalar(beta, points), sigmoid, layout or [])
    return index, weight


def cluster_scatter(values: Tensor, index: Tensor, base: Tensor, weight: Tensor | None = None) -> Tensor:
    """values [G,C,N], index [G,N], base [G,C,M], weight [G,N] or None -> centers [G,C,M]."""
    return _scatter(values, index, base, weight)  # type: ignore[no-any-return]


def cluster_gather(centers: Tensor, index: Tensor, weight: Tensor | None = None) -> Tensor:
    """centers [G,C,M], index [G,N], weight [G,N] or None -> points [G,C,N]."""
    return _gather(centers, index, weight)  # type: ignore[no-any-return]


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32, device=like.device)


def _wide(x: Tensor) -> Tensor:
    """The arithmetic's type: float32, or float64 where the input has it."""
    return x if x.dtype == torch.float64 else x.float()


def _require(fits: bool, operator: str, wanted: str, **tensors: Tensor) -> None:
    if not fits:
        came = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"{operator}: wanted {wanted}, got {came}")


def _slots(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The index as int64 [G,1,N] with out-of-range ones moved to `size`, and where it is in range."""
    inside = (index >= 0) & (index < size)
    return torch.where(inside, index, size).long().unsqueeze(1), inside.unsqueeze(1)


def _sums(rows: Tensor, slots: Tensor, size: int) -> Tensor:
    """Sum rows [G,C,N] into their slots -> [G,C,size]; slot `size` is dropped."""
    sums = rows.new_zeros(rows.shape[0], rows.shape[1], size + 1)
    return sums.scatter_add(2, slots.expand_as(rows), rows)[:, :, :size]


def _pick(centers: Tensor, slots: Tensor, inside: Tensor) -> Tensor:
    """centers [G,C,M] at the slots [G,1,N] -> [G,C,N], zero outside."""
    safe = torch.where(inside, slots, 0).expand(-1, centers.shape[1], -1)
    return torch.where(inside, centers.gather(2, safe), 0)


# --- ClusterAssign (gives the weight first: opcheck cannot add a float to an integer output that precedes it)


@torch.library.custom_op("cluinfer::cluster_assign", mutates_args=())
def _assign(
    points: Tensor, centers: Tensor, alpha: Tensor, beta: Tensor, sigmoid: bool, layout: list[int]
) -> tuple[Tensor, Tensor]:
    fits = points.ndim == centers.ndim == 3 and points.shape[:2] == centers.shape[:2] and centers.shape[2] > 0
    _require(fits, "cluster_assign", "points [G,D,N] and centers [G,D,M], M > 0", points=points, centers=centers)
    with torch.autocast(points.device.type, enabled=False):  # it would take the product below float32
        units = [normalize(_wide(x), dim=1, eps=EPSILON) for x in (centers, points)]
        cosine = units[0].transpose(1, 2) @ units[1]
    s = cosine * alpha.to(cosine.dtype) + beta.to(cosine.dtype)
    weight, index = (s.sigmoid() if sigmoid else s).max(dim=1)
    return weight.to(points.dtype), index.int()


@_assign.register_fake
def _(
    points: Tensor, centers: Tensor, alpha: Tensor, beta: Tensor, sigmoid: bool, layout: list[int]
) -> tuple[Tensor, Tensor]:
    shape = (points.shape[0], points.shape[2])
    return points.new_empty(shape), points.new_empty(shape, dtype=torch.int32)


def _assign_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    points, centers, alpha, beta, ctx.sigmoid, _ = inputs
    weight, index = output
    ctx.save_for_backward(points, centers, alpha, beta, weight, index)


def _assign_backward(ctx: Any, grad_weight: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    points, centers, alpha, beta, weight, index = ctx.saved_tensors
    slots, inside = _slots(index, centers.shape[2])
    wide_points, winners = _wide(points), _pick(_wide(centers), slots, inside)
    p, p_norm = _unit_and_norm(wide_points)
    c, c_norm = _unit_and_norm(winners)
    cosine = (p * c).sum(1, keepdim=True)
    w = _wide(weight)
    grad = (_wide(grad_weight) * (w * (1 - w) if ctx.sigmoid else 1)).unsqueeze(1)
    grad_cosine = grad * alpha.to(cosine.dtype)
    # below EPSILON the division is by a constant, and the norm's own gradient vanishes
    grad_points = grad_cosine * (c - torch.where(p_norm > EPSILON, cosine, 0) * p) / p_norm.clamp_min(EPSILON)
    grad_winners = grad_cosine * (p - torch.where(c_norm > EPSILON, cosine, 0) * c) / c_norm.clamp_min(EPSILON)
    return (
        grad_points.to(points.dtype),
        _sums(grad_winners, slots, centers.shape[2]).to(centers.dtype),
        (grad * cosine).sum().to(alpha.dtype).reshape(alpha.shape),
        grad.sum().to(beta.dtype).reshape(beta.shape),
        None,
        None,
    )


def _unit_and_norm(x: Tensor) -> tuple[Tensor, Tensor]:
    norm = x.norm(dim=1, keepdim=True)
    return x / norm.clamp_min(EPSILON), norm


_assign.register_autograd(_assign_backward, setup_context=_assign_context)


# --- ClusterScatter


@torch.library.custom_op("cluinfer::cluster_scatter", mutates_args=())
def _scatter(values: Tensor, index: Tensor, base: Tensor, weight: Tensor | None) -> Tensor:
    fits = values.ndim == base.ndim == 3 and values.shape[:2] == base.shape[:2] and base.shape[2] > 0
    fits = (
        fits and index.shape == (values.shape[0], values.shape[2]) and (weight is None or weight.shape == index.shape)
    )
    _require(
        fits, "cluster_scatter", "values [G,C,N], index [G,N], base [G,C,M]", values=values, index=index, base=base
    )
    wide, w = _wide(values), _weights(weight, index, values)
    slots, _ = _slots(index, base.shape[2])
    total = _sums(wide * w, slots, base.shape[2]) + _wide(base)
    return (total / (_sums(w, slots, base.shape[2]) + 1)).to(values.dtype)


@_scatter.register_fake
def _(values: Tensor, index: Tensor, base: Tensor, weight: Tensor | None) -> Tensor:
    return torch.empty_like(base, dtype=values.dtype, memory_format=torch.contiguous_format)


def _weights(weight: Tensor | None, index: Tensor, like: Tensor) -> Tensor:
    """The weight as [G,1,N], ones where there is none."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.ones_like(index, dtype=dtype).unsqueeze(1) if weight is None else weight.to(dtype).unsqueeze(1)


def _scatter_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, index, base, weight = inputs
    ctx.weighted = weight is not None
    ctx.save_for_backward(values, index, base, output, *([weight] if ctx.weighted else []))


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, index, base, output, *rest = ctx.saved_tensors
    weight = rest[0] if ctx.weighted else None
    w = _weights(weight, index, values)
    slots, inside = _slots(index, base.shape[2])
    share = _wide(grad) / (_sums(w, slots, base.shape[2]) + 1)
    share_of_point = _pick(share, slots, inside)
    grad_weight = None
    if weight is not None:
        distance = torch.where(inside, _wide(values), 0) - _pick(_wide(output), slots, inside)
        grad_weight = (share_of_point * distance).sum(1).to(weight.dtype)
    return (share_of_point * w).to(values.dtype), None, share.to(base.dtype), grad_weight


_scatter.register_autograd(_scatter_backward, setup_context=_scatter_context)


# --- ClusterGather


@torch.library.custom_op("cluinfer::cluster_gather", mutates_args=())
def _gather(centers: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    fits = centers.ndim == 3 and index.ndim == 2 and centers.shape[0] == index.shape[0] and centers.shape[2] > 0
    fits = fits and (weight is None or weight.shape == index.shape)
    _require(fits, "cluster_gather", "centers [G,C,M], index and weight [G,N], M > 0", centers=centers, index=index)
    slots, inside = _slots(index, centers.shape[2])
    picked = _pick(_wide(centers), slots, inside)
    if weight is not None:
        picked = torch.where(inside, picked * _wide(weight).unsqueeze(1), 0)
    return picked.to(centers.dtype)


@_gather.register_fake
def _(centers: Tensor, index: Tensor, weight: Tensor | None) -> Tensor:
    return centers.new_empty((centers.shape[0], centers.shape[1], index.shape[1]))


def _gather_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    centers, index, weight = inputs
    ctx.weighted = weight is not None
    ctx.save_for_backward(centers, index, *([weight] if ctx.weighted else []))


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    centers, index, *rest = ctx.saved_tensors
    slots, inside = _slots(index, centers.shape[2])
    wide = _wide(grad)
    if not ctx.weighted:
        return _sums(wide, slots, centers.shape[2]).to(centers.dtype), None, None
    (weight,) = rest
    grad_centers = _sums(wide * _weights(weight, index, centers), slots, centers.shape[2])
    grad_weight = (wide * _pick(_wide(centers), slots, inside)).sum(1)
    return grad_centers.to(centers.dtype), None, grad_weight.to(weight.dtype)


_gather.register_autograd(_gather_backward, setup_context=_gather_context)
