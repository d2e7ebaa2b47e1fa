"""What makes one clustering network of a family: everything but the weights."""

from __future__ import annotations

from dataclasses import dataclass

from cluinfer.errors import ArchError
from cluinfer.export.nn.layout import Pair


@dataclass(frozen=True)
class ClusterConfig:
    """One CoC, FEC or CLUENet. All tuples have one entry a stage; pairs are (dimension 2, dimension 3) of the map."""

    family: str  # "coc", "fec" or "cluenet"
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    heads: tuple[int, ...]
    head_dims: tuple[int, ...]
    hidden: tuple[int, ...]  # width of the MLPs
    grid: tuple[Pair, ...]
    fold: tuple[Pair, ...]
    num_classes: int | None = 1000  # None: no head, one feature map a stage
    patch: tuple[int, int, int] = (4, 4, 0)  # kernel, stride, padding
    layer_scale: bool = True
    pool_norm: bool = False  # CLUENet: a norm after the pool's MLP
    size: Pair = (224, 224)

    def __post_init__(self) -> None:
        stages = len(self.channels)
        for name in ("depths", "heads", "head_dims", "hidden", "grid", "fold"):
            if len(getattr(self, name)) != stages:
                raise ArchError(f"{name} needs one value for each of the {stages} stages, got {getattr(self, name)}")


def config(
    family: str,
    depths: tuple[int, ...],
    channels: tuple[int, ...],
    heads: tuple[int, ...],
    head_dim: int,
    grid: tuple[int, ...],
    fold: tuple[int, ...] = (1, 1, 1, 1),
    ratios: tuple[int, ...] = (8, 8, 4, 4),
    **more: object,
) -> ClusterConfig:
    """A published configuration, written as in the tables of the papers: square grids and folds, one head size."""
    return ClusterConfig(
        family,
        depths,
        channels,
        heads,
        head_dims=(head_dim,) * len(channels),
        hidden=tuple(c * r for c, r in zip(channels, ratios, strict=True)),
        grid=tuple((g, g) for g in grid),
        fold=tuple((f, f) for f in fold),
        **more,  # type: ignore[arg-type]
    )
