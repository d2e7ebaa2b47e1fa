"""What the three published families share: coordinates, heads, regions, the one-hot assignment, the frame.

Written for likeness to the published formulation, not for speed: full similarity matrices,
one-hot masks and broadcast products are the point, since this is what ours is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]
PerStage = Sequence[int | Pair]


@dataclass(frozen=True)
class Sizes:
    """What tells one architecture of a family from another; every sequence has one entry a stage."""

    blocks: Sequence[int]
    channels: Sequence[int]
    heads: Sequence[int]
    head_dim: int
    grid: PerStage
    fold: PerStage = (1, 1, 1, 1)
    mlp_ratio: Sequence[int] = (8, 8, 4, 4)


def pair(value: int | Sequence[int]) -> Pair:
    """`value` as (along dimension 2, along dimension 3)."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def append_coordinates(image: Tensor) -> Tensor:
    """Two more channels: the row, then the column, each from -0.5 to 0.5."""
    batch, _, height, width = image.shape
    rows = torch.arange(height, dtype=image.dtype, device=image.device) / (height - 1) - 0.5
    columns = torch.arange(width, dtype=image.dtype, device=image.device) / (width - 1) - 0.5
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([image, grid.expand(batch, -1, -1, -1)], dim=1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, E·d, h, w] -> [B·E, d, h, w]."""
    _, channels, height, width = x.shape
    return x.reshape(-1, channels // heads, height, width)


def join_heads(x: Tensor, heads: int) -> Tensor:
    """[B·E, d, h, w] -> [B, E·d, h, w]."""
    _, channels, height, width = x.shape
    return x.reshape(-1, heads * channels, height, width)


def split_regions(x: Tensor, fold: Pair) -> Tensor:
    """[B, C, f1·h, f2·w] -> [B·f1·f2, C, h, w]: every region becomes a sample of its own."""
    if fold == (1, 1):
        return x
    _, channels, height, width = x.shape
    if height % fold[0] or width % fold[1]:
        raise ValueError(
            f"a fold of {fold[0]}x{fold[1]} needs a map divisible by it, got {height}x{width}; change size or fold"
        )
    x = x.reshape(-1, channels, fold[0], height // fold[0], fold[1], width // fold[1])
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // fold[0], width // fold[1])


def join_regions(x: Tensor, fold: Pair) -> Tensor:
    """The inverse of `split_regions`."""
    if fold == (1, 1):
        return x
    _, channels, height, width = x.shape
    x = x.reshape(-1, fold[0], fold[1], channels, height, width)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, fold[0] * height, fold[1] * width)


def to_points(x: Tensor) -> Tensor:
    """[G, C, h, w] -> [G, h·w, C]."""
    return x.flatten(2).permute(0, 2, 1)


def to_map(points: Tensor, height: int, width: int) -> Tensor:
    """[G, h·w, C] -> [G, C, h, w]."""
    channels = points.shape[-1]
    return points.permute(0, 2, 1).reshape(-1, channels, height, width)


def pairwise_cosine(centers: Tensor, points: Tensor) -> Tensor:
    """[..., M, D] and [..., N, D] -> [..., M, N]."""
    return torch.matmul(F.normalize(centers, dim=-1), F.normalize(points, dim=-1).transpose(-2, -1))


class ClusterLayer(nn.Module):
    """A layer that assigns points to centres.

    With `keep_index` set, a call leaves `last_index` [G, N] and `last_weight` [G, N]
    (the winning similarity): G = batch x heads x regions, regions fastest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keep_index = False
        self.last_index: Tensor | None = None
        self.last_weight: Tensor | None = None

    def assign(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """The winning similarity [G, N] of [G, M, N] and the centre that has it."""
        weight, index = similarity.max(dim=1)
        self.keep(weight, index)
        return weight, index

    def keep(self, weight: Tensor, index: Tensor) -> None:
        if self.keep_index:
            self.last_weight, self.last_index = weight, index


def cluster_layers(model: nn.Module) -> dict[str, ClusterLayer]:
    """Every clustering layer of `model` by its module path."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, ClusterLayer)}


class PatchEmbed(nn.Module):
    """`proj`, then `norm` where the family has one."""

    def __init__(
        self, channels: int, kernel: int, stride: int, padding: int = 0, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(5, channels, kernel, stride, padding)
        self.norm = norm or nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.norm(self.proj(image))
        return x


class Mlp(nn.Module):
    """`fc1`, GELU, `fc2` on channels, which are moved last and back."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(x.permute(0, 2, 3, 1)))
        x = self.fc2(x)
        return x.permute(0, 3, 1, 2)


class Cluster(ClusterLayer):
    """CoC's and FEC's token mixer; the two differ in what a point counts in its centre's mean (`share`)."""

    def __init__(self, channels: int, heads: int, head_dim: int, grid: Pair, fold: Pair) -> None:
        super().__init__()
        self.heads, self.grid, self.fold = heads, grid, fold
        self.f = nn.Conv2d(channels, heads * head_dim, 1)
        self.v = nn.Conv2d(channels, heads * head_dim, 1)
        self.proj = nn.Conv2d(heads * head_dim, channels, 1)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))

    def share(self, similarity: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        value = split_regions(split_heads(self.v(x), self.heads), self.fold)
        feature = split_regions(split_heads(self.f(x), self.heads), self.fold)
        height, width = feature.shape[-2:]

        feature_centers = to_points(F.adaptive_avg_pool2d(feature, self.grid))
        value_centers = to_points(F.adaptive_avg_pool2d(value, self.grid))
        cosine = pairwise_cosine(feature_centers, to_points(feature))
        similarity = torch.sigmoid(self.sim_beta + self.sim_alpha * cosine)
        _, index = self.assign(similarity)
        mask = torch.zeros_like(similarity).scatter_(1, index.unsqueeze(1), 1.0)
        share = self.share(similarity, mask)

        total = (to_points(value).unsqueeze(1) * share.unsqueeze(-1)).sum(dim=2) + value_centers
        centers = total / (share.sum(dim=-1, keepdim=True) + 1.0)
        out = (centers.unsqueeze(2) * (similarity * mask).unsqueeze(-1)).sum(dim=1)

        out = join_heads(join_regions(to_map(out, height, width), self.fold), self.heads)
        projected: Tensor = self.proj(out)
        return projected


class ScaledBlock(nn.Module):
    """CoC's and FEC's block: token mixer and MLP, each behind a norm and a layer scale."""

    def __init__(self, channels: int, mixer: Cluster, ratio: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.token_mixer = mixer
        self.norm2 = group_norm(channels)
        self.mlp = Mlp(channels, ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.token_mixer(self.norm1(x))
        x = x + self.layer_scale_1[:, None, None] * mixed
        mixed = self.mlp(self.norm2(x))
        return x + self.layer_scale_2[:, None, None] * mixed


def scaled_stages(cluster: type[Cluster], sizes: Sizes) -> list[nn.Module]:
    """CoC's and FEC's stages."""

    def block(i: int) -> ScaledBlock:
        mixer = cluster(sizes.channels[i], sizes.heads[i], sizes.head_dim, pair(sizes.grid[i]), pair(sizes.fold[i]))
        return ScaledBlock(sizes.channels[i], mixer, sizes.mlp_ratio[i])

    return [nn.Sequential(*(block(i) for _ in range(sizes.blocks[i]))) for i in range(len(sizes.blocks))]


def scattered_mean(values: Tensor, index: Tensor, base: Tensor) -> Tensor:
    """The mean of each centre's points and its `base`: [G, N, C], [G, N], [G, M, C] -> [G, M, C]."""
    total = base.scatter_add(1, index.unsqueeze(-1).expand_as(values), values)
    count = torch.ones_like(base[..., 0]).scatter_add(1, index, torch.ones_like(values[..., 0]))
    return total / count.unsqueeze(-1)


class Clustering(nn.Module):
    """The frame: patches, stages with reductions between them, then a head or one normed feature map a stage.

    Without classes there is no head: the model returns the maps of norm0, norm2, norm4 and norm6.
    """

    def __init__(
        self,
        patches: nn.Module,
        stages: Sequence[nn.Module],
        reductions: Sequence[nn.Module],
        norm: Callable[[int], nn.Module],
        channels: Sequence[int],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.patch_embed = patches
        self.pos_embed: nn.Module = nn.Identity()
        between = [*reductions, None]
        self.network = nn.ModuleList(
            part for both in zip(stages, between, strict=True) for part in both if part is not None
        )
        self.num_classes = num_classes
        if num_classes:
            self.norm = norm(channels[-1])
            self.head = nn.Linear(channels[-1], num_classes)
        else:
            for stage, width in enumerate(channels):
                self.add_module(f"norm{2 * stage}", norm(width))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        x: Tensor = self.pos_embed(self.patch_embed(append_coordinates(image)))
        maps: list[Tensor] = []
        for position, part in enumerate(self.network):
            x = part(x)
            if not self.num_classes and position % 2 == 0:
                maps.append(self.get_submodule(f"norm{position}")(x))
        if not self.num_classes:
            return maps
        logits: Tensor = self.head(self.norm(x).mean(dim=(-2, -1)))
        return logits


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels)
