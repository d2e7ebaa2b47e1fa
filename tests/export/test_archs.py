"""The listed sizes are the published ones, to the digits given there."""

from __future__ import annotations

import pytest
import torch

from cluinfer.export.archs import ArchSummary, count_macs, summaries
from cluinfer.export.models import ARCHS
from cluinfer.export.nn import ContextClustering

PUBLISHED = {  # millions of parameters and of multiply-accumulates, at 100 classes
    "cluenet_micro": ("3.02", "0.65 G"),
    "cluenet_tiny": ("5.68", "1.30 G"),
    "cluenet_small": ("15.05", "3.16 G"),
    "cluenet_base": ("30.20", "6.40 G"),
    "fec_small": ("5.44", "1.38 G"),
    "fec_large": ("29.26", "6.55 G"),
    "coc_tiny": ("5.28", "1.12 G"),
    "coc_medium": ("28.83", "5.96 G"),
    "cluenet_cifar": ("3.02", "189 M"),
}


@pytest.fixture(scope="module")
def rows() -> dict[str, ArchSummary]:
    return {row.name: row for row in summaries()}


def test_every_arch_is_listed(rows: dict[str, ArchSummary]) -> None:
    assert list(rows) == list(ARCHS)
    assert rows["cluenet_cifar"].size == (3, 32, 32)
    assert {row.classes for row in rows.values()} == {100}
    assert {row.family for row in rows.values()} == {"coc", "fec", "cluenet", "icasc"}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_sizes_are_the_published_ones(rows: dict[str, ArchSummary], arch: str) -> None:
    row = rows[arch]
    parameters, macs = PUBLISHED[arch]
    assert f"{row.parameters / 1e6:.2f}" == parameters
    shown = f"{row.macs / 1e9:.2f} G" if macs.endswith("G") else f"{row.macs / 1e6:.0f} M"
    assert shown == macs


def test_a_resnet_has_its_known_size(rows: dict[str, ArchSummary]) -> None:
    row = rows["icasc_resnet18"]
    assert row.parameters == 11_689_512 - 900 * 513
    assert 1.81e9 < row.macs < 1.83e9  # 1.81 G in convolutions, the rest in norms and ReLU


def test_a_clustering_counted_by_hand() -> None:
    layer = ContextClustering(3, heads=2, head_dim=4, grid=(2, 2))
    image = torch.zeros(1, 3, 4, 6)
    points, width, centers = 4 * 6, 8, 4
    convolutions = 2 * points * width * (3 + 1) + points * 3 * (width + 1)
    pools, similarity = 2 * points * width, points * centers * width
    scatter_and_gather = 2 * points * width
    assert count_macs(layer, image) == convolutions + pools + similarity + scatter_and_gather
