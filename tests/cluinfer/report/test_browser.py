"""The report in a real browser: what is chosen and pointed at, and its pixels held against the maps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from chromium import Page
from report_cases import ICASC, PROMISE, STAGE1, picture, prediction, requantised
from report_page import Array, choose, lit, pixels, point_at, show, text

from cluinfer.draw import heat_colors, palette
from cluinfer.graph import ClusterOutput
from cluinfer.prediction import Prediction

TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


def segments(made: Prediction) -> Array:
    """The tokens of points of the first pool's map, which are all that there is to know of pixels."""
    return made.segments()[2::4, 2::4]


def _signed(value: float) -> str:
    """As JavaScript's toPrecision(3) writes it, with a proper minus."""
    magnitude = abs(value)
    digits = 2 - int(np.floor(np.log10(magnitude)))
    return f"{MINUS if value < 0 else '+'}{magnitude:.{max(0, digits)}f}"


def test_pointing_lights_up_the_cluster_and_says_its_size(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    choose(page, "views", 1)
    for head in (0, 1):
        choose(page, "heads", head)
        ids = made.clusters["stage1"].ids[head]
        for row, column in ((0, 0), (11, 15), (5, 9)):
            point_at(page, ids, row, column)
            np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[row, column])
            size = int((ids == ids[row, column]).sum())
            told = text(page, "#detail")
            assert told.startswith(f"Cluster {ids[row, column]} ")
            assert f"Points {size} Share {size / ids.size:.1%}".replace("%", " %") in told
    page.move("h1", 0.5, 0.5)
    assert text(page, "#detail").startswith("Point at a cluster, click to pin it Points")


def test_a_cluster_says_how_similar_its_points_are(page: Page, tmp_path: Path) -> None:
    promise = replace(PROMISE, similarities=True)
    made = prediction(promise)
    show(page, tmp_path, [("a.png", made)], promise)
    assert "similarity" not in text(page, "#detail")  # of a token, nothing is known
    choose(page, "views", 2)
    for head in (0, 2):
        choose(page, "heads", head)
        stage = made.clusters["stage2"]
        assert stage.similarity is not None
        ids = stage.ids[head]
        point_at(page, ids, 3, 5)
        mean = stage.similarity[head][ids == ids[3, 5]].mean()
        assert f"Mean similarity {mean:.3f}" in text(page, "#detail")


def test_every_map_can_be_chosen(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    maps = {
        (0, 0): segments(made)[None],
        (1, 0): made.clusters["stage1"].ids,
        (1, 1): made.clusters["pool1"].ids,
        (2, 0): made.clusters["stage2"].ids,
    }
    for (view, layer), heads in maps.items():
        choose(page, "views", view)
        if view == 1:
            choose(page, "layers", layer)
        for head, ids in enumerate(heads):
            if len(heads) > 1:
                choose(page, "heads", head)
            rows, columns = ids.shape
            used = len(np.unique(ids))
            assert f"{rows} {TIMES} {columns} points in {used} cluster" in text(page, "#explained")
            point_at(page, ids, rows // 3, columns // 2)
            np.testing.assert_array_equal(lit(page, rows, columns), ids == ids[rows // 3, columns // 2])


def test_opacity_goes_from_the_picture_to_the_colours_of_the_clusters(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    choose(page, "views", 1)
    page.move("h1", 0.5, 0.5)
    page.run("document.querySelector('#opacity input').focus()")
    page.press("End")
    expected = palette(4)[made.clusters["stage1"].ids[0]]
    np.testing.assert_allclose(pixels(page, 12, 16), expected, atol=2)
    page.press("Home")
    np.testing.assert_array_equal(pixels(page, 48, 64), np.asarray(picture()))


def test_a_pinned_cluster_stays_until_it_is_let_go(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    choose(page, "views", 1)
    ids = made.clusters["stage1"].ids[0]
    page.move("h1", 0.5, 0.5)
    untouched = pixels(page, *ids.shape)
    point_at(page, ids, 2, 3, click=True)
    point_at(page, ids, *np.argwhere(ids != ids[2, 3])[0])
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[2, 3])
    assert "pinned" in text(page, "#detail")
    page.press("Escape")
    assert "pinned" not in text(page, "#detail")
    page.move("h1", 0.5, 0.5)
    np.testing.assert_array_equal(pixels(page, *ids.shape), untouched)

    button = f"#ranking button[value='{ids[2, 3]}']"
    page.click(button)
    assert page.run("return document.querySelector(args[0]).ariaPressed", button) == "true"
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[2, 3])
    page.click(button)
    page.move("h1", 0.5, 0.5)
    page.run("document.activeElement.blur()")
    page.settle()
    np.testing.assert_array_equal(pixels(page, *ids.shape), untouched)


def test_the_keyboard_does_all_of_it(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    page.run("document.querySelector('#views input').focus()")
    page.press("ArrowRight")
    assert "network.0.1.token_mixer, head 0" in text(page, "#explained")
    page.press("Tab", "ArrowRight")
    assert f"{PROMISE.maps[1].layer}: " in text(page, "#explained")
    page.press("ArrowLeft", "Tab")
    ids = made.clusters["stage1"].ids[0]
    row, column = 6, 8
    page.press("ArrowDown")
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[row, column])
    for key, (down, right) in {"ArrowRight": (0, 1), "ArrowUp": (-1, 0), "ArrowLeft": (0, -1)}.items():
        page.press(key)
        start = ids[row, column]
        while ids[row, column] == start:
            row, column = row + down, column + right
        np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[row, column])
    page.press("Enter", "Tab")
    assert "pinned" in text(page, "#detail")
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[row, column])
    page.press("Escape")
    assert "pinned" not in text(page, "#detail")


def test_evidence_is_that_of_the_chosen_class(page: Page, tmp_path: Path) -> None:
    made = prediction()
    assert made.evidence is not None
    show(page, tmp_path, [("a.png", made)], PROMISE)
    ids = made.clusters["stage2"].ids[0]  # of the evidence's size: the sum is exact
    for number, shares in enumerate(made.evidence):
        page.click(f"#top li:nth-child({number + 1}) label")
        choose(page, "views", 2)
        point_at(page, ids, 1, 2)
        expected = float(shares[ids == ids[1, 2]].sum())
        name = made.top(2)[number].name
        assert f"Evidence for {name} {_signed(expected)}" in text(page, "#detail")

        choose(page, "views", 3)
        assert f"sum {_signed(float(shares.sum()))}" in text(page, "#panels figcaption")
        point_at(page, segments(made), 5, 7)
        token = segments(made)[5, 7]
        told = text(page, "#detail")
        assert told.startswith(f"Token {token} row {token // 8}, column {token % 8} Points ")
        assert f"Evidence for {name} {_signed(shares.ravel()[token])}" in told
        np.testing.assert_array_equal(lit(page, 12, 16), segments(made) == token)
    strongest = [int(button) for button in re.findall(r"^\d+", text(page, "#ranking"))]
    shown = np.unique(made.segments())
    assert strongest == [shown[np.abs(made.evidence[1].ravel()[shown]).argmax()]]


def test_evidence_spread_over_pixels_is_marked_as_about(page: Page, tmp_path: Path) -> None:
    made = prediction()
    assert made.evidence is not None
    show(page, tmp_path, [("a.png", made)], PROMISE)
    choose(page, "views", 1)
    ids, token = made.clusters["stage1"].ids[0], segments(made)
    point_at(page, ids, 4, 4)
    points = np.bincount(token.ravel(), minlength=48)
    expected = float((made.evidence[0].ravel()[token] / points[token])[ids == ids[4, 4]].sum())
    assert f"≈ {_signed(expected)}" in text(page, "#detail")


def test_a_comparison_marks_what_changed(page: Page, tmp_path: Path) -> None:
    one, other = prediction(), requantised()
    show(page, tmp_path, [("a.png", one)], PROMISE, [("a.png", other)], engines=("fp32 <b>", "int8"))
    choose(page, "views", 1)
    choose(page, "heads", 1)
    page.move("h1", 0.5, 0.5)
    before, after = one.clusters["stage1"].ids[1], other.clusters["stage1"].ids[1]
    changed = before != after
    marked = [pixels(page, 48, 64, panel) for panel in (1, 2)]
    page.click("#marks")
    page.move("h1", 0.5, 0.5)
    plain = [pixels(page, 48, 64, panel) for panel in (1, 2)]
    for with_marks, without in zip(marked, plain, strict=True):
        moved = (with_marks != without).any(-1).reshape(12, 4, 16, 4)
        np.testing.assert_array_equal(moved.any((1, 3)), changed)
    assert f"{changed.sum()} of 192 points changed ({changed.mean():.2%})".replace("%", " %") in text(
        page, "#explained"
    )
    assert [text(page, f"#panels figure:nth-of-type({i}) figcaption") for i in (1, 2)] == ["fp32 <b>", "int8"]

    point_at(page, before, 3, 3)
    for panel, ids in ((1, before), (2, after)):
        np.testing.assert_array_equal(lit(page, 12, 16, panel), ids == before[3, 3])
    mine, theirs = before == before[3, 3], after == before[3, 3]
    told = text(page, "#detail")
    assert f"Points {mine.sum()} {theirs.sum()} " in told
    assert told.endswith(f"Only here {(mine & ~theirs).sum()} {(theirs & ~mine).sum()}")
    assert "The top class is the same on 0 of 1 picture." in text(page, "#verdict")


def test_attention_of_both_classes_side_by_side(page: Page, tmp_path: Path) -> None:
    made = prediction(ICASC)
    assert made.attention is not None
    show(page, tmp_path, [("a.png", made)], ICASC)
    first, second = made.top(2)
    captions = [text(page, f"#panels figure:nth-of-type({i}) figcaption") for i in (1, 2)]
    assert captions == [f"{first.name} predicted", f"{second.name} the most confusing"]
    page.run("document.querySelector('#opacity input').focus()")
    page.press("End")
    for layer, maps in enumerate((made.attention.last, made.attention.inner)):
        choose(page, "layers", layer)
        value = (made.attention.separability, made.attention.inner_separability)[layer]
        assert text(page, "#separabilities") == f"{value:.2f}"
        page.move("h1", 0.5, 0.5)
        for panel, values in enumerate(maps, 1):
            apart = np.abs(pixels(page, *values.shape, panel)[..., None, :] - heat_colors(False).astype(int)).sum(-1)
            np.testing.assert_allclose(apart.argmin(-1) / 255, values / values.max(), atol=0.1)
        point_at(page, maps[0], 1, 2)
        numbers = " ".join(f"{float(f'{v[1, 2]:.3g}'):g}" for v in maps)
        assert text(page, "#detail").endswith(f"Attention {numbers}")


def test_pictures_can_be_gone_through(page: Page, tmp_path: Path) -> None:
    made = [prediction(seed=i) for i in range(3)]
    show(page, tmp_path, [(f"{i}.png", each) for i, each in enumerate(made)], PROMISE)
    choose(page, "views", 1)
    for i in (2, 1):
        choose(page, "pictures", i)
        page.wait(f"document.querySelector('#name').textContent.startsWith('{i}.png')")
        page.settle()
        ids = made[i].clusters["stage1"].ids[0]
        point_at(page, ids, 7, 7)
        np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[7, 7])
        assert text(page, "#top li:first-child .label") == " ".join(made[i].top(1)[0].name.split())


def test_ids_beyond_the_palette_and_many_clusters(page: Page, tmp_path: Path) -> None:
    ids = np.arange(192, dtype=np.int32).reshape(1, 12, 16).repeat(2, 0)[None] * 10
    promise_ids = {STAGE1.output: ids}
    show(page, tmp_path, [("a.png", prediction(changed=promise_ids))], PROMISE)
    choose(page, "views", 1)
    point_at(page, ids[0, 0], 11, 15)
    np.testing.assert_array_equal(lit(page, 12, 16), ids[0, 0] == 1910)
    assert text(page, "#detail").startswith("Cluster 1910 Points 1 ")
    assert len(text(page, "#ranking").split("%")) == 8 + 1
    page.click("#more")
    assert len(text(page, "#ranking").split("%")) == 192 + 1


def test_a_thousand_clusters_are_listed_when_asked_for(page: Page, tmp_path: Path) -> None:
    output = ClusterOutput("many", "", False, 1, 1, (1, 1), (32, 32), (32, 32))
    promise = replace(PROMISE, maps=(output,), evidence=0)
    ids = np.random.default_rng(0).permutation(1024).astype(np.int32).reshape(1, 1, 32, 32)
    show(page, tmp_path, [("a.png", prediction(promise, changed={output.output: ids}))], promise)
    assert f"32 {TIMES} 32 points in 1,024 clusters" in text(page, "#explained")
    point_at(page, ids[0, 0], 20, 30)
    assert text(page, "#detail").startswith(f"Cluster {ids[0, 0, 20, 30]} ")
    assert lit(page, 32, 32).sum() == 1
    page.click("#more")
    assert text(page, "#more") == "Show fewer"
    assert page.run("return document.querySelectorAll('#ranking button').length") == 1024
