"""The file that a report is: complete, closed to the network, and safe whatever the names in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from report_cases import (
    BACKBONE,
    BARE,
    ICASC,
    NAMES,
    POOL1,
    PROMISE,
    SIZE,
    STAGE1,
    STAGE2,
    picture,
    prediction,
    requantised,
)

from cluinfer.cluster_map import stretch
from cluinfer.draw import palette
from cluinfer.errors import CluinferError, ShapeError
from cluinfer.graph import ClusterOutput, Promise
from cluinfer.prediction import Timings, predictions
from cluinfer.report import write_report


class Parsed(HTMLParser):
    """Every element with its attributes, and the text inside scripts, styles and the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.texts[self._within][-1] += data


def report(path: Path, *arguments: Any, **options: Any) -> tuple[Parsed, dict[str, Any]]:
    """A report written there, taken apart: its elements, and the data in it."""
    write_report(path / "report.html", *arguments, **options)
    page = Parsed((path / "report.html").read_text(encoding="utf-8"))
    data = page.texts["script"][0]
    return page, json.loads(data)


def unpacked(run: dict[str, Any]) -> dict[str, NDArray[Any]]:
    content, arrays, at = zlib.decompress(base64.b64decode(run["packed"])), {}, 0
    for each in run["arrays"]:
        kind = np.dtype(f"<{each['type']}")
        size = int(np.prod(each["shape"])) * kind.itemsize
        arrays[each["name"]] = np.frombuffer(content[at : at + size], kind).reshape(each["shape"])
        at += size
    assert at == len(content)
    return arrays


def test_every_array_is_in_it_as_it_was(tmp_path: Path) -> None:
    made = prediction()
    _, data = report(tmp_path, [("a.png", made)], PROMISE)
    held = unpacked(data["pictures"][0]["runs"][0])
    expected = {each.output: made.clusters[each.layer].ids for each in PROMISE.maps}
    expected |= {"segments": made.segments()[None, 2::4, 2::4], "evidence": made.evidence}
    assert held.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(held[name], array)
    np.testing.assert_array_equal(stretch(held["segments"], SIZE)[0], made.segments())  # so nothing is lost
    assert {name: array.dtype.str for name, array in held.items()} == {
        STAGE1.output: "|u1",
        POOL1.output: "|u1",
        STAGE2.output: "<u2",
        "segments": "|u1",
        "evidence": "<f4",
    }


def test_the_picture_is_what_the_model_saw(tmp_path: Path) -> None:
    _, data = report(tmp_path, [("a.png", prediction())], PROMISE)
    kind, _, content = data["pictures"][0]["image"].partition(",")
    assert kind == "data:image/png;base64"
    (tmp_path / "picture.png").write_bytes(base64.b64decode(content))
    assert Image.open(tmp_path / "picture.png").tobytes() == picture().tobytes()


def test_views_follow_the_promise(tmp_path: Path) -> None:
    _, data = report(tmp_path, [("a.png", prediction())], PROMISE)
    assert [view["label"] for view in data["views"]] == ["Segments", "Stage 1", "Stage 2", "Evidence"]
    assert data["views"][1]["layers"] == [
        {"array": STAGE1.output, "label": "Last layer", "about": STAGE1.layer},
        {"array": POOL1.output, "label": "Pool into stage 2", "about": POOL1.layer},
    ]


def test_colours_are_those_of_the_pictures(tmp_path: Path) -> None:
    made = prediction()
    _, data = report(tmp_path, [("a.png", made)], PROMISE)
    count = 1 + int(made.clusters["stage2"].ids.max())
    assert base64.b64decode(data["palette"]) == palette(count).tobytes()


def test_classes_are_the_likeliest(tmp_path: Path) -> None:
    made = prediction()
    _, data = report(tmp_path, [("a.png", made)], PROMISE)
    held = data["pictures"][0]["classes"]
    assert [(each["index"], each["name"]) for each in held] == [(score.index, score.name) for score in made.top(5)]
    np.testing.assert_allclose([each["probabilities"] for each in held], [[s.probability] for s in made.top(5)])
    (run,) = data["pictures"][0]["runs"]
    assert [each["name"] for each in run["evidence"]] == [score.name for score in made.top(2)]


def test_nothing_in_it_points_outside(tmp_path: Path) -> None:
    page, _ = report(tmp_path, [("a.png", prediction())], PROMISE)
    addresses = [v for _, held in page.elements for k, v in held.items() if k in ("src", "href", "action", "srcset")]
    assert addresses == ["data:,"]
    assert re.findall(r"(?:https?:)?//[a-z]", page.texts["style"][0]) == []
    assert re.findall(r"https?://|\bfetch\(|XMLHttpRequest|import\(|\beval\(|innerHTML", page.texts["script"][1]) == []


def test_the_policy_allows_its_own_scripts_and_no_more(tmp_path: Path) -> None:
    page, _ = report(tmp_path, [("a.png", prediction())], PROMISE)
    (policy,) = (held["content"] for tag, held in page.elements if held.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src": allowed(page.texts["style"][0]),
        "script-src": allowed(page.texts["script"][1]),
    }
    assert [held for _, held in page.elements if "style" in held or any(name.startswith("on") for name in held)] == []


def test_names_with_html_in_them_stay_text(tmp_path: Path) -> None:
    name = "</script><!--<script>{script}&amp;\u2028.png"
    page, data = report(tmp_path, [(name, prediction())], PROMISE)
    assert [held.get("type") for tag, held in page.elements if tag == "script"] == ["application/json", "module"]
    assert data["pictures"][0]["name"] == name
    assert {each["name"] for each in data["pictures"][0]["classes"]} == set(NAMES)
    assert page.texts["title"] == page.texts["h1"] == ["clue_<i>test</i>"]
    assert not {"i", "b", "img"} & {tag for tag, _ in page.elements}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file name may hold bytes that are no UTF-8; Python keeps them as lone surrogates."""
    _, data = report(tmp_path, [("\udcff.png", prediction())], PROMISE)
    assert data["pictures"][0]["name"] == "\udcff.png"


def test_no_pictures(tmp_path: Path) -> None:
    for against in (None, []):
        _, data = report(tmp_path, [], PROMISE, against)
        assert (data["pictures"], [view["label"] for view in data["views"]]) == ([], ["Picture"])
        assert data["about"] == "0 pictures, seen at 48x64 pixels; 5 classes"


def test_without_maps(tmp_path: Path) -> None:
    _, data = report(tmp_path, [("a.png", prediction(BARE))], BARE)
    (view,) = data["views"]
    assert (view["kind"], view["layers"]) == ("picture", [])
    assert "--maps stages" in view["note"]


def test_a_backbone_has_no_classes(tmp_path: Path) -> None:
    _, data = report(tmp_path, [("a.png", prediction(BACKBONE))], BACKBONE)
    assert data["pictures"][0]["classes"] == []
    assert data["about"].endswith("; a backbone")
    assert [view["label"] for view in data["views"]] == ["Segments", "Stage 1", "Stage 2"]


def test_a_tensor_has_no_picture(tmp_path: Path) -> None:
    _, data = report(tmp_path, [("tensor 0", prediction(shown=False))], PROMISE)
    (tmp_path / "grey.png").write_bytes(base64.b64decode(data["pictures"][0]["image"].partition(",")[2]))
    grey = Image.open(tmp_path / "grey.png")
    assert (grey.size, grey.getcolors()) == ((64, 48), [(64 * 48, (128, 128, 128))])
    assert data["pictures"][0]["note"] == "The engine was given a tensor, so there is no picture."


def test_attention(tmp_path: Path) -> None:
    made = prediction(ICASC)
    assert made.attention is not None
    _, data = report(tmp_path, [("a.png", made)], ICASC)
    (run,) = data["pictures"][0]["runs"]
    assert [layer["label"] for layer in data["views"][0]["layers"]] == ["Last layer", "Inner layer"]
    assert run["attention"]["separability"] == {
        "attention/last": made.attention.separability,
        "attention/inner": made.attention.inner_separability,
    }
    first, second = made.top(2)
    assert run["attention"]["classes"] == [
        {"index": first.index, "name": first.name, "remark": "predicted"},
        {"index": second.index, "name": second.name, "remark": "the most confusing"},
    ]


def test_logits_that_are_no_numbers(tmp_path: Path) -> None:
    logits = np.full((1, len(NAMES)), np.nan, np.float32)
    _, data = report(tmp_path, [("a.png", prediction(changed={"logits": logits}))], PROMISE)
    assert [each["probabilities"] for each in data["pictures"][0]["classes"]] == [[None]] * 5


def test_a_comparison_counts_what_changed(tmp_path: Path) -> None:
    ones, others = [prediction(seed=i) for i in (0, 1)], [requantised(0), prediction(seed=1)]
    names = ("a.png", "b.png")
    pairs = list(zip(names, ones, strict=True)), list(zip(names, others, strict=True))
    _, data = report(tmp_path, pairs[0], PROMISE, pairs[1], engines=("fp32", "int8"))
    expected = (ones[0].clusters["stage1"].ids != others[0].clusters["stage1"].ids).sum((1, 2)).tolist()
    first, second = data["pictures"]
    assert min(expected) > 0
    assert first["changes"] == {"segments": [0], STAGE1.output: expected, POOL1.output: [0], STAGE2.output: [0, 0, 0]}
    assert second["changes"] == {"segments": [0], STAGE1.output: [0, 0], POOL1.output: [0], STAGE2.output: [0, 0, 0]}
    assert (first["moved"], second["moved"]) == (True, False)
    points = 2 * sum(each.heads * each.size[0] * each.size[1] for each in PROMISE.maps)
    assert data["comparison"]["verdict"] == (
        f"fp32 beside int8. The top class is the same on 1 of 2 pictures. {sum(expected)} of {points:,} points changed "
        f"their cluster ({sum(expected) / points:.2%})."
    )
    assert data["comparison"]["layers"][0] == {
        "name": f"{STAGE1.layer} (stage1)",
        "points": 2 * 2 * 12 * 16,
        "changed": sum(expected),
    }


@pytest.mark.parametrize(
    ("engines", "shown"),
    [
        (("a/fp32.clu", "b/int8.clu"), ["fp32", "int8"]),
        (("a/m.clu", "b/m.clu"), ["a/m.clu", "b/m.clu"]),
        (("v1.2", "x"), ["v1.2", "x"]),
    ],
)
def test_artifacts_are_named_as_shortly_as_possible(tmp_path: Path, engines: tuple[str, str], shown: list[str]) -> None:
    _, data = report(tmp_path, [("a.png", prediction())], PROMISE, [("a.png", prediction())], engines=engines)
    assert data["engines"] == shown


def test_a_comparison_needs_the_same_pictures(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="a comparison needs predictions of the same pictures, got 1 and 0 of them"):
        report(tmp_path, [("a.png", prediction())], PROMISE, [])
    assert list(tmp_path.iterdir()) == []


def test_ten_pictures_stay_under_3_mb(tmp_path: Path) -> None:
    """Of what does not compress: noise for pictures and for maps as large as published models have, every layer."""
    sizes = [(stage, 56 >> stage) for stage in range(4) for _ in range((3, 4, 5, 2)[stage])]
    maps = tuple(
        ClusterOutput(f"network.{2 * stage}.{i}", "", False, stage + 1, 4 << min(stage, 1), (1, 1), (2, 2), (n, n))
        for i, (stage, n) in enumerate(sizes)
    )
    promise = Promise("noise", "coc", (224, 224), 1000, maps=maps)
    rng = np.random.default_rng(0)
    made = {each.output: rng.integers(0, 4, (10, each.heads, *each.size), np.int32) for each in maps}
    made["logits"] = rng.normal(0, 1, (10, 1000)).astype(np.float32)
    pictures = [Image.fromarray(rng.integers(0, 255, (224, 224, 3), np.uint8)) for _ in range(10)]
    named = [(f"{i}.jpg", each) for i, each in enumerate(predictions(made, promise, pictures, Timings(0, 0, 0)))]
    write_report(tmp_path / "report.html", named, promise)
    assert 1e6 < (tmp_path / "report.html").stat().st_size < 3e6


@pytest.mark.parametrize("size", [(1, 1), (2000, 10)])
def test_pictures_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    promise = Promise("any", "icasc", size, 2, ("a", "b"), attention=2)
    made = {
        "logits": np.array([[0, 1]], np.float32),
        "attention_classes": np.array([[1, 0]], np.int32),
        **dict.fromkeys(("attention/last", "attention/inner"), np.zeros((1, 2, 1, 1), np.float32)),
    }
    shown = Image.new("RGB", size[::-1], (1, 2, 3))
    _, data = report(tmp_path, [("a.png", predictions(made, promise, [shown], Timings(0, 0, 0))[0])], promise)
    (tmp_path / "p.png").write_bytes(base64.b64decode(data["pictures"][0]["image"].partition(",")[2]))
    assert Image.open(tmp_path / "p.png").size == {(1, 1): (1, 1), (2000, 10): (3, 512)}[size]


def test_it_replaces_an_older_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("older")
    report(tmp_path, [("a.png", prediction())], PROMISE)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_others_may_read_it_as_they_may_any_new_file(tmp_path: Path) -> None:
    report(tmp_path, [], PROMISE)
    (tmp_path / "any").write_text("")
    assert (tmp_path / "report.html").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/such/report.html", "cannot write a report there: No such file or directory"), (".", "it is a folder")],
)
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CluinferError, match=message):
        write_report(tmp_path / name, [("a.png", prediction())], PROMISE)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CluinferError, match="cannot write a report there"):
        write_report(tmp_path / "file" / "report.html", [("a.png", prediction())], PROMISE)


def test_size_of_the_cases() -> None:
    """The cases are worth their name: not square, folded, and with ids that need two bytes."""
    made = prediction()
    assert SIZE[0] != SIZE[1]
    assert POOL1.fold != (1, 1)
    assert made.clusters["stage2"].ids.max() > 255
