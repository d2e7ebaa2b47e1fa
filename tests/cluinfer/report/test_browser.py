"""The report in a real browser: clicked through, and its pixels held against the maps."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from chromium import Page
from numpy.typing import NDArray
from report_cases import (
    BACKBONE,
    BARE,
    ICASC,
    NAMES,
    PROMISE,
    STAGE1,
    picture,
    prediction,
    requantised,
)

from cluinfer.draw import heat_colors, palette
from cluinfer.report import write_report

pytestmark = pytest.mark.skipif(bool(chromium.MISSING), reason=chromium.MISSING)
CANVAS = "#panels figure:nth-of-type({}) canvas"
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
Array = NDArray[Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium.chromium() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A desktop window; whatever a test does in it, the page must not complain nor ask for anything."""
    browser.look(1280, 900)
    yield browser
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []


def show(page: Page, folder: Path, *arguments: Any, **options: Any) -> None:
    write_report(folder / "report.html", *arguments, **options)
    page.open(folder / "report.html")
    page.wait("document.querySelector('#panels canvas')?.width > 300")
    page.settle()


def choose(page: Page, field: str, number: int) -> None:
    page.click(f"#{field} .choice:nth-of-type({number + 1})")


def text(page: Page, selector: str) -> str:
    return " ".join(page.run("return document.querySelector(args[0]).innerText", selector).split())


def pixels(page: Page, rows: int, columns: int, panel: int = 1) -> Array:
    """The colour in the middle of each cell of a panel, [rows, columns, 3]."""
    script = """
        const [selector, rows, columns] = args, shown = document.querySelector(selector);
        const copy = Object.assign(document.createElement("canvas"), { width: shown.width, height: shown.height });
        const context = copy.getContext("2d", { willReadFrequently: true }), found = [];
        context.drawImage(shown, 0, 0);
        for (let row = 0; row < rows; row++) {
          for (let column = 0; column < columns; column++) {
            const y = Math.floor((row + 0.5) * copy.height / rows);
            const x = Math.floor((column + 0.5) * copy.width / columns);
            found.push(...context.getImageData(x, y, 1, 1).data.slice(0, 3));
          }
        }
        return found;
    """
    return np.array(page.run(script, CANVAS.format(panel), rows, columns)).reshape(rows, columns, 3)


def lit(page: Page, rows: int, columns: int, panel: int = 1) -> Array:
    """Which cells show the picture as it is; the others are dimmed."""
    return pixels(page, rows, columns, panel).min(-1) > 140


def point_at(page: Page, ids: Array, row: int, column: int, click: bool = False) -> None:
    page.move(CANVAS.format(1), (column + 0.5) / ids.shape[1], (row + 0.5) / ids.shape[0], click)


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
            assert f"Points {size} Share of the picture {size / ids.size:.1%}".replace("%", " %") in told
    page.move("h1", 0.5, 0.5)
    assert text(page, "#detail").startswith("Point at a cluster, click to pin it Points")


def test_every_map_can_be_chosen(page: Page, tmp_path: Path) -> None:
    made = prediction()
    show(page, tmp_path, [("a.png", made)], PROMISE)
    maps = {
        (0, 0): made.segments()[None],
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
        segments = made.segments()
        point_at(page, segments, 20, 30)
        token = segments[20, 30]
        told = text(page, "#detail")
        assert told.startswith(f"Token {token} row {token // 8}, column {token % 8} Pixels ")
        assert f"Evidence for {name} {_signed(shares.ravel()[token])}" in told
        np.testing.assert_array_equal(lit(page, *segments.shape), segments == token)
    strongest = [int(button) for button in re.findall(r"^\d+", text(page, "#ranking"))]
    shown = np.unique(made.segments())
    assert strongest == [shown[np.abs(made.evidence[1].ravel()[shown]).argmax()]]


def test_evidence_spread_over_pixels_is_marked_as_about(page: Page, tmp_path: Path) -> None:
    made = prediction()
    assert made.evidence is not None
    show(page, tmp_path, [("a.png", made)], PROMISE)
    choose(page, "views", 1)
    ids, segments = made.clusters["stage1"].ids[0], made.segments()
    point_at(page, ids, 4, 4)
    within = made.clusters["stage1"].upsample(segments.shape)[0] == ids[4, 4]
    pixels_of = np.bincount(segments.ravel(), minlength=48)
    expected = float((made.evidence[0].ravel()[segments] / pixels_of[segments])[within].sum())
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


def test_html_in_names_is_text(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)></script><script>document.title='broken'</script>.png"
    show(page, tmp_path, [(name, prediction()), ("b.png", prediction())], PROMISE)
    choose(page, "views", 3)
    assert text(page, "h1") == "clue_<i>test</i>"
    assert page.run("return document.title") == "clue_<i>test</i>"
    assert text(page, "#name").startswith(name)
    labels = page.run("return [...document.querySelectorAll('#top .label')].map((each) => each.textContent)")
    assert sorted(labels) == sorted(NAMES)
    assert page.run("return document.querySelectorAll('#main b, #main script, #main img[onerror], h1 i').length") == 0


def test_nothing_can_leave_the_page(browser: Page, tmp_path: Path) -> None:
    """Even a script that got in could not connect: the policy stops it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        show(browser, tmp_path, [("a.png", prediction())], PROMISE)
        outside = f"http://127.0.0.1:{server.server_port}"
        refused = browser.run(
            "const image = new Image(); const lost = new Promise((go) => { image.onerror = () => go('image'); });"
            "image.src = `${args[0]}/image`; return [await lost, await fetch(`${args[0]}/fetch`).catch(() => 'fetch')]",
            outside,
        )
        server.shutdown()
    assert (refused, asked) == (["image", "fetch"], [])
    assert all("Content Security Policy" in said or "refused" in said for said in browser.complaints())


def test_what_is_missing_is_said(page: Page, tmp_path: Path) -> None:
    write_report(tmp_path / "none.html", [], PROMISE)
    page.open(tmp_path / "none.html")
    assert text(page, "#empty") == "No pictures were given, so there is nothing to show."
    assert page.run("return document.querySelector('#main').hidden") is True

    show(page, tmp_path, [("a.png", prediction(BARE))], BARE)
    assert "--maps stages" in text(page, "#explained")
    np.testing.assert_array_equal(pixels(page, 48, 64), np.asarray(picture()))
    assert page.run("return document.querySelector('#cluster').hidden") is True

    show(page, tmp_path, [("a.png", prediction(BACKBONE))], BACKBONE)
    assert text(page, "#classes") == "Classes This model is a backbone: it gives features, not classes."
    choose(page, "views", 1)
    ids = prediction(BACKBONE).clusters["stage1"].ids[0]
    point_at(page, ids, 0, 0)
    assert "Evidence" not in text(page, "#detail")

    show(page, tmp_path, [("tensor 0", prediction(shown=False))], PROMISE)
    assert "The engine was given a tensor" in text(page, "#explained")


def test_light_and_dark(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, [("a.png", prediction())], PROMISE)

    def background() -> int:
        color = page.run("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", color)))

    assert (background() > 700, text(page, "#theme")) == (True, "Dark")
    page.click("#theme")
    assert (background() < 100, text(page, "#theme")) == (True, "Light")
    page.click("#theme")
    assert background() > 700
    page.look(1280, 900, dark=True)
    page.open(tmp_path / "report.html")
    page.wait("document.querySelector('#theme').textContent === 'Light'")
    assert background() < 100


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_background(page: Page, tmp_path: Path, dark: bool) -> None:
    """By WCAG 2's measure: 4.5 for text, 3 for what marks the focus."""
    page.look(1280, 900, dark)
    show(page, tmp_path, [("a.png", prediction())], PROMISE, [("a.png", requantised())])
    colors = page.run(
        "const style = getComputedStyle(document.documentElement), names = args;"
        "return names.map((name) => style.getPropertyValue(`--${name}`).trim())",
        *("ink", "quiet", "accent", "ground", "card", "fill", "accent-soft", "focus"),
    )

    def light(color: str) -> float:
        share = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05

    ink, quiet, accent, ground, card, fill, soft, focus = map(light, colors)

    def contrast(a: float, b: float) -> float:
        return max(a, b) / min(a, b)

    assert min(contrast(text, behind) for text in (ink, quiet, accent) for behind in (ground, card)) > 4.5
    assert min(contrast(ink, behind) for behind in (fill, soft)) > 4.5
    assert min(contrast(focus, behind) for behind in (ground, card)) > 3


def test_on_a_phone_everything_is_in_one_column(page: Page, tmp_path: Path) -> None:
    page.look(390, 844)
    many = [(f"{'long-name-' * 9}{i}.png", prediction(seed=i)) for i in range(12)]
    show(page, tmp_path, many, PROMISE)
    choose(page, "views", 1)
    wide, boxes = page.run(
        "const boxes = ['.look', '.facts', '#panels canvas'].map((each) => document.querySelector(each));"
        "const sides = boxes.map((box) => box.getBoundingClientRect()).map((b) => [b.left, b.right, b.top, b.bottom]);"
        "return [document.documentElement.scrollWidth, sides]"
    )
    look, facts, canvas = boxes
    assert wide == 390
    assert look[3] <= facts[2]
    assert (canvas[1] - canvas[0]) > 340
    assert all(left >= 0 and right <= 390 for left, right, _, _ in boxes)
    ids = many[0][1].clusters["stage1"].ids[0]
    point_at(page, ids, 3, 12, click=True)
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[3, 12])


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


def _signed(value: float) -> str:
    """As JavaScript's toPrecision(3) writes it, with a proper minus."""
    magnitude = abs(value)
    digits = 2 - int(np.floor(np.log10(magnitude)))
    return f"{MINUS if value < 0 else '+'}{magnitude:.{max(0, digits)}f}"
