"""Which layers run in int8: the default, and what a user changes in it."""

from __future__ import annotations

import calibration_cases as cases
import pytest

from cluinfer.calibration.plan import plan
from cluinfer.errors import CalibrationError


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_dense_layers_and_projections_are_in_int8(family: str) -> None:
    those = cases.subject(family)
    choices = plan(those.layers, those.usable)
    assert [choice.layer for choice in choices] == those.layers
    for choice in choices:
        role = choice.layer.role
        assert choice.int8 == (role in ("dense", "projection")), choice.layer.name
        assert choice.searchable == (role in ("dense", "projection", "similarity"))
        assert choice.reason


def test_names_and_patterns_stay_in_float() -> None:
    those = cases.subject("fec")
    choices = {c.layer.name: c for c in plan(those.layers, those.usable, ["network.0.*", "network.1.conv_skip"])}
    assert not choices["network.0.0.mlp.fc1"].int8
    assert not choices["network.1.conv_skip"].int8
    assert choices["network.2.0.mlp.fc1"].int8
    assert choices["network.0.0.token_mixer.f"].reason == "as asked for"
    assert not choices["network.0.0.token_mixer.f"].searchable


def test_what_has_no_scale_stays_in_float() -> None:
    those = cases.subject("fec")
    usable = [name for name in those.usable if name != "network.2.0.mlp.fc1"]
    (choice,) = [c for c in plan(those.layers, usable) if not c.int8 and c.layer.role == "dense"]
    assert (choice.layer.name, choice.searchable) == ("network.2.0.mlp.fc1", False)
    assert choice.reason == "what it reads never changed while calibrating"


def test_a_name_that_no_layer_has() -> None:
    those = cases.subject("fec")
    with pytest.raises(CalibrationError) as error:
        plan(those.layers, those.usable, ["head", "gone.*"])
    assert str(error.value).startswith("no layer is named 'gone.*'; there are: patch_embed.proj, network.0.0.token_mix")


def test_as_json() -> None:
    those = cases.subject("fec")
    assert plan(those.layers, those.usable)[-1].to_dict() == {
        "layer": "head",
        "role": "head",
        "macs": 24 * 5,
        "int8": False,
        "reason": "gives the logits; hardly any work",
    }
