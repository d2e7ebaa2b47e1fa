"""What stands around the clustering layers: coordinates, norms over maps, MLPs, and the residual block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MapGroupNorm(nn.GroupNorm):
    """Normalise each map [C, H, W] as one group (CoC, FEC)."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class ChannelLayerNorm(nn.LayerNorm):
    """Normalise the channels of each point of [B, C, H, W] (CLUENet)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PointEmbed(nn.Module):
    """The image with two coordinate channels, cut into patches: the first points."""

    def __init__(self, channels: int, kernel: int = 4, stride: int = 4, padding: int = 0, norm: bool = False) -> None:
        super().__init__()
        self.proj = nn.Conv2d(5, channels, kernel, stride, padding)
        self.norm = ChannelLayerNorm(channels) if norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.proj(with_coordinates(image)))


class DepthwisePosition(nn.Module):
    """Add a depthwise 3x3 convolution of the map to itself (CLUENet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(x)


class DepthwiseConv(nn.Module):
    """A depthwise 3x3 convolution, one level down as in the published parameter names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class PointMlp(nn.Module):
    """Two linear layers on the channels of each point, with a depthwise convolution between them if asked (CLUENet)."""

    def __init__(self, channels: int, hidden: int, depthwise: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden) if depthwise else None
        self.fc2 = nn.Linear(hidden, channels)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x.permute(0, 2, 3, 1))
        if self.dwconv is not None:
            x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x)).permute(0, 3, 1, 2)


class ClusterBlock(nn.Module):
    """A token mixer and an MLP, each normalised before, scaled after if asked, and added to its input."""

    def __init__(
        self, norm1: nn.Module, token_mixer: nn.Module, norm2: nn.Module, mlp: nn.Module, scale: int = 0
    ) -> None:
        """`scale`: the channels of two learned layer scales, 0 for none."""
        super().__init__()
        self.norm1, self.token_mixer, self.norm2, self.mlp = norm1, token_mixer, norm2, mlp
        self.layer_scale_1 = nn.Parameter(torch.full((scale,), 1e-5)) if scale else None
        self.layer_scale_2 = nn.Parameter(torch.full((scale,), 1e-5)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + _scaled(self.layer_scale_1, self.token_mixer(self.norm1(x)))
        return x + _scaled(self.layer_scale_2, self.mlp(self.norm2(x)))


class SharedClusterStage(nn.Module):
    """Blocks of one stage, of which the first assigns and the others take its assignment (CLUENet)."""

    def __init__(self, blocks: list[ClusterBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        assignment = None
        for block in cast(Iterable[ClusterBlock], self.blocks):
            mixed, assignment = block.token_mixer(block.norm1(x), assignment)
            x = x + mixed
            x = x + block.mlp(block.norm2(x))
        return x


def with_coordinates(image: Tensor) -> Tensor:
    """Append each pixel's row, then its column, both from -0.5 to 0.5."""
    height, width = image.shape[2], image.shape[3]
    rows = torch.arange(height, device=image.device, dtype=image.dtype) / (height - 1) - 0.5
    columns = torch.arange(width, device=image.device, dtype=image.dtype) / (width - 1) - 0.5
    grid = torch.stack([rows[:, None].expand(height, width), columns.expand(height, width)])
    return torch.cat([image, grid.expand(image.shape[0], -1, -1, -1)], dim=1)


def _scaled(scale: Tensor | None, x: Tensor) -> Tensor:
    return x if scale is None else scale[:, None, None] * x
