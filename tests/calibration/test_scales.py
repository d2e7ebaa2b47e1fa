"""Steps and balances: what each method keeps, what has none, and that nothing changes but the rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pass_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluinfer.calibration.layers import Layer, find_layers
from cluinfer.calibration.observe import Observation
from cluinfer.calibration.scales import (
    LEVELS,
    METHODS,
    TINY,
    Scales,
    choose_scales,
    rounded,
    takes_middle,
    weight_steps,
)

BIAS = np.arange(3, dtype=np.float32)


def layer(weight: np.ndarray, body: str = "y = Conv(x, w)", side: int = 5, **constants: np.ndarray) -> Layer:
    """A 1x1 convolution of 4 channels to 3."""
    shaped = weight.astype(np.float32).reshape(3, 4, 1, 1)
    (found,) = find_layers(
        pass_cases.build("float[B, 4, 5, 5] x", f"float[B, 3, {side}, {side}] y", body, w=shaped, **constants)
    )
    return found


WEIGHT = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
PLAIN = layer(WEIGHT)


def seen(points: np.ndarray) -> Observation:
    return Observation(points.min(0), points.max(0), points)


def normal(count: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


def chosen(points: np.ndarray, method: str = "minmax", balance: bool = False, *layers: Layer) -> Scales:
    found = choose_scales(layers or [PLAIN], seen(points), method, balance)
    assert found is not None
    return found


def given_by(points: np.ndarray, how: Scales, weight: np.ndarray) -> np.ndarray:
    """What the layer makes of these points in int8."""
    middle = np.zeros(4) if how.middle is None else how.middle
    factor = np.ones(4) if how.factor is None else how.factor
    matrix = weight.astype(np.float64) * factor
    matrix = rounded(matrix, weight_steps(matrix)[:, None])
    result: np.ndarray = rounded((points.astype(np.float64) - middle) / factor, how.step) @ matrix.T + weight @ middle
    return result


def test_the_largest_number_seen() -> None:
    points = normal()
    assert chosen(points).step == pytest.approx(np.abs(points).max() / LEVELS)
    wider = Observation(points.min(0) - 9, points.max(0), points)  # of other points of the images
    found = choose_scales([PLAIN], wider, "minmax", balance=False)
    assert found is not None
    assert found.step == pytest.approx((9 - points.min()) / LEVELS)


def test_the_percentile() -> None:
    points = np.abs(normal(40_000))
    points[0, 0] = 100
    step = chosen(points, "percentile").step
    assert step * LEVELS == pytest.approx(np.percentile(points, 99.99), abs=100 / 2048)


@pytest.mark.parametrize("method", ["percentile", "entropy", "error"])
def test_a_few_far_out_are_cut_off(method: str) -> None:
    points = normal(40_000)
    points[:3, 0] = 8
    assert 3 < chosen(points, method).step * LEVELS < 7
    assert chosen(points, "minmax").step * LEVELS == 8


@pytest.mark.parametrize("method", METHODS)
def test_no_more_than_was_seen_is_kept(method: str) -> None:
    for points in (normal(), np.abs(normal()), np.sign(normal())):
        assert chosen(points, method).step <= np.abs(points).max() / LEVELS * (1 + 1e-6)


def test_the_error_method_leaves_no_more_error_than_the_largest_number() -> None:
    points = normal() ** 3
    wanted = points @ WEIGHT.T
    errors = [
        np.square(given_by(points, chosen(points, method, balance), WEIGHT) - wanted).mean()
        for method in ("minmax", "error")
        for balance in (False, True)
    ]
    assert errors[2] < errors[0]
    assert errors[3] <= errors[1]
    assert errors[3] <= errors[2] * 1.01  # the search is on some of the points


def test_balance_gives_each_channel_what_it_needs() -> None:
    points = normal() * [100, 1, 0.01, 1] + [0, 50, 0, 0]
    points = points.astype(np.float32)
    wanted = points @ WEIGHT.T
    plain, balanced = (chosen(points, "minmax", balance) for balance in (False, True))
    assert plain.middle is None and plain.factor is None
    assert balanced.middle is not None and balanced.factor is not None
    np.testing.assert_allclose(balanced.middle, (points.min(0) + points.max(0)) / 2, rtol=1e-5)
    assert balanced.factor[0] > balanced.factor[1] > balanced.factor[2]
    errors = [np.square(given_by(points, how, WEIGHT) - wanted).mean() for how in (plain, balanced)]
    assert errors[1] < errors[0] / 2


def test_without_rounding_balance_changes_nothing() -> None:
    points = normal() * np.float32([9, 1, 0.1, 1]) + np.float32([0, 5, 0, 0])
    how = chosen(points, "minmax", True)
    assert how.middle is not None and how.factor is not None
    got = (points - how.middle) / how.factor @ (WEIGHT * how.factor).T + WEIGHT @ how.middle
    np.testing.assert_allclose(got, points @ WEIGHT.T, atol=1e-4)


def test_no_balance_where_several_read_or_a_border_is_added() -> None:
    points = (normal() * [9, 1, 1, 1] + 5).astype(np.float32)
    padded = layer(WEIGHT, "y = Conv<pads = [1, 1, 1, 1]>(x, w)", 7)
    for layers in ((PLAIN, PLAIN), (padded,)):
        found = chosen(points, "minmax", True, *layers)
        assert found.middle is None and found.factor is None


def test_a_middle_needs_a_bias_that_can_take_it_up() -> None:
    assert takes_middle(PLAIN)
    assert takes_middle(layer(WEIGHT, "y = Conv(x, w, b)", b=BIAS))
    assert not takes_middle(
        layer(WEIGHT, "b = ReduceMean<keepdims = 0>(x, a)\n y = Conv(x, w, b)", a=pass_cases.ints(0, 2, 3))
    )
    tokens = pass_cases.build("float[B, 7, 4] x", "float[B, 7, 3] y", "y = MatMul(x, w)", w=WEIGHT.T.copy())
    (product,) = find_layers(tokens)
    assert not takes_middle(product)
    found = chosen((normal() * [9, 1, 1, 1] + 5).astype(np.float32), "minmax", True, product)
    assert found.middle is None and found.factor is not None
    for body, shape, takes in (
        ("y = Gemm(x, w, b)", (3,), True),
        ("y = Gemm(x, w, b)", (1, 3), True),
        ("y = Gemm(x, w)", (3,), True),
        ("y = Gemm<beta = 0.5>(x, w, b)", (3,), False),
        ("y = Gemm(x, w, b)", (1,), False),
        ("y = Gemm(x, w, b)", (5, 3), False),
    ):
        constants = {"w": WEIGHT.T.copy(), **({"b": np.zeros(shape, np.float32)} if ", b" in body else {})}
        (gemm,) = find_layers(pass_cases.build("float[5, 4] x", "float[5, 3] y", body, **constants))
        assert takes_middle(gemm) == takes, (body, shape)


@pytest.mark.parametrize("method", METHODS)
def test_what_never_changes_has_no_step(method: str) -> None:
    for level in (0, 3, -1e30):
        assert choose_scales([PLAIN], seen(np.full((50, 4), level, np.float32)), method) is None


@pytest.mark.parametrize("method", ["error", "minmax", "percentile"])
def test_one_channel_that_changes_is_enough(method: str) -> None:
    points = np.zeros((50, 4), np.float32)
    points[:, 2] = np.linspace(0, 1, 50)
    how = chosen(points, method, True)
    got, wanted = given_by(points, how, WEIGHT), points @ WEIGHT.T
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_outputs_without_weights() -> None:
    np.testing.assert_array_equal(weight_steps(np.array([[0, 0], [1, -254], [1e-45, 0]])), [1, 2, 1])
    how = chosen(normal(), "error", True, layer(np.zeros((3, 4))))
    assert how.step > 0


def test_numbers_too_small_for_a_step_have_none() -> None:
    points = normal()
    for scale, found in ((1e-44, False), (1e-38, False), (1e-34, True)):
        assert (choose_scales([PLAIN], seen(points * np.float32(scale)), "error") is not None) == found


def test_rounding_ends_at_the_levels() -> None:
    np.testing.assert_array_equal(rounded(np.array([-1e9, -1.5, 0.5, 1.5, 1e9]), 1.0), [-128, -2, 0, 2, 127])


def extreme(power: float, random: np.random.Generator) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        array = random.standard_normal((64, 4)) * 10.0**power
    limit = float(np.finfo(np.float32).max) / 8
    return array.clip(-limit, limit).astype(np.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    data=st.integers(0, 1 << 32),
    powers=st.tuples(*[st.floats(-45, 38)] * 4),
    weights=st.floats(-45, 38),
    method=st.sampled_from(list(METHODS)),
    balance=st.booleans(),
)
def test_no_scale_is_zero_or_infinite_or_nan(
    data: int, powers: tuple[float, ...], weights: float, method: str, balance: bool
) -> None:
    random = np.random.default_rng(data)
    points = np.concatenate([extreme(power, random)[:, :1] for power in powers], axis=1)
    matrix = extreme(weights, random)[:3]
    with np.errstate(all="raise", under="ignore"):
        how = choose_scales([layer(matrix)], seen(points), method, balance)
    if how is None:
        assert np.abs(points).max() < LEVELS * TINY or not np.ptp(points, axis=0).any()
        return
    step = np.float32(how.step)
    assert np.isfinite(step) and step >= np.float32(TINY)
    for each in (how.middle, how.factor):
        assert each is None or np.isfinite(each.astype(np.float32)).all()
    assert how.factor is None or ((how.factor > 0).all() and np.isfinite(1 / how.factor.astype(np.float32)).all())
    steps = weight_steps(matrix.astype(np.float64) * (1 if how.factor is None else how.factor)).astype(np.float32)
    assert (steps > 0).all() and np.isfinite(steps).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.integers(0, 1 << 32), power=st.floats(-30, 30), shift=st.floats(-3, 3), balance=st.booleans())
def test_no_point_is_further_off_than_half_a_step(data: int, power: float, shift: float, balance: bool) -> None:
    points = extreme(power, np.random.default_rng(data)) + np.float32(shift * 10**power)
    how = choose_scales([PLAIN], seen(points), "minmax", balance)
    assert how is not None
    middle: Any = 0 if how.middle is None else how.middle
    factor: Any = 1 if how.factor is None else how.factor
    balanced = (points.astype(np.float64) - middle) / factor
    assert np.abs(rounded(balanced, how.step) - balanced).max() <= how.step / 2 * (1 + 1e-4)
