"""Inputs for the operators' tests: ordinary and extreme, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

Array = NDArray[Any]

# magnitudes whose squares neither vanish nor overflow in float32, and exact zeros
_VALUES = st.one_of(
    st.just(0.0), st.floats(-4, 4, width=32), st.sampled_from([1e-13, -1e-13, 1e-6, 1.0, -1.0, 1e12, -1e12])
)
_ATTRIBUTES = st.sampled_from([1.0, -1.0, 0.0, 0.3, -2.5, 60.0, -60.0])


@dataclass(frozen=True)
class Case:
    points: Array  # [G, D, N]
    centers: Array  # [G, D, M]
    values: Array  # [G, C, N]
    base: Array  # [G, C, M]
    index: Array  # [G, N], some of it outside [0, M)
    weight: Array  # [G, N]
    alpha: float
    beta: float
    sigmoid: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups, channels, points, centers = (draw(st.integers(1, high)) for high in (3, 5, 12, 6))

    def array(*shape: int) -> Array:
        return draw(npst.arrays(np.float32, shape, elements=_VALUES))

    index = draw(npst.arrays(np.int32, (groups, points), elements=st.integers(-2, centers + 1)))
    return Case(
        points=array(groups, channels, points),
        centers=array(groups, channels, centers),
        values=array(groups, channels, points),
        base=array(groups, channels, centers),
        index=index,
        weight=draw(npst.arrays(np.float32, (groups, points), elements=st.floats(0, 1, width=32))),
        alpha=draw(_ATTRIBUTES),
        beta=draw(_ATTRIBUTES),
        sigmoid=draw(st.booleans()),
    )


def similarities(points: Array, centers: Array, alpha: float, beta: float, sigmoid: bool) -> Array:
    """All similarities [G, M, N] in float64, to tell a near tie from a wrong choice."""
    units = [
        x / np.maximum(np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True), 1e-12) for x in (centers, points)
    ]
    s = alpha * np.einsum("gdm,gdn->gmn", *units) + beta
    return 1 / (1 + np.exp(-s)) if sigmoid else s


def assert_same_choice(case: Case, index: Array, weight: Array, expected: Array, tolerance: float = 3e-5) -> None:
    """The chosen centre is the expected one, or one whose similarity is as high within rounding."""
    assert index.dtype == np.int32
    assert index.min(initial=0) >= 0
    assert index.max(initial=0) < case.centers.shape[2]
    s = similarities(case.points, case.centers, case.alpha, case.beta, case.sigmoid)
    scale = max(1.0, abs(case.alpha), abs(case.beta))
    chosen = np.take_along_axis(s, index[:, None], axis=1)[:, 0]
    best = np.take_along_axis(s, expected[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, best, rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(weight, chosen, rtol=0, atol=tolerance * scale)
