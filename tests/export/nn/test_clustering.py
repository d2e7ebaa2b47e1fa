"""The clustering layers: pooling, watching, and shared assignments."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cluinfer.export.nn import ClusterAttention, ClusterPool, ContextClustering, watch_clusters
from cluinfer.export.nn.clustering import pool_to


class Pooled(torch.nn.Module):
    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pool_to(x, self.grid)


@pytest.mark.parametrize("grid", [(2, 3), (4, 4), (7, 7), (1, 1), (6, 9), (12, 20)])
def test_pooling_is_adaptive_pooling_also_when_exported(grid: tuple[int, int]) -> None:
    """(12, 20) is finer than the map: windows then overlap in one point."""
    x = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    wanted = F.adaptive_avg_pool2d(x, grid)
    torch.testing.assert_close(pool_to(x, grid), wanted)
    exported = torch.export.export(Pooled(grid), (x,))
    torch.testing.assert_close(exported.module()(x), wanted)


def test_watching_sees_each_layer_once_and_nothing_outside() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(ContextClustering(4, 2, 3, (2, 2), fold=(2, 2)), ClusterPool(4, 6))
    other = ContextClustering(4, 2, 3, (2, 2))
    x = torch.randn(3, 4, 4, 8)
    with watch_clusters(model) as seen:
        model(x)
        other(x)
    assert list(seen) == ["0", "1"]
    assert seen["0"].index.shape == (3 * 2 * 4, 2 * 4)
    assert int(seen["0"].index.max()) < 4
    assert seen["1"].index.shape == (3, 32)
    assert seen["1"].layout.grid == (2, 4)
    with watch_clusters(model) as nothing:
        pass
    assert nothing == {}


def test_a_layer_without_its_own_similarity_takes_an_earlier_assignment() -> None:
    torch.manual_seed(0)
    first, second = ClusterAttention(4, 2, 4, (2, 2)), ClusterAttention(4, 2, 4, (2, 2), assign=False)
    x = torch.randn(1, 4, 6, 6)
    y, assignment = first(x)
    _, same = second(y, assignment)
    assert same is assignment
    with pytest.raises(ValueError, match="give it the assignment of an earlier layer"):
        second(y)


def test_a_clustering_can_be_fine_tuned() -> None:
    """Every parameter gets a gradient, the similarity's scale and shift included, and steps lower a loss."""
    torch.manual_seed(0)
    layer = ContextClustering(4, 2, 3, (2, 2), weighted=True)
    x, target = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(layer(x), target)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
