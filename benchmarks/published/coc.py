"""Context Cluster as published: the similarity weighs both ways, reductions are convolutions of stride 2."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.published.common import Cluster, Clustering, PatchEmbed, Sizes, group_norm, scaled_stages


class WeightedCluster(Cluster):
    """A point counts as much as it is similar to its centre."""

    def share(self, similarity: Tensor, mask: Tensor) -> Tensor:
        return similarity * mask


class Reduction(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        reduced: Tensor = self.proj(x)
        return reduced


def coc(sizes: Sizes, num_classes: int) -> Clustering:
    """A Context Cluster network."""
    channels = sizes.channels
    reductions = [Reduction(channels[i], channels[i + 1]) for i in range(len(channels) - 1)]
    patches = PatchEmbed(channels[0], kernel=4, stride=4)
    return Clustering(patches, scaled_stages(WeightedCluster, sizes), reductions, group_norm, channels, num_classes)
