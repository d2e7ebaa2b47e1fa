"""FEC: feature extraction with clustering; points count alike, and clustering pools stand between the stages."""

from __future__ import annotations

from torch import nn

from cluinfer.export.models.config import ClusterConfig, config
from cluinfer.export.models.staged import ContextNet, clustered_length
from cluinfer.export.nn.backbone import fold_of
from cluinfer.export.nn.clustering import ClusterPool

_GRID = (4, 4, 2, 2)
_WIDE = (64, 128, 320, 512)

ARCHS: dict[str, ClusterConfig] = {
    "fec_small": config("fec", (3, 4, 5, 2), (32, 64, 196, 320), (4, 4, 8, 8), 24, _GRID),
    "fec_base": config("fec", (2, 2, 6, 2), _WIDE, (4, 4, 8, 8), 32, _GRID),
    "fec_large": config("fec", (4, 4, 12, 4), _WIDE, (6, 6, 12, 12), 32, _GRID),
}


class Fec(ContextNet):
    """FEC of any configuration. The pool after a stage folds as the next stage does."""

    weighted = False

    def reduction(self, stage: int) -> nn.Module:
        channels, out_channels = self.config.channels[stage : stage + 2]
        return ClusterPool(channels, out_channels, self.config.fold[stage + 1])

    def reduced_length(self, length: int, stage: int, axis: int) -> int | None:
        return clustered_length(length, fold_of(self.config.fold[stage + 1], axis))
