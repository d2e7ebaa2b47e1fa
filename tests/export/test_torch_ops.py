"""The operators in PyTorch: equal to the reference, traceable, and differentiable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from operator_cases import Case, assert_same_choice, cases

from cluinfer.errors import ShapeError
from cluinfer.export import torch_ops
from cluinfer.export.nn import cluster_assign, cluster_gather, cluster_scatter
from cluinfer.ops import reference


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


@given(cases())
@settings(max_examples=200, deadline=None)
def test_equal_to_the_reference(case: Case) -> None:
    attributes = {"alpha": case.alpha, "beta": case.beta, "sigmoid": case.sigmoid}
    index, weight = cluster_assign(tensor(case.points), tensor(case.centers), **attributes)
    expected, _ = reference.cluster_assign(case.points, case.centers, **attributes)
    assert_same_choice(case, index.numpy(), weight.numpy(), expected)
    scale = max(1.0, np.abs(case.values).max(), np.abs(case.base).max())
    for weight_array in (None, case.weight):
        w = None if weight_array is None else tensor(weight_array)
        got = cluster_scatter(tensor(case.values), tensor(case.index), tensor(case.base), w)
        wanted = reference.cluster_scatter(case.values, case.index, case.base, weight_array)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * scale)
        got = cluster_gather(tensor(case.base), tensor(case.index), w)
        np.testing.assert_array_equal(got, reference.cluster_gather(case.base, case.index, weight_array))


def test_nan_and_saturation() -> None:
    points = torch.tensor([[[1.0, float("nan")], [0.0, 1.0]]])
    index, weight = cluster_assign(points, torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]), alpha=100.0)
    assert index.tolist() == [[0, 0]]
    assert weight[0, 0] == 1
    assert weight[0, 1].isnan()
    values = torch.tensor([[[float("nan"), 4.0, float("nan")]]])
    centers = cluster_scatter(values, torch.tensor([[0, 1, 9]]), torch.zeros(1, 1, 3))
    np.testing.assert_array_equal(centers, [[[np.nan, 2, 0]]])


def leaf(*shape: int, seed: int) -> torch.Tensor:
    made = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


POINTS, CENTERS = leaf(3, 6, 20, seed=1), leaf(3, 6, 5, seed=2)
VALUES, BASE = leaf(3, 4, 20, seed=3), leaf(3, 4, 5, seed=4)
INDEX = torch.randint(-2, 7, (3, 20), generator=torch.Generator().manual_seed(5)).int()
WEIGHT, ALPHA, BETA = leaf(3, 20, seed=6), leaf(1, seed=7), leaf(seed=8)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_assign_passes_opcheck_and_gradcheck(sigmoid: bool) -> None:
    done = torch.library.opcheck(torch_ops._assign, (POINTS, CENTERS, ALPHA, BETA, sigmoid, [1, 1, 1, 4, 5, 1, 5]))
    assert set(done.values()) == {"SUCCESS"}
    assert torch.autograd.gradcheck(lambda *a: cluster_assign(*a, sigmoid)[1], (POINTS, CENTERS, ALPHA, BETA))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_scatter_and_gather_pass_opcheck_and_gradcheck(weight: torch.Tensor | None) -> None:
    weights = () if weight is None else (weight,)
    done = torch.library.opcheck(torch_ops._scatter, (VALUES, INDEX, BASE, weight))
    done |= torch.library.opcheck(torch_ops._gather, (BASE, INDEX, weight))
    assert set(done.values()) == {"SUCCESS"}
    assert torch.autograd.gradcheck(lambda v, b, *w: cluster_scatter(v, INDEX, b, *w), (VALUES, BASE, *weights))
    assert torch.autograd.gradcheck(lambda c, *w: cluster_gather(c, INDEX, *w), (BASE, *weights))


def test_gradients_equal_those_of_the_published_formulation() -> None:
    """One-hot masks and broadcast sums, as the papers' code has it, through autograd."""
    points, centers, base = (x.detach().clone().requires_grad_() for x in (POINTS, CENTERS, BASE))
    index, weight = cluster_assign(points, centers, ALPHA, BETA)
    ours = cluster_gather(cluster_scatter(VALUES, index, base, weight), index, weight)
    inputs = (points, centers, VALUES, base, ALPHA, BETA)
    ours_grad = torch.autograd.grad(ours.square().sum(), inputs)

    units = [torch.nn.functional.normalize(x, dim=1) for x in (centers, points)]
    s = torch.sigmoid(BETA + ALPHA * (units[0].transpose(1, 2) @ units[1]))  # [G, M, N]
    s = s * torch.zeros_like(s).scatter_(1, s.argmax(1, keepdim=True), 1)
    hidden = (VALUES @ s.transpose(1, 2) + base) / (s.sum(2) + 1).unsqueeze(1)
    theirs = hidden @ s
    theirs_grad = torch.autograd.grad(theirs.square().sum(), inputs)
    torch.testing.assert_close(ours, theirs)
    for got, wanted in zip(ours_grad, theirs_grad, strict=True):
        torch.testing.assert_close(got, wanted)


def test_half_precision_data_is_computed_in_float32() -> None:
    points, centers = POINTS.detach().bfloat16(), CENTERS.detach().bfloat16()
    index, weight = cluster_assign(points, centers)
    wanted_index, wanted = cluster_assign(points.float(), centers.float())
    assert weight.dtype == torch.bfloat16
    assert torch.equal(index, wanted_index)
    assert torch.equal(weight, wanted.bfloat16())


def test_autocast_leaves_the_similarity_in_float32() -> None:
    points, centers = POINTS.detach().float(), CENTERS.detach().float()
    wanted = cluster_assign(points, centers)
    with torch.autocast("cpu", torch.bfloat16):
        got = cluster_assign(points, centers)
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"cluster_assign: wanted .* got points \[3, 6, 20\], centers \[3, 4, 5\]"):
        cluster_assign(POINTS, BASE)
    with pytest.raises(ShapeError, match=r"cluster_scatter: .*index \[3, 20\]"):
        cluster_scatter(VALUES[:, :, :3], INDEX, BASE)
    with pytest.raises(ShapeError, match=r"cluster_gather: .*index \[3, 20\]"):
        cluster_gather(BASE[:2], INDEX)
