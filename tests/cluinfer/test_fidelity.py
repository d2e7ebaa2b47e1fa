"""Two runs compared, against values worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cluinfer.errors import ShapeError
from cluinfer.fidelity import MapAgreement, compare
from cluinfer.graph import ClusterOutput

Run = dict[str, NDArray[Any]]
MAP = "clusters/network.0"


def ids(*rows: list[int]) -> Run:
    return {MAP: np.array(rows, np.int32).reshape(len(rows), 1, 1, -1)}


def numbers(*rows: list[float]) -> Run:
    return {"logits": np.array(rows, np.float32)}


def margins(*rows: list[float]) -> Run:
    return {MAP: np.array(rows, np.float32).reshape(len(rows), 1, 1, -1)}


# --- maps


def test_points_are_the_same_near_ties_or_flips() -> None:
    found = compare(
        ids([0, 1, 2, 3, 4], [0, 0, 0, 0, 0]),
        ids([0, 9, 9, 9, 4], [0, 0, 0, 0, 1]),
        margins([9e-6, 9e-6, 1e-5, 0.5, 0.5], [0, 0, 0, 0, 0]),
    )
    each = found.maps[MAP]
    assert each == MapAgreement(points=10, same=6, near_ties=2, clear=2, clear_same=1, heads=(6,))
    assert (each.flips, each.agreement, each.fair_agreement, each.clear_agreement) == (2, 0.6, 0.8, 0.5)
    assert found.overall == replace(each, heads=())


def test_heads_are_told_apart_and_add_up() -> None:
    reference = {MAP: np.zeros((1, 2, 2, 2), np.int32)}
    candidate = {MAP: np.array([[[[0, 0], [0, 1]], [[1, 1], [1, 0]]]], np.int32)}
    found = compare(reference, candidate) + compare(reference, reference)
    assert found.maps[MAP].heads == (7, 5)
    assert found.maps[MAP].head_agreements == (7 / 8, 5 / 8)
    assert found.overall.heads == ()


def test_without_margins_every_change_counts_as_a_flip() -> None:
    each = compare(ids([0, 1, 2, 3]), ids([0, 1, 2, 4])).maps[MAP]
    assert (each.near_ties, each.flips, each.fair_agreement) == (None, 1, 0.75)


def test_the_bound_of_a_near_tie_can_be_set() -> None:
    reference, candidate, margin = ids([0, 1]), ids([1, 0]), margins([0.01, 0.03])
    assert compare(reference, candidate, margin, near=0.02).maps[MAP].near_ties == 1


def test_a_margin_that_is_not_a_number_is_no_tie() -> None:
    assert compare(ids([0]), ids([1]), margins([math.nan])).maps[MAP].flips == 1


def test_other_integer_types_are_ids_too() -> None:
    other = {MAP: ids([0, 1])[MAP].astype(np.int64)}
    assert compare(ids([0, 1]), other).maps[MAP].agreement == 1


# --- numbers


def test_errors_are_in_deviations_of_the_reference() -> None:
    found = compare(numbers([1, 3], [1, 3]), numbers([1, 3], [1.5, 3.25]))  # mean 2, deviation 1
    assert found.numbers["logits"].max_error == 0.5
    assert found.numbers["logits"].mean_error == 0.75 / 4
    assert found.top1_same == found.images == 2


def test_top_1() -> None:
    found = compare(numbers([0, 1, 2], [5, 1, 0], [0, 3, 1]), numbers([0, 1, 2], [1, 5, 0], [0, 3, 1]))
    assert (found.images, found.top1_same) == (3, 2)
    assert found.failures(max_error=10, min_top1=0.6) == []
    assert found.failures(max_error=10, min_top1=0.9) == [
        "logits: the likeliest class is the same for only 66.66 %, wanted 90 %"
    ]


@pytest.mark.parametrize(
    ("reference", "candidate", "error"),
    [
        ([1.0, 1.0], [1.0, 1.0], 0.0),
        ([1.0, 1.0], [1.0, 1.1], math.inf),  # no deviation to measure by
        ([0.0, 2.0], [0.0, math.nan], math.inf),
        ([0.0, 2.0], [0.0, math.inf], math.inf),
        ([0.0, math.nan], [0.0, 2.0], math.inf),
        ([math.nan, math.inf], [math.nan, math.inf], 0.0),
        ([0.0, math.inf], [0.0, -math.inf], math.inf),
    ],
)
def test_numbers_without_end(reference: list[float], candidate: list[float], error: float) -> None:
    found = compare(numbers(reference), numbers(candidate))
    assert found.numbers["logits"].max_error == error
    assert (found.failures() == []) == (error == 0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_evidence_is_compared_where_the_classes_are_the_same() -> None:
    reference: Run = {
        "evidence": np.array([0.0, 1, 2, 3]).reshape(1, 2, 1, 2),
        "evidence_classes": np.array([[7, 8]]),
    }
    candidate: Run = {
        "evidence": np.array([0.0, 1, 9, 9]).reshape(1, 2, 1, 2),
        "evidence_classes": np.array([[7, 9]]),
    }
    each = compare(reference, candidate).numbers
    assert list(each) == ["evidence"]
    assert (each["evidence"].count, each["evidence"].max_error) == (2, 0)


# --- batches


def test_batches_add_up_to_the_whole() -> None:
    random = np.random.default_rng(3)
    reference: Run = {"logits": random.normal(5, 3, (7, 10)), MAP: random.integers(0, 3, (7, 2, 4, 4))}
    candidate: Run = {"logits": random.normal(5, 3, (7, 10)), MAP: random.integers(0, 3, (7, 2, 4, 4))}
    margin: Run = {MAP: random.uniform(0, 2e-5, (7, 2, 4, 4))}
    whole = compare(reference, candidate, margin)

    def part(start: int, stop: int) -> Any:
        cut = [{name: array[start:stop] for name, array in run.items()} for run in (reference, candidate, margin)]
        return compare(cut[0], cut[1], cut[2])

    summed = reduce(add, [part(0, 1), part(1, 1), part(1, 5), part(5, 7)])
    assert (summed.images, summed.top1_same, summed.maps) == (whole.images, whole.top1_same, whole.maps)
    for name in ("max_error", "mean_error", "mean", "squares"):
        assert getattr(summed.numbers["logits"], name) == pytest.approx(getattr(whole.numbers["logits"], name))


def test_ties_known_for_one_batch_only_are_not_known() -> None:
    found = compare(ids([0, 1]), ids([0, 2]), margins([0, 0])) + compare(ids([0, 1]), ids([0, 2]))
    assert found.maps[MAP] == MapAgreement(4, 2, None, heads=(2,))
    assert found.maps[MAP].clear_agreement is None


def test_different_outputs_do_not_add_up() -> None:
    with pytest.raises(ShapeError, match="comparisons of different outputs do not add up"):
        compare(ids([0]), ids([0])) + compare(numbers([0]), numbers([0]))


# --- what is judged


def test_thresholds() -> None:
    same = [0] * 1000
    found = compare(
        {**ids(same, same), **numbers([0, 2], [0, 2])},
        {**ids([1] * 6 + same[6:], same), **numbers([0, 2], [0, 2.01])},
        margins([1] * 1000, [1] * 1000),
    )
    assert found.failures(0.997, 0.02) == []
    assert found.failures() == [
        "clusters/network.0: only 99.7 % of the points agree or are near ties, wanted 99.8 %",
        "logits: off by up to 1.0e-02 of its standard deviation, wanted at most 2.0e-03",
    ]


def test_numbers_are_judged_where_no_point_changed_its_cluster() -> None:
    """A point in a near tie may fall either way, and moves the numbers after it: that is no fault of the candidate."""
    reference = {**ids([0, 1], [0, 1]), **numbers([1, 3], [1, 3])}
    tied = {**ids([0, 1], [0, 0]), **numbers([1, 3], [1, 3.5])}
    found = compare(reference, tied, margins([1, 1], [1, 0]))
    assert (found.images, found.moved) == (2, 1)
    assert (found.numbers["logits"].max_error, found.settled["logits"].max_error) == (0.5, 0.0)
    assert found.failures() == []
    assert "in 1 a point changed its cluster, which moves the numbers after it" in found.table()
    wrong = {**ids([0, 1], [0, 0]), **numbers([1, 3.5], [1, 3])}
    assert compare(reference, wrong, margins([1, 1], [1, 0])).failures() == [
        "logits: off by up to 5.0e-01 of its standard deviation, wanted at most 2.0e-03"
    ]


def test_where_every_image_moved_all_numbers_are_judged() -> None:
    found = compare({**ids([0]), **numbers([1, 3])}, {**ids([1]), **numbers([1, 3.5])}, margins([0]))
    assert found.failures() == ["logits: off by up to 5.0e-01 of its standard deviation, wanted at most 2.0e-03"]


def test_one_bad_layer_is_not_hidden_by_good_ones() -> None:
    good = {f"clusters/network.{i}": np.zeros((1, 1, 100, 100), np.int32) for i in range(1, 9)}
    found = compare({**ids([0, 0]), **good}, {**ids([0, 1]), **good})
    assert found.overall.agreement > 0.9999
    assert found.failures() == ["clusters/network.0: only 50 % of the points agree, wanted 99.8 %"]


def test_nothing_compared_is_no_success() -> None:
    assert compare({}, {}).failures() == ["nothing was compared"]
    empty: Run = {"logits": np.zeros((0, 10))}
    assert compare(empty, empty).failures() == ["nothing was compared"]


# --- what does not fit together


@pytest.mark.parametrize(
    ("reference", "candidate", "margin", "message"),
    [
        (
            numbers([1]),
            ids([1]),
            None,
            "logits: the reference gives it, the candidate does not; it gives clusters/",
        ),
        (
            numbers([1, 2]),
            numbers([1]),
            None,
            "logits: wanted [1, 2] as the reference gives, got [1, 1]; compare two runs of the same model and images",
        ),
        (
            ids([1, 2]),
            ids([1, 2]),
            margins([1]),
            f"{MAP}: wanted a margin for each point [1, 1, 1, 2], got [1, 1, 1, 1]",
        ),
        (ids([1]), margins([1]), None, f"{MAP}: wanted cluster ids, which are integers, got float32"),
        (
            {**ids([1]), **numbers([1], [2])},
            {},
            None,
            "the outputs are of batches of different sizes: {'clusters/network.0': 1, 'logits': 2}",
        ),
    ],
)
def test_runs_that_do_not_fit(reference: Run, candidate: Run, margin: Run | None, message: str) -> None:
    with pytest.raises(ShapeError) as error:
        compare(reference, candidate, margin)
    assert str(error.value).startswith(message)


# --- shown


def test_table() -> None:
    found = compare(
        {**ids([0, 1, 2, 3], [0, 0, 0, 0]), **numbers([1, 3], [1, 3])},
        {**ids([0, 1, 3, 2], [0, 0, 0, 0]), **numbers([1, 3.5], [1, 3.25])},
        margins([1, 1, 1, 0], [1, 1, 1, 1]),
    )
    stage = ClusterOutput("network.0", "stage1", False, 1, 1, (1, 1), (2, 2), (1, 4))
    assert found.table([stage]).splitlines() == [
        "layer               points  same  near ties  real flips",
        "network.0   stage1       8  75 %          1           1",
        "all layers               8  75 %          1           1",
        "",
        "output              largest error  mean error  of the reference's standard deviation",
        "logits                    2.5e-01     1.2e-01",
        "logits, all images        5.0e-01     1.9e-01",
        "2 images compared; the likeliest class is the same for 2; in 1 a point changed its cluster, which moves the "
        "numbers after it",
    ]


def test_table_says_where_ties_are_not_known() -> None:
    lines = compare(ids([0, 1, 2, 3]), ids([0, 1, 3, 2])).table().splitlines()
    assert lines[1] == "network.0        4  50 %  not known           2"
    assert lines[4] == "near ties are not known here: every point that changed its cluster counts as a flip"


def test_100_percent_means_all() -> None:
    found = compare(ids([0] * 100_000), ids([1] + [0] * 99_999))
    assert " 99.99 % " in found.table()


def test_to_dict_is_json() -> None:
    found = compare({**ids([0, 1]), **numbers([1, 3])}, {**ids([0, 2]), **numbers([1, 3])}, margins([1, 0]))
    held = json.loads(json.dumps(found.to_dict()))
    assert held["maps"][MAP] == {
        "points": 2,
        "same": 1,
        "near_ties": 1,
        "flips": 0,
        "agreement": 0.5,
        "fair_agreement": 1.0,
        "clear": 1,
        "clear_agreement": 1.0,
        "heads": [0.5],
    }
    assert held["numbers"]["logits"] == {"count": 2, "max_error": 0.0, "mean_error": 0.0}
    assert (held["images"], held["top1_same"], held["near"], held["overall"]["points"]) == (1, 1, 1e-5, 2)
