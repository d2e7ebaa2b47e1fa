"""What a graph says of itself: written, read back, and held against the outputs that are there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cluinfer.errors import GraphError
from cluinfer.graph import LIMIT, ClusterOutput, Preprocess, Promise

TOKENS = ClusterOutput("network.0.2.token_mixer", "stage1", False, 1, 4, (8, 8), (2, 2), (56, 48))
POOL = ClusterOutput("network.1", "pool1", True, 1, 1, (1, 1), (28, 24), (56, 48))
PROMISE = Promise(
    "coc_tiny",
    "coc",
    (224, 192),
    2,
    names=("cat", "dog \u00e9 \n"),
    preprocess=Preprocess((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 0.95, "bilinear"),
    maps=(TOKENS, POOL),
    evidence=5,
)
ICASC = Promise("icasc_resnet18", "icasc", (224, 224), 1000, attention=2)
BACKBONE = Promise("fec_small", "fec", (64, 96), None, maps=(TOKENS,), features=4)

SHAPES: dict[str, tuple[int | None, ...]] = {
    "logits": (None, 2),
    "clusters/network.0.2.token_mixer": (None, 4, 56, 48),
    "clusters/network.1": (None, 1, 56, 48),
    "evidence": (None, 5, 7, 6),
    "evidence_classes": (None, 5),
}


@pytest.mark.parametrize("promise", [PROMISE, ICASC, BACKBONE], ids=lambda promise: promise.family)
def test_round_trip(promise: Promise) -> None:
    assert Promise.from_json(promise.to_json()) == promise


def test_outputs_in_order() -> None:
    assert PROMISE.outputs == tuple(SHAPES)
    assert ICASC.outputs == ("logits", "attention/last", "attention/inner", "attention_classes")
    assert BACKBONE.outputs == (
        "features/1",
        "features/2",
        "features/3",
        "features/4",
        "clusters/network.0.2.token_mixer",
    )


def test_similarities_follow_their_maps() -> None:
    promise = replace(PROMISE, similarities=True)
    assert promise.outputs[:4] == ("logits", TOKENS.output, "similarity/network.0.2.token_mixer", POOL.output)
    assert Promise.from_json(promise.to_json()) == promise
    shapes = SHAPES | {TOKENS.similarity: SHAPES[TOKENS.output], POOL.similarity: SHAPES[POOL.output]}
    promise.check_outputs(shapes)
    with pytest.raises(GraphError, match=r"promises similarity/network\.1 of shape"):
        promise.check_outputs(shapes | {POOL.similarity: (None, 1, 56, 49)})


def test_a_description_from_before_similarities() -> None:
    held = json.loads(PROMISE.to_json())
    del held["similarities"]
    assert Promise.from_json(json.dumps(held)) == PROMISE


def refused(text: str) -> str:
    with pytest.raises(GraphError) as error:
        Promise.from_json(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the graph's description is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[1]", "the graph's description is wrong: it must be an object, got [1]"),
        ("null", "the graph's description is wrong: it must be an object, got None"),
        ("{}", "the graph's description is wrong: version must be int, got None"),
    ],
)
def test_no_description(text: str, message: str) -> None:
    assert refused(text) == message


def test_nesting_without_end_is_refused() -> None:
    assert refused("[" * 100_000).startswith("the graph's description is not JSON: ")


def test_a_newer_version_says_what_to_do() -> None:
    held = json.loads(PROMISE.to_json()) | {"version": 2, "more": 1}
    assert refused(json.dumps(held)) == (
        "the graph's description is of version 2, this cluinfer reads up to 1; update cluinfer"
    )


MISSING = object()
CROP_STD = "preprocess needs a crop from 0.01 to 1 and a std of 1e-6 or more"
A_FLOAT, AN_INT, A_TEXT = 1.5, 3, "x"
WRONG: list[tuple[str, Any, str]] = [
    ("version", MISSING, "version must be int, got None"),
    ("version", "1", "version must be int, got '1'"),
    ("version", True, "version must be int, got True"),
    ("version", -1, f"version = -1 is not in 0..{LIMIT}"),
    ("arch", AN_INT, "arch must be str, got 3"),
    ("arch", MISSING, "arch must be str, got None"),
    ("family", AN_INT, "family must be str, got 3"),
    ("size", AN_INT, "size must be list, got 3"),
    ("size", [224], "size.1 must be int, got None"),
    ("size", [224, 224, 3], "unknown field size.2"),
    ("size", [0, 224], f"size.0 = 0 is not in 1..{LIMIT}"),
    ("size", [224, LIMIT + 1], f"size.1 = {LIMIT + 1} is not in 1..{LIMIT}"),
    ("size", [224.0, 224], "size.0 must be int, got 224.0"),
    ("classes", 0, f"classes = 0 is not in 1..{LIMIT}"),
    ("classes", "2", "classes must be int, got '2'"),
    ("classes", True, "classes must be int, got True"),
    ("names", None, "names must be list, got None"),
    ("names", ["cat"], "names must be 2 texts, got 1 entries"),
    ("names", ["cat", 2], "names must be 2 texts, got 2 entries"),
    ("preprocess", None, "preprocess must be dict, got None"),
    ("preprocess.mean", AN_INT, "preprocess.mean must be list, got 3"),
    ("preprocess.mean", [1, 2], "preprocess.mean.2 must be number, got None"),
    ("preprocess.mean", [1, 2, 3, 4], "unknown field preprocess.mean.3"),
    ("preprocess.mean", [1, 2, "3"], "preprocess.mean.2 must be number, got '3'"),
    ("preprocess.std", [1, 1, True], "preprocess.std.2 must be number, got True"),
    ("preprocess.std", [1, 0, 1], CROP_STD),
    ("preprocess.std", [1, float("nan"), 1], "preprocess.std.1 = nan is not in -65536..65536"),
    ("preprocess.crop", A_TEXT, "preprocess.crop must be number, got 'x'"),
    ("preprocess.crop", 0, CROP_STD),
    ("preprocess.crop", A_FLOAT, CROP_STD),
    ("preprocess.interpolation", AN_INT, "preprocess.interpolation must be str, got 3"),
    (
        "preprocess.interpolation",
        "cubic",
        "preprocess needs an interpolation of nearest, box, bilinear, hamming, bicubic, lanczos, got 'cubic'",
    ),
    ("preprocess.more", AN_INT, "unknown field preprocess.more"),
    ("maps", {}, "maps must be list, got {}"),
    ("maps", [1], "maps.0. must be an object, got 1"),
    ("maps.1.layer", AN_INT, "maps.1.layer must be str, got 3"),
    ("maps.1.alias", None, "maps.1.alias must be str, got None"),
    ("maps.1.pool", 1, "maps.1.pool must be bool, got 1"),
    ("maps.1.stage", 0, f"maps.1.stage = 0 is not in 1..{LIMIT}"),
    ("maps.1.heads", 0, f"maps.1.heads = 0 is not in 1..{LIMIT}"),
    ("maps.1.heads", A_FLOAT, "maps.1.heads must be int, got 1.5"),
    ("maps.1.fold", [0, 1], f"maps.1.fold.0 = 0 is not in 1..{LIMIT}"),
    ("maps.1.fold", [5, 1], "maps.1.size does not split into its fold"),
    ("maps.1.grid", A_TEXT, "maps.1.grid must be list, got 'x'"),
    ("maps.1.size", [], "maps.1.size.0 must be int, got None"),
    ("maps.1.more", AN_INT, "unknown field maps.1.more"),
    ("similarities", 1, "similarities must be bool, got 1"),
    ("evidence", -1, f"evidence = -1 is not in 0..{LIMIT}"),
    ("attention", A_TEXT, "attention must be int, got 'x'"),
    ("features", LIMIT + 1, f"features = {LIMIT + 1} is not in 0..{LIMIT}"),
    ("more", AN_INT, "unknown field more"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG, ids=lambda value: str(value)[:20])
def test_every_field_is_checked(where: str, value: Any, message: str) -> None:
    held = json.loads(PROMISE.to_json())
    inner: Any = held
    *path, last = where.split(".")
    for step in path:
        inner = inner[int(step) if isinstance(inner, list) else step]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    assert refused(json.dumps(held)) == f"the graph's description is wrong: {message}"


def test_values_in_messages_are_cut() -> None:
    held = json.loads(PROMISE.to_json()) | {"arch": ["x" * 10_000]}
    assert len(refused(json.dumps(held))) < 150


# --- against the outputs


@pytest.mark.parametrize("batch", [None, 1])
def test_outputs_as_promised(batch: int | None) -> None:
    assert tuple(SHAPES) == PROMISE.outputs
    for shapes in (
        {name: (batch, *sides[1:]) for name, sides in SHAPES.items()},
        {name: (None,) * len(sides) for name, sides in SHAPES.items()},
    ):
        assert PROMISE.check_outputs(shapes) is None  # else it raises


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("logits", (None, 3), "promises logits of shape [?, 2], but it has [?, 3]"),
        ("logits", (None, 2, 1), "promises logits of shape [?, 2], but it has [?, 2, 1]"),
        ("logits", (), "promises logits of shape [?, 2], but it has []"),
        (
            "clusters/network.1",
            (None, 4, 56, 48),
            "promises clusters/network.1 of shape [?, 1, 56, 48], but it has [?, 4, 56, 48]",
        ),
        (
            "clusters/network.1",
            (None, 1, 48, 56),
            "promises clusters/network.1 of shape [?, 1, 56, 48], but it has [?, 1, 48, 56]",
        ),
        ("evidence", (None, 4, 7, 7), "promises evidence of shape [?, 5, ?, ?], but it has [?, 4, 7, 7]"),
        ("evidence", (None, 5, 49), "promises evidence of shape [?, 5, ?, ?], but it has [?, 5, 49]"),
        ("evidence_classes", (None, 4), "promises evidence_classes of shape [?, 5], but it has [?, 4]"),
    ],
)
def test_outputs_of_another_shape(name: str, shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(GraphError) as error:
        PROMISE.check_outputs({**SHAPES, name: shape})
    assert str(error.value) == f"the graph {message}"


@pytest.mark.parametrize("name", SHAPES)
def test_missing_outputs(name: str) -> None:
    with pytest.raises(GraphError) as error:
        PROMISE.check_outputs({key: shape for key, shape in SHAPES.items() if key != name})
    assert str(error.value) == f"the graph promises outputs it does not have: {name}; export it again"


def test_surplus_outputs() -> None:
    with pytest.raises(GraphError) as error:
        PROMISE.check_outputs({**SHAPES, "secret": (1,), "features/1": (1, 2, 3, 4)})
    assert str(error.value) == "the graph has outputs it does not promise: secret, features/1; export it again"


def test_missing_and_surplus_outputs() -> None:
    with pytest.raises(GraphError) as error:
        replace(PROMISE, evidence=0).check_outputs({**SHAPES, "logits": (None, 2)})
    assert "does not promise: evidence, evidence_classes" in str(error.value)
    with pytest.raises(GraphError) as error:
        BACKBONE.check_outputs({f"features/{i}": (None, 8, 4, 4) for i in range(1, 6)})
    assert str(error.value) == (
        "the graph promises outputs it does not have: clusters/network.0.2.token_mixer and has outputs it does not "
        "promise: features/5; export it again"
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [("attention/last", (None, 3, 7, 7)), ("attention/inner", (None, 2, 14)), ("attention_classes", (None, 3))],
)
def test_attention_of_another_shape(name: str, shape: tuple[int | None, ...]) -> None:
    right: dict[str, tuple[int | None, ...]] = {
        "logits": (None, 1000),
        "attention/last": (None, 2, 7, 7),
        "attention/inner": (None, 2, 14, 14),
        "attention_classes": (None, 2),
    }
    ICASC.check_outputs(right)
    with pytest.raises(GraphError, match=f"the graph promises {name} of shape "):
        ICASC.check_outputs({**right, name: shape})


@pytest.mark.parametrize("side", [10**400, float("inf")], ids=["huge", "inf"])
def test_sides_beyond_any_picture(side: float) -> None:
    held = json.loads(PROMISE.to_json()) | {"size": [side, 4]}
    assert refused(json.dumps(held)).startswith("the graph's description is wrong: size.0 ")


@pytest.mark.parametrize("field", ["mean", "std", "crop"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400], ids=["inf", "nan", "huge"])
def test_preprocessing_that_is_not_finite(field: str, value: float) -> None:
    held = json.loads(PROMISE.to_json())
    held["preprocess"][field] = value if field == "crop" else [value] * 3
    where = f"preprocess.{field}" + ("" if field == "crop" else ".0")
    assert refused(json.dumps(held)) == (
        f"the graph's description is wrong: {where} = {value!r:.60} is not in -{LIMIT}..{LIMIT}"
    )


def test_the_same_layer_twice() -> None:
    text = replace(PROMISE, maps=(TOKENS, TOKENS)).to_json()
    assert refused(text) == "the graph's description is wrong: maps names a layer twice"


def test_the_same_alias_twice() -> None:
    text = replace(PROMISE, maps=(TOKENS, replace(POOL, alias="stage1"))).to_json()
    assert refused(text) == "the graph's description is wrong: maps names an alias twice"
    unnamed = replace(PROMISE, maps=(replace(TOKENS, alias=""), replace(POOL, alias="")))
    assert Promise.from_json(unnamed.to_json()) == unnamed
