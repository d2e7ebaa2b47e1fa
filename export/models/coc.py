"""Context Cluster (CoC): points count by their similarity; strided convolutions halve the maps."""

from __future__ import annotations

from torch import Tensor, nn

from cluinfer.export.models.config import ClusterConfig, config
from cluinfer.export.models.staged import ContextNet

_TINY = ((3, 4, 5, 2), (32, 64, 196, 320), (4, 4, 8, 8), 24)
_WIDE = (64, 128, 320, 512)
_GRID, _FOLD = (2, 2, 2, 2), (8, 4, 2, 1)

ARCHS: dict[str, ClusterConfig] = {
    "coc_tiny": config("coc", *_TINY, _GRID, _FOLD),
    "coc_tiny2": config("coc", *_TINY, (4, 2, 7, 4), (7, 7, 1, 1)),
    "coc_tiny_plain": config("coc", *_TINY, (4, 4, 2, 2)),
    "coc_small": config("coc", (2, 2, 6, 2), _WIDE, (4, 4, 8, 8), 32, _GRID, _FOLD),
    "coc_medium": config("coc", (4, 4, 12, 4), _WIDE, (6, 6, 12, 12), 32, _GRID, _FOLD),
    "coc_base_dim64": config("coc", (6, 6, 24, 6), _WIDE, (8, 8, 16, 16), 32, _GRID, _FOLD),
    "coc_base_dim96": config("coc", (4, 4, 12, 4), (96, 192, 384, 768), (8, 8, 16, 16), 32, _GRID, _FOLD),
}


class StridedReduction(nn.Module):
    """Halve the map with a strided convolution."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Coc(ContextNet):
    """Context Cluster of any configuration."""

    weighted = True

    def reduction(self, stage: int) -> nn.Module:
        channels, out_channels = self.config.channels[stage : stage + 2]
        return StridedReduction(channels, out_channels)

    def reduced_length(self, length: int, stage: int, axis: int) -> int | None:
        return (length + 1) // 2
