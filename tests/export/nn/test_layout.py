"""Heads and regions are split and put back in the published order."""

from __future__ import annotations

import pytest
import torch

from cluinfer.errors import ShapeError
from cluinfer.export.nn import Layout


def test_points_lie_where_the_order_says() -> None:
    x = torch.arange(2 * 6 * 4 * 6).reshape(2, 6, 4, 6)
    layout = Layout.of(x, heads=3, fold=(2, 3), grid=(1, 1))
    assert layout.region == (2, 2)
    split = layout.split(x)
    assert split.shape == (2 * 3 * 6, 2, 2, 2)
    g = 0
    for b in range(2):
        for head in range(3):
            for i in range(2):
                for j in range(3):
                    wanted = x[b, 2 * head : 2 * head + 2, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    assert torch.equal(split[g], wanted)
                    g += 1
    assert torch.equal(layout.merge(split, layout.region), x)


def test_centres_of_regions_make_a_smaller_map() -> None:
    x = torch.arange(1 * 2 * 4 * 8).reshape(1, 2, 4, 8)
    layout = Layout.of(x, heads=1, fold=(2, 2), grid=None)
    assert layout.grid == (1, 2)
    first_of_each = layout.split(x)[:, :, ::2, ::2]
    assert torch.equal(layout.merge(first_of_each, layout.grid), x[:, :, ::2, ::2])


def test_a_fold_counts_only_if_both_parts_exceed_one() -> None:
    x = torch.zeros(1, 2, 5, 6)
    assert Layout.of(x, 1, (1, 3), (2, 2)).fold == (1, 1)
    assert Layout.of(x, 2, (1, 1), (2, 2)).to_list() == [2, 1, 1, 5, 6, 2, 2]


def test_a_map_that_does_not_split() -> None:
    with pytest.raises(ShapeError, match="a map of 5x6 points does not split into 2x2 equal regions"):
        Layout.of(torch.zeros(1, 2, 5, 6), 1, (2, 2), (2, 2))
