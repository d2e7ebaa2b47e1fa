"""FEC as published: centres are plain means, and the reductions cluster too."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published.common import (
    Cluster,
    Clustering,
    ClusterLayer,
    Pair,
    PatchEmbed,
    Sizes,
    group_norm,
    join_regions,
    pair,
    pairwise_cosine,
    scaled_stages,
    scattered_mean,
    split_regions,
    to_map,
    to_points,
)


class MeanCluster(Cluster):
    """Every point counts the same; the similarity weighs only the way back."""

    def share(self, similarity: Tensor, mask: Tensor) -> Tensor:
        return mask


class ClusterPool(ClusterLayer):
    """Halves the map: the centres of a clustering become the positions of the next stage."""

    def __init__(self, channels: int, out_channels: int, fold: Pair) -> None:
        super().__init__()
        self.fold = fold
        self.conv_f = nn.Conv2d(channels, out_channels, 1)
        self.conv_v = nn.Conv2d(channels, out_channels, 1)
        self.conv_skip = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)
        self.norm2 = group_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        value = split_regions(self.conv_v(x), self.fold)
        feature = split_regions(self.conv_f(x), self.fold)
        height, width = feature.shape[-2] // 2, feature.shape[-1] // 2
        feature_centers = to_points(F.adaptive_avg_pool2d(feature, (height, width)))
        value_centers = to_points(F.adaptive_avg_pool2d(value, (height, width)))

        _, index = self.assign(pairwise_cosine(feature_centers, to_points(feature)))
        centers = scattered_mean(to_points(value), index, value_centers)

        out = join_regions(to_map(centers, height, width), self.fold)
        reduced: Tensor = self.conv_skip(x) + self.norm2(out)
        return reduced


def fec(sizes: Sizes, num_classes: int) -> Clustering:
    """An FEC network."""
    channels = sizes.channels
    pools = [ClusterPool(channels[i], channels[i + 1], pair(sizes.fold[i + 1])) for i in range(len(channels) - 1)]
    patches = PatchEmbed(channels[0], kernel=4, stride=4)
    return Clustering(patches, scaled_stages(MeanCluster, sizes), pools, group_norm, channels, num_classes)
