"""Class attention of a CNN, and the ICASC losses that make it separate classes and agree across layers.

The attention of class c on a feature map F [B, D, h, w] is

    A_c(F) = ReLU( sum_k mean_ij( ReLU(dy_c / dF_k,ij) ) * F_k )

The losses work with any classifier: they want its logits and two of its feature maps, both still in the autograd
graph that led to the logits. A^t is the map of the true class, A^c that of the highest other class, all [B, h, w] and
never negative; every loss is a mean over the batch.

    separation   2 * sum( min(A^t, A^c) * mask(A^t) ) / sum( A^t + A^c )
    consistency  theta - sum( A^t_inner * mask(A^t_last) ) / sum( A^t_inner )
    mask(A)      sigmoid( omega * (A - sigma * max A) )

A ratio whose denominator is below EMPTY counts as 0 and passes no gradient: it has no map to speak of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluinfer.errors import ShapeError

OMEGA = 100.0  # steepness of the mask
SIGMA = 0.55  # the mask's threshold, as a share of the map's maximum
THETA = 0.8  # the share of the inner attention wanted inside the last layer's mask
EMPTY = 1e-12  # a map, or two, whose sum is below this is empty


def attention_map(weights: Tensor, features: Tensor) -> Tensor:
    """ReLU of the weighted sum over channels: weights [B, k, D], features [B, D, h, w] -> maps [B, k, h, w]."""
    maps = weights @ features.flatten(2)
    return F.relu(maps.reshape(*weights.shape[:2], *features.shape[2:]))


def channel_weights(gradient: Tensor) -> Tensor:
    """The mean over positions of what is positive in a gradient [..., h, w]."""
    return F.relu(gradient).mean((-2, -1))


def class_attention(
    logits: Tensor, features: Sequence[Tensor], classes: Tensor, create_graph: bool = True
) -> list[Tensor]:
    """The attention of the classes [B, k] on each of the feature maps, [B, k, h, w] each, by autograd.

    The maps can be trained through (`create_graph`), and the graph of the logits stays for the loss. Where the batch
    is normalised by its own statistics, the gradient includes what the images of the batch do to each other.
    """
    if classes.ndim != 2 or classes.shape[0] != logits.shape[0]:
        raise ShapeError(f"class attention: wanted classes [{logits.shape[0]}, k], got {list(classes.shape)}")
    weights: list[list[Tensor]] = [[] for _ in features]
    for score in logits.gather(1, classes).sum(0).unbind():
        gradients = torch.autograd.grad(score, features, retain_graph=True, create_graph=create_graph)
        for of_feature, gradient in zip(weights, gradients, strict=True):
            of_feature.append(channel_weights(gradient))
    return [attention_map(torch.stack(w, 1), feature) for w, feature in zip(weights, features, strict=True)]


def strongest_other(logits: Tensor, target: Tensor) -> Tensor:
    """The class [B] with the highest logit [B, classes] apart from the target [B]."""
    if logits.shape[1] < 2:
        raise ShapeError(f"the highest other class: wanted 2 classes or more, got {logits.shape[1]}")
    return logits.scatter(1, target.unsqueeze(1), float("-inf")).argmax(1)


def separability(a_t: Tensor, a_c: Tensor) -> Tensor:
    """How far two maps [B, h, w] differ, per image: 1 - 2 * sum min(A^t, A^c) / sum(A^t + A^c), each of maximum 1.

    0 for the same map (at any scale), 1 where they share no position. One empty map (all zero) gives 1; two give 0,
    since nothing tells them apart.
    """
    _require_same(a_t, a_c)
    t, c = (a / torch.where(_peak(a) > 0, _peak(a), 1) for a in (a_t, a_c))
    total = _total(t + c)
    return torch.where(total > EMPTY, 1 - _ratio(2 * _total(torch.minimum(t, c)), total), 0)


class AttentionSeparation(nn.Module):
    """The loss that keeps the true class and its rival off the same positions: maps [B, h, w] -> scalar."""

    def __init__(self, omega: float = OMEGA, sigma: float = SIGMA) -> None:
        super().__init__()
        self.omega, self.sigma = omega, sigma

    def forward(self, a_t: Tensor, a_c: Tensor) -> Tensor:
        """0 where the rival is silent on what the true class attends to; at most 1."""
        _require_same(a_t, a_c)
        shared = _total(torch.minimum(a_t, a_c) * _mask(a_t, self.omega, self.sigma))
        return _ratio(2 * shared, _total(a_t + a_c)).mean()


class AttentionConsistency(nn.Module):
    """The loss that keeps the inner attention within the last layer's: inner [B, h', w'], last [B, h, w] -> scalar.

    The mask of the last layer's map is resized to the inner one bilinearly (pixel centres at halves).
    """

    def __init__(self, omega: float = OMEGA, sigma: float = SIGMA, theta: float = THETA) -> None:
        super().__init__()
        self.omega, self.sigma, self.theta = omega, sigma, theta

    def forward(self, inner: Tensor, last: Tensor) -> Tensor:
        """Between theta - 1 and theta; theta where the inner map is empty."""
        if inner.ndim != 3 or last.ndim != 3 or len(inner) != len(last):
            shapes = f"{list(inner.shape)} and {list(last.shape)}"
            raise ShapeError(f"attention consistency: wanted maps [B, h, w] of the same images, got {shapes}")
        mask = _mask(last, self.omega, self.sigma).unsqueeze(1)
        mask = F.interpolate(mask, size=inner.shape[1:], mode="bilinear", align_corners=False).squeeze(1)
        return self.theta - _ratio(_total(inner * mask), _total(inner)).mean()


class IcascTerms(NamedTuple):
    """The loss to call backward() on, the terms that it sums, and the logits, for the accuracy."""

    total: Tensor
    cross_entropy: Tensor
    separation_inner: Tensor
    separation_last: Tensor
    consistency: Tensor
    logits: Tensor


class IcascLoss(nn.Module):
    """Cross-entropy + separation at the inner and at the last layer + consistency of the two, each of weight 1."""

    def __init__(self, omega: float = OMEGA, sigma: float = SIGMA, theta: float = THETA) -> None:
        super().__init__()
        self.separation = AttentionSeparation(omega, sigma)
        self.consistency = AttentionConsistency(omega, sigma, theta)

    def forward(self, logits: Tensor, inner: Tensor, last: Tensor, target: Tensor) -> IcascTerms:
        """Logits [B, classes], the feature maps [B, D, h, w] that they were computed from, target int64 [B]."""
        if target.shape != logits.shape[:1]:
            raise ShapeError(f"ICASC loss: wanted a target of shape [{len(logits)}], got {list(target.shape)}")
        cross_entropy = F.cross_entropy(logits, target)
        classes = torch.stack([target, strongest_other(logits.detach(), target)], 1)
        (t_inner, c_inner), (t_last, c_last) = (a.unbind(1) for a in class_attention(logits, [inner, last], classes))
        at_inner, at_last = self.separation(t_inner, c_inner), self.separation(t_last, c_last)
        agreement = self.consistency(t_inner, t_last)
        total = cross_entropy + at_inner + at_last + agreement
        return IcascTerms(total, cross_entropy, at_inner, at_last, agreement, logits)


def _mask(a: Tensor, omega: float, sigma: float) -> Tensor:
    return torch.sigmoid(omega * (a - sigma * _peak(a)))


def _peak(a: Tensor) -> Tensor:
    return a.amax((1, 2), keepdim=True)


def _total(a: Tensor) -> Tensor:
    return a.sum((1, 2))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part / whole, 0 without gradient where whole is empty (a clamp would pass a gradient of 1 / EMPTY)."""
    some = whole > EMPTY
    return torch.where(some, part, 0) / torch.where(some, whole, 1)


def _require_same(a_t: Tensor, a_c: Tensor) -> None:
    if a_t.ndim != 3 or a_t.shape != a_c.shape:
        raise ShapeError(f"attention maps: wanted two [B, h, w], got {list(a_t.shape)} and {list(a_c.shape)}")
