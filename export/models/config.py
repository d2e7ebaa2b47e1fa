"""What makes one clustering network of a family: everything but the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluinfer.errors import ArchError
from cluinfer.export.nn.layout import Pair

LARGEST = 1 << 13  # of a grid's or an image's side: what is beyond cannot be meant


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


def override(config: ClusterConfig, **overrides: object) -> ClusterConfig:
    """The configuration with what a checkpoint does not hold set by hand: grid, fold, heads, size.

    Each takes one value for all stages or one a stage, as numbers, pairs or text: 7, (10, 10, 5, 5), "10,10,5,5",
    "7x5". `size` is one value: 224 or "320x480".
    """
    stages = len(config.channels)
    changes: dict[str, object] = {}
    for name, value in overrides.items():
        if name in ("grid", "fold"):
            changes[name] = _per_stage(name, value, stages)
        elif name == "heads":
            heads = tuple(a for a, _ in _per_stage(name, value, stages))
            widths = [h * d for h, d in zip(config.heads, config.head_dims, strict=True)]
            if any(width % count for width, count in zip(widths, heads, strict=True)):
                raise ArchError(f"heads={value} does not divide the widths {widths} of the token mixers")
            changes["heads"] = heads
            changes["head_dims"] = tuple(width // count for width, count in zip(widths, heads, strict=True))
        elif name == "size":
            (changes[name],) = _per_stage(name, value, 1)
        else:
            raise ArchError(f"unknown override '{name}': wanted grid, fold, heads or size")
    return replace(config, **changes)  # type: ignore[arg-type]


def _per_stage(name: str, value: object, stages: int) -> tuple[Pair, ...]:
    """Pairs of positive numbers, one a stage."""
    parts: list[object]
    if isinstance(value, str):
        parts = [part.split("x") if "x" in part else part for part in value.split(",")]
    elif isinstance(value, int) or (stages == 1 and isinstance(value, tuple) and len(value) == 2):
        parts = [value]
    else:
        parts = list(value) if isinstance(value, Sequence) else [value]
    if len(parts) == 1:
        parts = parts * stages
    try:
        pairs = tuple(tuple(map(int, p)) if isinstance(p, list | tuple) else (int(p), int(p)) for p in parts)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) != stages or any(len(pair) != 2 or min(pair) < 1 or max(pair) > LARGEST for pair in pairs):
        wanted = "one size such as 224 or 320x480" if stages == 1 else f"one value or {stages}"
        wanted += f", from 1 to {LARGEST}"
        raise ArchError(f"{name}={value}: wanted {wanted}")
    return pairs  # type: ignore[return-value]
