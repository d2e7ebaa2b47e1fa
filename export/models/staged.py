"""Networks of stages with a reduction between them, built from a configuration; the base of CoC, FEC and CLUENet."""

from __future__ import annotations

from torch import nn

from cluinfer.export.models.config import ClusterConfig
from cluinfer.export.nn.backbone import ClusterNet, fold_of, patch_length
from cluinfer.export.nn.blocks import ClusterBlock, MapGroupNorm, PointEmbed, PointMlp
from cluinfer.export.nn.clustering import ContextClustering


class StagedNet(ClusterNet):
    """A family fills in `embed`, `stage`, `reduction`, `norm` and `reduced_length`."""

    def __init__(self, config: ClusterConfig) -> None:
        super().__init__()
        self.config = config
        self.embed()
        self.network = nn.ModuleList()
        for stage in range(len(config.channels)):
            self.network.append(self.stage(stage))
            if stage + 1 < len(config.channels):
                self.network.append(self.reduction(stage))
        self.finish([self.norm_of(c) for c in config.channels], config.channels[-1], config.num_classes)

    def embed(self) -> None:
        """Set `patch_embed`, and `pos_embed` where there is one."""
        self.patch_embed = PointEmbed(self.config.channels[0], *self.config.patch)

    def stage(self, stage: int) -> nn.Module:
        """The blocks of a stage."""
        raise NotImplementedError

    def reduction(self, stage: int) -> nn.Module:
        """What halves the map after a stage."""
        raise NotImplementedError

    def norm_of(self, channels: int) -> nn.Module:
        """The family's norm."""
        raise NotImplementedError

    def reduced_length(self, length: int, stage: int, axis: int) -> int | None:
        """The points along an axis after the reduction that follows a stage, or None where it cannot be run."""
        raise NotImplementedError

    def axis_problem(self, length: int, axis: int) -> str | None:
        word = ("rows", "columns")[axis]
        points = patch_length(length, *self.config.patch)
        if points < 1 or length < 2:
            return f"{length} {word} of pixels hold no patch of {self.config.patch[0]}"
        for stage in range(len(self.config.channels)):
            where = f"the {points} {word} of points of stage {stage + 1}"
            if points % (fold := fold_of(self.config.fold[stage], axis)):
                return f"{where} do not split into {fold} equal regions"
            if stage + 1 < len(self.config.channels):
                reduced = self.reduced_length(points, stage, axis)
                if reduced is None:
                    return f"{where} cannot be halved by the clustering pool"
                points = reduced
        return None


class ContextNet(StagedNet):
    """What CoC and FEC share: group norms, layer scales, context clusterings; a family says how it weighs points."""

    weighted: bool

    def norm_of(self, channels: int) -> nn.Module:
        return MapGroupNorm(channels)

    def stage(self, stage: int) -> nn.Module:
        c, channels = self.config, self.config.channels[stage]
        return nn.Sequential(
            *(
                ClusterBlock(
                    MapGroupNorm(channels),
                    ContextClustering(
                        channels, c.heads[stage], c.head_dims[stage], c.grid[stage], c.fold[stage], self.weighted
                    ),
                    MapGroupNorm(channels),
                    PointMlp(channels, c.hidden[stage]),
                    scale=channels if c.layer_scale else 0,
                )
                for _ in range(c.depths[stage])
            )
        )


def clustered_length(length: int, fold: int) -> int | None:
    """The centres of a clustering pool along an axis: half the points of each region, which must come out even."""
    return None if length % (2 * fold) else length // 2
