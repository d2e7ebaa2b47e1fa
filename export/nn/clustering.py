"""The clustering layers: token mixers that gather points around centres and hand the result back, and pools.

`ContextClustering` (CoC, FEC) and `ClusterAttention` (CLUENet) keep the map's size; `ClusterPool` (FEC) and
`SharedClusterPool` (CLUENet) halve it: their centres are the next stage's points. Parameter names are as published.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluinfer.export.nn.blocks import ChannelLayerNorm, MapGroupNorm
from cluinfer.export.nn.layout import Layout, Pair
from cluinfer.export.nn.watch import Assignment, show
from cluinfer.export.torch_ops import cluster_assign, cluster_gather, cluster_scatter
from cluinfer.ops.schema import EPSILON


class ContextClustering(nn.Module):
    """Assign each point to its most similar centre, average the values there, hand the average back.

    With `weighted`, points count by their similarity (CoC), else alike (FEC).
    """

    def __init__(
        self, channels: int, heads: int, head_dim: int, grid: Pair, fold: Pair = (1, 1), weighted: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.grid, self.fold, self.weighted = heads, grid, fold, weighted
        self.f = nn.Conv2d(channels, heads * head_dim, 1)
        self.v = nn.Conv2d(channels, heads * head_dim, 1)
        self.proj = nn.Conv2d(heads * head_dim, channels, 1)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        layout = Layout.of(x, self.heads, self.fold, self.grid)
        features, values = layout.split(self.f(x)), layout.split(self.v(x))
        centers = pool_to(features, self.grid).flatten(2)
        base = pool_to(values, self.grid).flatten(2)
        index, weight = cluster_assign(
            features.flatten(2), centers, self.sim_alpha, self.sim_beta, layout=layout.to_list()
        )
        show(self, Assignment(index, weight, layout))
        centers = cluster_scatter(values.flatten(2), index, base, weight if self.weighted else None)
        out = layout.merge(cluster_gather(centers, index, weight), layout.region)
        return self.proj(out)


class ClusterPool(nn.Module):
    """Halve the map: the centres of a clustering, plus a strided convolution (FEC)."""

    def __init__(self, channels: int, out_channels: int, fold: Pair = (1, 1)) -> None:
        super().__init__()
        self.fold = fold
        self.norm2 = MapGroupNorm(out_channels)
        self.conv_f = nn.Conv2d(channels, out_channels, 1)
        self.conv_v = nn.Conv2d(channels, out_channels, 1)
        self.conv_skip = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        centers = cluster_centers(self, self.conv_f(x), self.conv_v(x), self.fold)
        return self.conv_skip(x) + self.norm2(centers)


class SharedClusterPool(nn.Module):
    """Halve the map: one convolution serves as feature and as value, an MLP follows the centres (CLUENet)."""

    def __init__(self, channels: int, out_channels: int, norm2: bool = False) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.norm2 = ChannelLayerNorm(out_channels) if norm2 else nn.Identity()
        self.conv_f = nn.Conv2d(channels, channels, 1)
        self.conv_v = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, out_channels, 1))
        self.conv_skip = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv_f(x)
        centers = cluster_centers(self, features, features, (1, 1))
        return self.conv_skip(x) + self.norm2(self.conv_v(self.norm1(centers)))


class ClusterAttention(nn.Module):
    """Gather values softly from all points, gate them with the centre's own, hand them back hard (CLUENet).

    A layer that does not `assign` has no similarity of its own: it takes the assignment of an earlier layer.
    """

    def __init__(
        self, channels: int, heads: int, head_dim: int, grid: Pair, assign: bool = True, min_alpha: float = 1e-4
    ) -> None:
        super().__init__()
        self.heads, self.grid, self.min_alpha = heads, grid, min_alpha
        self.k = nn.Conv2d(channels, heads * head_dim, 1)
        self.v = nn.Conv2d(channels, heads * head_dim, 1)
        self.proj = nn.Conv2d(heads * head_dim, channels, 1)
        self.gate = HeadGate(head_dim, heads)
        self.attn_alpha = nn.Parameter(torch.tensor(math.log(2.13)))
        self.q = nn.Linear(heads * head_dim, heads * head_dim) if assign else None
        self.sim_alpha = nn.Parameter(torch.ones(1)) if assign else None
        self.sim_beta = nn.Parameter(torch.zeros(1)) if assign else None

    def forward(self, x: Tensor, assignment: Assignment | None = None) -> tuple[Tensor, Assignment]:
        layout = Layout.of(x, self.heads, (1, 1), self.grid)
        keys, values = layout.split(self.k(x)), layout.split(self.v(x))
        centers = self._aggregate(pool_to(keys, self.grid).flatten(2), keys.flatten(2), values.flatten(2))
        centers = self.gate(centers, pool_to(values, self.grid).flatten(2))
        if self.q is not None and self.sim_alpha is not None and self.sim_beta is not None:
            rows = centers.reshape(x.shape[0], -1, centers.shape[2]).transpose(1, 2)  # [B, M, heads * d]
            queries = self.q(rows).transpose(1, 2).reshape(centers.shape)
            index, weight = cluster_assign(
                keys.flatten(2), queries, self.sim_alpha, self.sim_beta, layout=layout.to_list()
            )
            assignment = Assignment(index, weight, layout)
        if assignment is None:
            raise ValueError("this ClusterAttention has no q of its own: give it the assignment of an earlier layer")
        show(self, assignment)
        out = layout.merge(cluster_gather(centers, assignment.index, assignment.weight), layout.region)
        return self.proj(out), assignment

    def _aggregate(self, centers: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each centre's softmax-weighted mean of all values: [G, d, M]."""
        scale = torch.exp(-self.attn_alpha.clamp_min(math.log(self.min_alpha)))
        cosine = F.normalize(centers, dim=1, eps=EPSILON).transpose(1, 2) @ F.normalize(keys, dim=1, eps=EPSILON)
        return values @ torch.softmax(scale * cosine, dim=-1).transpose(1, 2)


class HeadGate(nn.Module):
    """Mix two kinds of centres [B * heads, d, M] by a gate that each head computes for itself."""

    def __init__(self, head_dim: int, heads: int) -> None:
        super().__init__()
        self.fc1 = HeadLinear(2 * head_dim, head_dim // 2, heads)
        self.fc2 = HeadLinear(head_dim // 2, 1, heads)

    def forward(self, gathered: Tensor, own: Tensor) -> Tensor:
        g = torch.sigmoid(self.fc2(F.gelu(self.fc1(torch.cat([gathered, own], dim=1)))))
        return (1 - g) * gathered + g * own


class HeadLinear(nn.Module):
    """A linear layer of its own for each head: [B * heads, in, M] -> [B * heads, out, M]."""

    def __init__(self, in_features: int, out_features: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(heads, out_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        heads, out_features, in_features = self.weight.shape
        by_head = x.reshape(-1, heads, in_features, x.shape[2])
        return (self.weight @ by_head + self.bias.unsqueeze(-1)).reshape(-1, out_features, x.shape[2])


def cluster_centers(layer: nn.Module, features: Tensor, values: Tensor, fold: Pair) -> Tensor:
    """Cluster a map around a grid of half its size, by plain cosine, and give the centres as a map."""
    layout = Layout.of(features, 1, fold, None)
    shared = values is features
    features = layout.split(features)
    values = features if shared else layout.split(values)
    centers = pool_to(features, layout.grid).flatten(2)
    base = centers if shared else pool_to(values, layout.grid).flatten(2)
    index, weight = cluster_assign(features.flatten(2), centers, sigmoid=False, layout=layout.to_list())
    show(layer, Assignment(index, weight, layout))
    centers = cluster_scatter(values.flatten(2), index, base)
    return layout.merge(centers, layout.grid)


def pool_to(x: Tensor, grid: Pair) -> Tensor:
    """Adaptive average pooling of [G, d, H, W].

    Where windows differ in size it exports as two products: adaptive pooling itself has no ONNX operator.
    """
    rows, columns = x.shape[2], x.shape[3]
    if rows % grid[0] == 0 and columns % grid[1] == 0:
        return F.avg_pool2d(x, (rows // grid[0], columns // grid[1]))
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, grid)
    return _windows(rows, grid[0], x) @ x @ _windows(columns, grid[1], x).transpose(0, 1)


def _windows(size: int, count: int, like: Tensor) -> Tensor:
    """Adaptive windows as rows of a matrix [count, size], each summing to 1; a constant when exported."""
    rows = []
    for i in range(count):
        start, stop = i * size // count, -(-(i + 1) * size // count)
        rows.append([1 / (stop - start) if start <= j < stop else 0.0 for j in range(size)])
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
