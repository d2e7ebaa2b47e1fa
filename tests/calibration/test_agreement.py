"""What is left of what the float32 graph saw: by clustering and head, near ties apart, and the answer."""

from __future__ import annotations

import calibration_cases as cases
import numpy as np
import pytest

from cluinfer.calibration.agreement import Measure, _drop, agreement_lines


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_of_the_graph_itself_everything_is_left(family: str) -> None:
    kept = cases.measure(family)(cases.graph(family))
    fidelity = kept.fidelity
    assert (fidelity.images, fidelity.top1_same, kept.top1_drop) == (6, 6, 0)
    assert fidelity.overall.agreement == fidelity.overall.clear_agreement == 1
    assert len(fidelity.maps) == len(cases.nodes(cases.graph(family), "ClusterAssign"))
    assert fidelity.numbers["logits"].max_error == 0


def test_of_int8_less_is_left() -> None:
    kept = cases.measure("fec")(cases.default("fec"))
    overall = kept.fidelity.overall
    assert 0.8 < overall.agreement < 1
    assert overall.clear_agreement is not None and overall.clear_agreement > overall.agreement
    assert overall.same + overall.flips + (overall.near_ties or 0) == overall.points
    for each in kept.fidelity.maps.values():
        assert len(each.heads) in (1, 2) and sum(each.heads) == each.same
        assert np.mean(each.head_agreements) == pytest.approx(each.agreement)


def test_the_drop_is_what_the_model_expects() -> None:
    wanted = np.log(np.array([[0.5, 0.5, 1e-9], [0.9, 0.06, 0.04], [0.2, 0.2, 0.6]], np.float32))
    got = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    np.testing.assert_allclose(_drop(wanted, got), [0, 0.84, 0], atol=1e-6)
    np.testing.assert_allclose(_drop(wanted + 1e4, got)[1], 0.84, atol=1e-3)  # large logits do not overflow


def test_as_text() -> None:
    lines = agreement_lines(cases.measure("fec")(cases.default("fec")))
    assert lines[0].split("  ")[0] == "clustering"
    maps = len(cases.nodes(cases.graph("fec"), "ClusterAssign"))
    assert lines[maps + 1].startswith("all ")
    assert lines[1].split()[0] == "network.0.0.token_mixer"
    assert lines[1].endswith("%")
    assert lines[maps + 2].startswith("likeliest class: the same for ")
    assert lines[maps + 3].startswith("logits: off by ")


def test_no_more_images_than_asked_for() -> None:
    few = Measure(cases.graph("fec"), cases.subject("fec").images.calibrating, 10)
    assert [len(batch) for batch in few.images()] == [8, 2]
