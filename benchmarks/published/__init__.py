"""CoC, FEC and CLUENet in the published formulation: the baseline that cluinfer's speed and results are held against.

    model = build("fec_small", num_classes=100).eval()

Written from the papers' definitions, independently of `cluinfer.export.models`, with the
same state-dict keys; `cluster_layers(model)` gives the layers whose index map can be read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.published.cluenet import cluenet
from benchmarks.published.coc import coc
from benchmarks.published.common import ClusterLayer, Sizes, cluster_layers
from benchmarks.published.fec import fec
from cluinfer.export.models.config import ClusterConfig

__all__ = ["ARCHS", "ClusterLayer", "Sizes", "build", "cluster_layers", "of_config"]

_TINY: dict[str, Any] = {
    "blocks": (3, 4, 5, 2),
    "channels": (32, 64, 196, 320),
    "heads": (4, 4, 8, 8),
    "head_dim": 24,
}
_SMALL: dict[str, Any] = {
    "blocks": (2, 2, 6, 2),
    "channels": (64, 128, 320, 512),
    "heads": (4, 4, 8, 8),
    "head_dim": 32,
}
_MEDIUM: dict[str, Any] = {**_SMALL, "blocks": (4, 4, 12, 4), "heads": (6, 6, 12, 12)}
_MICRO: dict[str, Any] = {
    "blocks": (2, 2, 2, 2),
    "channels": (32, 64, 160, 256),
    "heads": (1, 2, 5, 8),
    "head_dim": 32,
}
_COC: dict[str, Any] = {"grid": (2, 2, 2, 2), "fold": (8, 4, 2, 1)}
_FEC: dict[str, Any] = {"grid": (4, 4, 2, 2)}
_CLUENET: dict[str, Any] = {"grid": (7, 7, 7, 7)}

ARCHS: dict[str, Sizes] = {
    "coc_tiny": Sizes(**_TINY, **_COC),
    "coc_tiny2": Sizes(**_TINY, grid=(4, 2, 7, 4), fold=(7, 7, 1, 1)),
    "coc_tiny_plain": Sizes(**_TINY, grid=(4, 4, 2, 2)),
    "coc_small": Sizes(**_SMALL, **_COC),
    "coc_medium": Sizes(**_MEDIUM, **_COC),
    "coc_base_dim64": Sizes(**{**_SMALL, "blocks": (6, 6, 24, 6), "heads": (8, 8, 16, 16)}, **_COC),
    "coc_base_dim96": Sizes(**{**_MEDIUM, "channels": (96, 192, 384, 768), "heads": (8, 8, 16, 16)}, **_COC),
    "fec_small": Sizes(**_TINY, **_FEC),
    "fec_base": Sizes(**_SMALL, **_FEC),
    "fec_large": Sizes(**_MEDIUM, **_FEC),
    "cluenet_cifar": Sizes(**_MICRO, grid=(4, 4, 4, 4)),
    "cluenet_micro": Sizes(**_MICRO, **_CLUENET),
    "cluenet_tiny": Sizes(**_TINY, **_CLUENET),
    "cluenet_small": Sizes(**_SMALL, **_CLUENET),
    "cluenet_base": Sizes(**_MEDIUM, **_CLUENET),
}


def build(arch: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """The network `arch` with fresh parameters; 0 classes give the backbone with its four feature maps.

    Overrides are fields of `Sizes`: `grid=(10, 10, 5, 5)`, `fold=(2, 2, 1, 1)`, where an
    entry may be a pair, (along height, along width).
    """
    if arch not in ARCHS:
        raise ValueError(f"no architecture {arch!r}; there are {', '.join(ARCHS)}")
    sizes = replace(ARCHS[arch], **overrides)
    if arch.startswith("coc"):
        return coc(sizes, num_classes)
    if arch.startswith("fec"):
        return fec(sizes, num_classes)
    patch = 1 if arch == "cluenet_cifar" else 4
    return cluenet(sizes, num_classes, patch=patch, pool_norm=arch in ("cluenet_cifar", "cluenet_micro"))


def of_config(config: ClusterConfig) -> nn.Module:
    """The network of one of `cluinfer.export`'s configurations, of any number of stages."""
    sizes = Sizes(
        config.depths,
        config.channels,
        config.heads,
        config.head_dims[0],
        config.grid,
        config.fold,
        [hidden // channels for hidden, channels in zip(config.hidden, config.channels, strict=True)],
    )
    classes = config.num_classes or 0
    if config.family != "cluenet":
        return {"coc": coc, "fec": fec}[config.family](sizes, classes)
    return cluenet(sizes, classes, patch=config.patch[1], pool_norm=config.pool_norm)
