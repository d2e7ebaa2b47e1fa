"""Predictions: of real exports, against the PyTorch model that they came from; and of made-up outputs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluinfer import draw
from cluinfer.errors import CluinferError, GraphError, NotShownError, PictureError, ShapeError
from cluinfer.graph import ClusterOutput, Promise
from cluinfer.prediction import Attention, Prediction, Timings, predictions, separability

TIMINGS = Timings(0.001, 0.02, 0.0003)
CROP = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
STAGE = ClusterOutput("network.0.2.token_mixer", "stage1", False, 1, 2, (1, 1), (2, 2), (4, 6))
POOL = ClusterOutput("network.1", "pool1", True, 1, 1, (2, 1), (1, 3), (4, 6))
PROMISE = Promise("own", "fec", (16, 24), 4, names=("cat", "dog", "eel", "fox"), maps=(STAGE, POOL), evidence=2)
ICASC = Promise("icasc_resnet18", "icasc", (16, 24), 4, attention=2)
BACKBONE = Promise("fec_small", "fec", (16, 24), None, maps=(STAGE,), features=2)


def made_up(promise: Promise, batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"evidence": (2, 2, 3), "attention/last": (2, 2, 3), "attention/inner": (2, 4, 6)}
    shapes |= {"features/1": (8, 4, 6), "features/2": (16, 2, 3)}
    maps = {each.output: each for each in promise.maps}
    made = {}
    for name in promise.outputs:
        if name == "logits":
            made[name] = rng.normal(size=(batch, 4)).astype(np.float32)
        elif name in maps:
            made[name] = rng.integers(0, 4, (batch, maps[name].heads, *maps[name].size)).astype(np.int32)
        elif name.endswith("_classes"):
            made[name] = np.tile(np.array([1, 3], np.int32), (batch, 1))
        else:
            made[name] = rng.random((batch, *shapes[name]), np.float32)
    return made


def one(promise: Promise = PROMISE, picture: Image.Image | None = CROP, **changes: np.ndarray) -> Prediction:
    return predictions(made_up(promise, 1) | changes, promise, [picture], TIMINGS)[0]


def refused(kind: type[CluinferError], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


# --- of real exports


@pytest.mark.parametrize("family", ["fec", "cluenet"])
def test_the_model_that_it_came_from_says_the_same(family: str) -> None:
    pytest.importorskip("torch")
    case = pytest.importorskip("exported_cases").clustering(family)
    found = predictions(case.outputs, case.promise, [None, None], TIMINGS)
    for i, prediction in enumerate(found):
        logits = case.logits[i]
        np.testing.assert_allclose(prediction.logits, logits, atol=1e-5)
        shares = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
        np.testing.assert_allclose(prediction.probabilities, shares, atol=1e-6)
        assert [score.index for score in prediction.top(3)] == np.argsort(-logits)[:3].tolist()
        names = ["stage1", "pool1", "stage2", "pool2", "stage3"]
        assert [name for name in prediction.clusters if "." not in name] == (names if family == "fec" else names[:3])
        assert {each.layer for each in prediction.clusters.values()} == case.maps.keys()
        for name, each in prediction.clusters.items():
            np.testing.assert_array_equal(each.ids, case.maps[each.layer][i], name)
        segments = prediction.segments()
        assert (segments.dtype, segments.shape) == (np.int32, case.promise.size)
        np.testing.assert_array_equal(segments, case.segments[i])
        tokens = 4 * 6  # of the last map, in both
        assert tokens / 2 < len(np.unique(segments)) <= tokens
        if family == "fec":
            assert prediction.evidence is not None and prediction.evidence_classes is not None
            assert prediction.evidence.shape == (3, 4, 6)
            total = prediction.evidence.sum((1, 2)) + case.bias[prediction.evidence_classes]
            np.testing.assert_allclose(total, logits[prediction.evidence_classes], atol=1e-5)
        else:
            assert prediction.evidence is None and prediction.evidence_classes is None
        assert prediction.attention is None and prediction.features == ()


def test_a_cnn_shows_where_it_looks() -> None:
    """The outputs are PyTorch's, which tests/export holds an exported file's against."""
    torch = pytest.importorskip("torch")
    from cluinfer.export.models.icasc import Icasc, IcascConfig
    from cluinfer.export.nn import attention as training

    torch.manual_seed(3)
    model = Icasc(IcascConfig("basic", (1, 1, 1, 1), (8, 8, 12, 16), num_classes=5, size=(64, 96))).eval()
    with torch.no_grad():
        logits, classes, last, inner = model.attention(torch.rand(2, 3, 64, 96))
    outputs = {"logits": logits, "attention/last": last, "attention/inner": inner, "attention_classes": classes}
    promise = replace(ICASC, size=(64, 96), classes=5)
    found = predictions({name: each.numpy() for name, each in outputs.items()}, promise, [None, None], TIMINGS)
    for i, prediction in enumerate(found):
        attention = prediction.attention
        assert attention is not None
        np.testing.assert_array_equal(attention.classes, np.argsort(-logits[i].numpy())[:2])
        np.testing.assert_array_equal(attention.last, last[i])
        np.testing.assert_array_equal(attention.inner, inner[i])
        for maps, got in ((last, attention.separability), (inner, attention.inner_separability)):
            wanted = float(training.separability(maps[:, 0], maps[:, 1])[i])
            assert 0.01 < wanted < 1
            assert got == pytest.approx(wanted, abs=1e-5)
        assert dict(prediction.clusters) == {}
        assert refused(NotShownError, prediction.segments) == (
            "segments are composed of cluster pools, which icasc models do not have"
        )


# --- classes


def test_probabilities_of_any_logits() -> None:
    far = np.array([[1e30, -1e30, 0.0, 1e30]], np.float32)
    found = one(logits=far)
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.tolist() == [0.5, 0.0, 0.0, 0.5]
    assert [score.name for score in found.top(3)] == ["cat", "fox", "eel"]  # a tie goes to the lower number
    none = one(logits=np.full((1, 4), np.nan, np.float32))
    assert none.probabilities is not None and np.isnan(none.probabilities).all()
    assert [score.index for score in none.top()] == [0, 1, 2, 3]


def test_the_likeliest_classes() -> None:
    logits = np.log(np.array([[1, 4, 3, 2]], np.float32))
    found = one(logits=logits)
    best, second = found.top(2)
    assert (best.index, best.name, best.logit) == (1, "dog", float(logits[0, 1]))
    assert best.probability == pytest.approx(0.4)
    assert second.probability == pytest.approx(0.3)
    assert len(found.top(99)) == 4
    unnamed = one(replace(PROMISE, names=()), logits=logits)
    assert [score.name for score in unnamed.top(2)] == ["1", "2"]
    for k in (0, -1):
        assert refused(ShapeError, lambda k=k: found.top(k)) == (
            f"the top {k} classes were asked for; wanted 1 or more"
        )


def test_many_classes_that_are_alike_keep_their_order() -> None:
    many = replace(PROMISE, classes=1000, names=())
    found = one(many, logits=np.tile(np.array([1, 2], np.float32), (1, 500)))
    assert [score.index for score in found.top(1000)] == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_a_backbone_has_features_and_no_classes() -> None:
    outputs = made_up(BACKBONE, 1)
    found = one(BACKBONE)
    assert found.logits is None and found.probabilities is None
    assert refused(NotShownError, found.top) == "this model is a backbone: it gives features and maps, no classes"
    assert len(found.features) == 2
    for i, each in enumerate(found.features):
        np.testing.assert_array_equal(each, outputs[f"features/{i + 1}"][0])
    assert list(found.clusters) == ["stage1"]
    assert repr(found) == "Prediction(features/1, features/2, clusters/network.0.2.token_mixer)"


def test_what_is_printed() -> None:
    found = one(logits=np.log(np.array([[1, 4, 3, 2]], np.float32)))
    assert repr(found) == (
        "Prediction('dog' 40.0%, logits, clusters/network.0.2.token_mixer, clusters/network.1, evidence, "
        "evidence_classes)"
    )


# --- one prediction for each image, and nothing shared


def test_each_image_has_its_own() -> None:
    outputs = made_up(PROMISE, 3)
    pictures = [None, CROP, None]
    found = predictions(outputs, PROMISE, pictures, TIMINGS)
    assert [each.picture for each in found] == pictures
    for i, each in enumerate(found):
        np.testing.assert_array_equal(each.logits, outputs["logits"][i])
        np.testing.assert_array_equal(each.evidence, outputs["evidence"][i])
        np.testing.assert_array_equal(each.clusters["pool1"].ids, outputs["clusters/network.1"][i])
        assert each.timings is TIMINGS
    assert TIMINGS.total == pytest.approx(0.0213)
    assert predictions({k: v[:0] for k, v in outputs.items()}, PROMISE, [], TIMINGS) == []


def test_nothing_can_be_written_to() -> None:
    found, attention = one(), one(ICASC).attention
    assert attention is not None
    arrays = [found.logits, found.probabilities, found.segments(), found.evidence, found.evidence_classes]
    arrays += [each.ids for each in found.clusters.values()]
    arrays += [attention.last, attention.inner, attention.classes, *one(BACKBONE).features]
    for array in arrays:
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    copied = found.logits.copy()  # type: ignore[union-attr]
    copied[...] = 0
    assert found.top(1)[0].logit != 0


def test_nothing_is_computed_twice() -> None:
    found = one()
    assert found.segments() is found.segments()
    assert found.probabilities is found.probabilities
    assert found.clusters is found.clusters


def test_one_image_of_a_batch_travels_alone() -> None:
    outputs = made_up(PROMISE, 50)
    found = predictions(outputs, PROMISE, [CROP] * 50, TIMINGS)
    sent = pickle.dumps(found[7])
    assert len(sent) < 10_000 < sum(array.nbytes for array in outputs.values())
    got = pickle.loads(sent)
    assert got.top() == found[7].top()
    np.testing.assert_array_equal(got.segments(), found[7].segments())
    np.testing.assert_array_equal(np.asarray(got.picture), np.asarray(CROP))


# --- outputs that are not as promised


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("logits", np.zeros((1, 5), np.float32), "the graph promises logits of shape [?, 4], but it has [1, 5]"),
        (
            "clusters/network.1",
            np.zeros((1, 1, 4, 5), np.int32),
            "the graph promises clusters/network.1 of shape [?, 1, 4, 6], but it has [1, 1, 4, 5]",
        ),
        (
            "evidence",
            np.zeros((1, 2, 6), np.float32),
            "the graph promises evidence of shape [?, 2, ?, ?], but it has [1, 2, 6]",
        ),
        ("more", np.zeros(1), "the graph has outputs it does not promise: more; export it again"),
        ("logits", np.zeros((2, 4), np.float32), "logits: wanted a batch of 1, the engine gave [2, 4]"),
        ("logits", np.zeros((1, 4), np.int32), "logits: wanted float32, the engine gave int32"),
        (
            "clusters/network.1",
            np.zeros((1, 1, 4, 6), np.float32),
            "clusters/network.1: wanted int32, the engine gave float32",
        ),
        ("evidence_classes", np.zeros((1, 2), bool), "evidence_classes: wanted int32, the engine gave bool"),
    ],
)
def test_outputs_that_are_not_as_promised(name: str, array: np.ndarray, message: str) -> None:
    assert refused(GraphError, lambda: one(**{name: array})) == message


def test_a_missing_output() -> None:
    outputs = made_up(PROMISE, 1)
    del outputs["evidence"]
    message = "the graph promises outputs it does not have: evidence; export it again"
    assert refused(GraphError, lambda: predictions(outputs, PROMISE, [None], TIMINGS)) == message


def test_features_without_a_batch() -> None:
    assert refused(GraphError, lambda: one(BACKBONE, **{"features/2": np.zeros((), np.float32)})) == (
        "features/2: wanted a batch of 1, the engine gave []"
    )


def test_numbers_of_another_width_are_taken() -> None:
    """An engine may keep half precision to the end, or count in 64 bits."""
    outputs = made_up(PROMISE, 1)
    half = outputs["logits"].astype(np.float16)
    found = one(logits=half, evidence_classes=outputs["evidence_classes"].astype(np.int64))
    assert found.logits is not None and found.evidence_classes is not None
    assert (found.logits.dtype, found.evidence_classes.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(found.logits, half[0])


def test_ids_that_lie_are_found_before_they_are_followed() -> None:
    ids = np.full((1, 1, 4, 6), 6, np.int32)
    assert refused(GraphError, one(**{"clusters/network.1": ids}).segments) == (
        "clusters/network.1 holds ids from 6 to 6, promised are 0 to 5; the graph is not what its description says, "
        "export it again"
    )


def test_evidence_of_another_size_ends_segments() -> None:
    other = one(evidence=np.zeros((1, 2, 1, 3), np.float32))
    assert refused(NotShownError, other.segments) == (
        "segments end at the map of 2x3 that pool1 makes, the model goes on to 1x3; export the model with --maps stages"
    )


# --- separability


def test_separability() -> None:
    """By hand: maxima 4 and 2 scale to [1, .5, 0] and [0, .5, 1]; 1 - 2 * 0.5 / 3."""
    a, b = np.array([[4, 2, 0]], np.float32), np.array([[0, 1, 2]], np.float32)
    assert separability(a, b) == pytest.approx(2 / 3)
    assert separability(a, a * 7) == pytest.approx(0, abs=1e-12)
    assert separability(np.eye(2, dtype=np.float32), 1 - np.eye(2, dtype=np.float32)) == 1
    empty = np.zeros((1, 3), np.float32)
    assert separability(a, empty) == 1
    assert separability(empty, empty) == 0


def test_separability_of_a_single_class() -> None:
    maps = np.ones((1, 2, 2), np.float32)
    alone = Attention(maps, maps, np.array([3], np.int32))
    assert alone.separability is None and alone.inner_separability is None


# --- painted


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def test_overlays() -> None:
    found = one()
    assert found.evidence is not None
    assert same(found.overlay("stage1", head=1, opacity=0.2), found.clusters["stage1"].overlay(head=1, opacity=0.2))
    assert same(found.overlay("network.1"), found.clusters["pool1"].overlay())
    assert same(found.overlay("segments"), draw.overlay_clusters(found.segments(), CROP))
    heat = [draw.overlay_heat(values, CROP, signed=True) for values in found.evidence]
    assert same(found.overlay("evidence"), draw.grid(heat, ["dog", "fox"]))
    looks = one(ICASC)
    assert looks.attention is not None
    for what, maps in (("attention", looks.attention.last), ("attention/inner", looks.attention.inner)):
        heat = [draw.overlay_heat(values, CROP, signed=False) for values in maps]
        assert same(looks.overlay(what), draw.grid(heat, ["1", "3"]))


def test_what_is_painted_by_default() -> None:
    assert same(one().overlay(), one().overlay("pool1"))
    assert same(one(ICASC).overlay(), one(ICASC).overlay("attention"))
    evidence = replace(PROMISE, maps=())
    assert same(one(evidence).overlay(), one(evidence).overlay("evidence"))
    bare = one(replace(PROMISE, maps=(), evidence=0))
    assert refused(NotShownError, bare.overlay) == (
        "this model shows neither maps nor evidence nor attention; export it with --maps stages"
    )


def test_what_cannot_be_painted() -> None:
    assert refused(NotShownError, lambda: one().overlay("attention")) == (
        "this model shows no attention; ICASC models have it"
    )
    assert refused(NotShownError, lambda: one(ICASC).overlay("evidence")) == (
        "this model shows no evidence; export the model with --evidence K"
    )
    assert refused(NotShownError, lambda: one().overlay("stage9")).startswith("no cluster map 'stage9'; there are ")
    for what in ("stage1", "segments", "evidence"):
        assert refused(PictureError, lambda what=what: one(picture=None).overlay(what)) == (
            "there is no picture to paint over, the model was given a tensor; give overlay one"
        )


def test_classes_without_a_name_are_painted_too() -> None:
    """A lying graph may show class -1 or one beyond the names."""
    found = one(evidence_classes=np.array([[-1, 4]], np.int32))
    assert found.evidence is not None
    heat = [draw.overlay_heat(values, CROP, signed=True) for values in found.evidence]
    assert same(found.overlay("evidence"), draw.grid(heat, ["-1", "4"]))


# --- for JSON


def test_to_dict_is_json() -> None:
    found = one(logits=np.array([[0, 2, 1, np.nan]], np.float32))
    held = json.loads(json.dumps(found.to_dict(k=1), allow_nan=False))
    assert held == {
        "top": [{"index": 1, "name": "dog", "probability": None, "logit": 2.0}],
        "clusters": {
            "stage1": {
                "layer": "network.0.2.token_mixer",
                "stage": 1,
                "pool": False,
                "fold": [1, 1],
                "grid": [2, 2],
                "clusters": 4,
                "shape": [2, 4, 6],
            },
            "pool1": {
                "layer": "network.1",
                "stage": 1,
                "pool": True,
                "fold": [2, 1],
                "grid": [1, 3],
                "clusters": 6,
                "shape": [1, 4, 6],
            },
        },
        "evidence": {"classes": [1, 3], "shape": [2, 2, 3]},
        "timings": {"preprocess": 0.001, "inference": 0.02, "postprocess": 0.0003},
    }


def test_to_dict_with_everything() -> None:
    found, looks, backbone = one(), one(ICASC), one(BACKBONE)
    assert looks.attention is not None and found.evidence is not None
    held = json.loads(json.dumps(found.to_dict(maps=True)))
    np.testing.assert_array_equal(held["clusters"]["pool1"]["values"], found.clusters["pool1"].ids)
    np.testing.assert_array_equal(np.array(held["evidence"]["values"], np.float32), found.evidence)
    held = json.loads(json.dumps(looks.to_dict(maps=True)))
    assert held["attention"]["classes"] == [1, 3]
    assert held["attention"]["separability"] == looks.attention.separability
    np.testing.assert_array_equal(np.array(held["attention"]["last"]["values"], np.float32), looks.attention.last)
    held = backbone.to_dict()
    assert "top" not in held
    assert held["features"] == [{"shape": [8, 4, 6]}, {"shape": [16, 2, 3]}]


def test_segments_of_an_image_as_wide_as_a_graph_may_take() -> None:
    pool = replace(POOL, size=(4, 5000), fold=(1, 1), grid=(2, 2500))
    promise = replace(PROMISE, size=(16, 1 << 16), maps=(pool,), evidence=0)
    made = {"logits": np.zeros((1, 4), np.float32), pool.output: np.zeros((1, 1, *pool.size), np.int32)}
    assert predictions(made, promise, [None], TIMINGS)[0].segments().shape == promise.size
