"""The model families, one file each, and every published architecture by name."""

from __future__ import annotations

from torch import nn

from cluinfer.errors import ArchError
from cluinfer.export.models import cluenet, coc, fec, icasc
from cluinfer.export.models.config import ClusterConfig
from cluinfer.export.models.icasc import IcascConfig

Config = ClusterConfig | IcascConfig

ARCHS: dict[str, Config] = {**coc.ARCHS, **fec.ARCHS, **cluenet.ARCHS, **icasc.ARCHS}

_FAMILIES = {"coc": coc.Coc, "fec": fec.Fec, "cluenet": cluenet.CLUENet}


def build(config: Config) -> nn.Module:
    """A model of this configuration, with fresh parameters."""
    return icasc.Icasc(config) if isinstance(config, IcascConfig) else _FAMILIES[config.family](config)


def family_of(config: Config) -> str:
    """ "coc", "fec", "cluenet" or "icasc"."""
    return "icasc" if isinstance(config, IcascConfig) else config.family


def published(arch: str) -> Config:
    """The configuration of a published architecture."""
    if arch not in ARCHS:
        raise ArchError(f"unknown arch '{arch}': wanted one of {', '.join(ARCHS)}")
    return ARCHS[arch]
