"""CLUENet: centres gather softly and hand back by hard assignment; the blocks of a stage share one assignment."""

from __future__ import annotations

from torch import nn

from cluinfer.export.models.config import ClusterConfig, config
from cluinfer.export.models.staged import StagedNet, clustered_length
from cluinfer.export.nn.blocks import (
    ChannelLayerNorm,
    ClusterBlock,
    DepthwisePosition,
    PointEmbed,
    PointMlp,
    SharedClusterStage,
)
from cluinfer.export.nn.clustering import ClusterAttention, SharedClusterPool

_MICRO = ((2, 2, 2, 2), (32, 64, 160, 256), (1, 2, 5, 8), 32)
_WIDE = (64, 128, 320, 512)
_GRID = (7, 7, 7, 7)

ARCHS: dict[str, ClusterConfig] = {
    "cluenet_cifar": config(
        "cluenet", *_MICRO, (4, 4, 4, 4), patch=(3, 1, 1), size=(32, 32), pool_norm=True, layer_scale=False
    ),
    "cluenet_micro": config("cluenet", *_MICRO, _GRID, pool_norm=True, layer_scale=False),
    "cluenet_tiny": config("cluenet", (3, 4, 5, 2), (32, 64, 196, 320), (4, 4, 8, 8), 24, _GRID, layer_scale=False),
    "cluenet_small": config("cluenet", (2, 2, 6, 2), _WIDE, (4, 4, 8, 8), 32, _GRID, layer_scale=False),
    "cluenet_base": config("cluenet", (4, 4, 12, 4), _WIDE, (6, 6, 12, 12), 32, _GRID, layer_scale=False),
}


class CLUENet(StagedNet):
    """CLUENet of any configuration."""

    def embed(self) -> None:
        self.patch_embed = PointEmbed(self.config.channels[0], *self.config.patch, norm=True)
        self.pos_embed = DepthwisePosition(self.config.channels[0])

    def norm_of(self, channels: int) -> nn.Module:
        return ChannelLayerNorm(channels)

    def stage(self, stage: int) -> nn.Module:
        c, channels = self.config, self.config.channels[stage]
        return SharedClusterStage(
            [
                ClusterBlock(
                    ChannelLayerNorm(channels),
                    ClusterAttention(channels, c.heads[stage], c.head_dims[stage], c.grid[stage], assign=block == 0),
                    ChannelLayerNorm(channels),
                    PointMlp(channels, c.hidden[stage], depthwise=True),
                )
                for block in range(c.depths[stage])
            ]
        )

    def reduction(self, stage: int) -> nn.Module:
        channels, out_channels = self.config.channels[stage : stage + 2]
        return SharedClusterPool(channels, out_channels, self.config.pool_norm)

    def reduced_length(self, length: int, stage: int, axis: int) -> int | None:
        return clustered_length(length, 1)
