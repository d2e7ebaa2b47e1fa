"""CLUENet as published, with the soft aggregation in float32 where the published code has half precision."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published.common import (
    Clustering,
    ClusterLayer,
    Pair,
    PatchEmbed,
    Sizes,
    pair,
    pairwise_cosine,
    scattered_mean,
    split_heads,
    to_map,
    to_points,
)

Assignment = tuple[Tensor, Tensor]  # winning similarity and index, [B·E, N] both

MIN_ALPHA = 1e-4


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a [B, C, h, w] map, which are moved last and back."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PositionEmbed(nn.Module):
    """A depthwise convolution added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))

    def forward(self, x: Tensor) -> Tensor:
        position: Tensor = self.proj(x)
        return x + position


class HeadwiseLinear(nn.Module):
    """One linear layer for each head: [B, E, M, in] -> [B, E, M, out]."""

    def __init__(self, heads: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(heads, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight.transpose(-2, -1)) + self.bias.unsqueeze(1)


class Gate(nn.Module):
    """How much of a centre is taken from the pooled feature instead of the soft aggregation."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.fc1 = HeadwiseLinear(heads, 2 * head_dim, head_dim // 2)
        self.act = nn.GELU()
        self.fc2 = HeadwiseLinear(heads, head_dim // 2, 1)

    def forward(self, aggregate: Tensor, feature: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc2(self.act(self.fc1(torch.cat([aggregate, feature], dim=-1)))))
        return (1 - gate) * aggregate + gate * feature


class Cluster(ClusterLayer):
    """Soft global aggregation into the centres, hard dispatch back; only the first of a stage assigns."""

    def __init__(self, channels: int, heads: int, head_dim: int, grid: Pair, assigns: bool) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads, self.grid, self.assigns = heads, grid, assigns
        self.k = nn.Conv2d(channels, width, 1)
        self.v = nn.Conv2d(channels, width, 1)
        self.proj = nn.Conv2d(width, channels, 1)
        self.attn_alpha = nn.Parameter(torch.zeros(()))
        self.gate = Gate(heads, head_dim)
        if assigns:
            self.q = nn.Linear(width, width)
            self.sim_alpha = nn.Parameter(torch.ones(1))
            self.sim_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, assignment: Assignment | None) -> tuple[Tensor, Assignment]:
        height, width = x.shape[-2:]
        key, value = self.k(x), self.v(x)
        key_centers = self._heads(F.adaptive_avg_pool2d(key, self.grid))
        value_centers = self._heads(F.adaptive_avg_pool2d(value, self.grid))
        key, value = self._heads(key), self._heads(value)

        scale = torch.exp(-self.attn_alpha.clamp(min=math.log(MIN_ALPHA)))
        query = F.normalize(key_centers, dim=-1) * scale
        aggregate = F.scaled_dot_product_attention(query, F.normalize(key, dim=-1), value, scale=1.0)
        centers = self.gate(aggregate, value_centers)

        if self.assigns:
            assignment = self._assignment(centers, key)
        if assignment is None:
            raise ValueError("the first block of a stage must assign")
        weight, index = assignment
        self.keep(weight, index)
        out = self._dispatch(centers.flatten(0, 1), weight, index)
        return self.proj(to_map(out, height, width).reshape(-1, self.k.out_channels, height, width)), assignment

    def _heads(self, x: Tensor) -> Tensor:
        """[B, E·d, h, w] -> [B, E, h·w, d]."""
        points = to_points(split_heads(x, self.heads))
        return points.reshape(-1, self.heads, *points.shape[1:])

    def _assignment(self, centers: Tensor, key: Tensor) -> Assignment:
        _, heads, count, head_dim = centers.shape
        query = self.q(centers.transpose(1, 2).flatten(2))
        query = query.reshape(-1, count, heads, head_dim).transpose(1, 2)
        cosine = pairwise_cosine(query, key).flatten(0, 1)
        return self.assign(torch.sigmoid(self.sim_beta + self.sim_alpha * cosine))

    @staticmethod
    def _dispatch(centers: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        gathered = centers.gather(1, index.unsqueeze(-1).expand(-1, -1, centers.shape[-1]))
        return weight.unsqueeze(-1) * gathered


class DepthwiseConv(nn.Module):
    """A depthwise convolution, one module further down in the published keys."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dwconv(x)
        return out


class ConvMlp(nn.Module):
    """`fc1`, depthwise convolution, GELU, `fc2`; the linear layers on channels moved last."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.dwconv = DepthwiseConv(ratio * channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.act(self.dwconv(x))
        x = self.fc2(x.permute(0, 2, 3, 1))
        return x.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Token mixer and MLP, each behind a norm; hands the stage's assignment on."""

    def __init__(self, channels: int, mixer: Cluster, ratio: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.token_mixer = mixer
        self.norm2 = ChannelNorm(channels)
        self.mlp = ConvMlp(channels, ratio)

    def forward(self, x: Tensor, assignment: Assignment | None) -> tuple[Tensor, Assignment]:
        mixed, assignment = self.token_mixer(self.norm1(x), assignment)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), assignment


class Stage(nn.Module):
    """Blocks that share the first one's assignment."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        assignment: Assignment | None = None
        for block in self.blocks:
            x, assignment = block(x, assignment)
        return x


class ClusterPool(ClusterLayer):
    """Halves the map: one feature both decides the clustering and is averaged by it."""

    def __init__(self, channels: int, out_channels: int, normed: bool) -> None:
        super().__init__()
        self.conv_f = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelNorm(channels)
        self.conv_v = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, out_channels, 1))
        self.norm2 = ChannelNorm(out_channels) if normed else nn.Identity()
        self.conv_skip = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        feature = self.conv_f(x)
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        points = to_points(feature)
        base = to_points(F.adaptive_avg_pool2d(feature, (height, width)))

        _, index = self.assign(pairwise_cosine(base, points))
        centers = to_map(scattered_mean(points, index, base), height, width)
        reduced: Tensor = self.conv_skip(x) + self.norm2(self.conv_v(self.norm1(centers)))
        return reduced


def cluenet(sizes: Sizes, num_classes: int, *, patch: int = 4, pool_norm: bool = False) -> Clustering:
    """A CLUENet; `patch` 1 is the CIFAR variant (overlapping 3×3 patches), `pool_norm` gives its pools a `norm2`."""
    channels = sizes.channels
    if any(pair(fold) != (1, 1) for fold in sizes.fold):
        raise ValueError("CLUENet clusters the whole map: it has no fold")

    def block(i: int, first: bool) -> Block:
        mixer = Cluster(channels[i], sizes.heads[i], sizes.head_dim, pair(sizes.grid[i]), first)
        return Block(channels[i], mixer, sizes.mlp_ratio[i])

    stages = [Stage([block(i, first=j == 0) for j in range(sizes.blocks[i])]) for i in range(len(sizes.blocks))]
    pools = [ClusterPool(channels[i], channels[i + 1], pool_norm) for i in range(len(channels) - 1)]
    norm = ChannelNorm(channels[0])
    patches = PatchEmbed(channels[0], 3, 1, 1, norm) if patch == 1 else PatchEmbed(channels[0], patch, patch, 0, norm)
    network = Clustering(patches, stages, pools, ChannelNorm, channels, num_classes)
    network.pos_embed = PositionEmbed(channels[0])
    return network
