"""The report as a page in a real browser: safe, closed, readable, and sensible where something is missing."""

from __future__ import annotations

import http.server
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Page
from report_cases import BACKBONE, BARE, NAMES, PROMISE, picture, prediction, requantised
from report_page import choose, lit, pixels, point_at, show, text

from cluinfer.report import write_report


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
    assert text(page, "#classes") == "Classes A backbone: it gives features, no classes."
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


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_do_not_widen_the_page(page: Page, tmp_path: Path, width: int) -> None:
    page.look(width, 844)
    promise = replace(PROMISE, arch="a" * 200, names=tuple(f"{'class' * 40}{i}" for i in range(len(NAMES))))
    engines = ("one" * 60, "other" * 60)
    pairs = [("name" * 60 + ".png", prediction(promise))], [("", prediction(promise))]
    show(page, tmp_path, pairs[0], promise, pairs[1], engines=engines)
    choose(page, "views", 1)
    point_at(page, pairs[0][0][1].clusters["stage1"].ids[0], 5, 5)
    assert page.run("return document.documentElement.scrollWidth") == width
    tops = page.run("return [...document.querySelectorAll('#panels canvas')].map((each) => each.offsetTop)")
    assert len(set(tops)) == (2 if width < 600 else 1)


def test_on_a_phone_the_layers_and_the_choice_stay_in_sight(page: Page, tmp_path: Path) -> None:
    page.look(390, 844)
    show(page, tmp_path, [("a.png", prediction())], PROMISE, [("a.png", requantised())])
    table = "const box = document.querySelector('#comparison table').parentElement;"
    page.run("document.querySelector('#comparison details').open = true")
    assert page.run(f"{table} return [box.clientWidth > 200, box.scrollWidth - box.clientWidth]") == [True, 0]
    for number in (3, 0):
        left, right = page.run(
            "document.querySelectorAll('#views .choice')[args[0]].click();"  # this scrolls nothing
            "const box = document.querySelector('#views :checked').parentElement.getBoundingClientRect();"
            "return [box.left, box.right]",
            number,
        )
        assert left >= 0
        assert right <= 390


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


def test_another_engine_that_shows_less(page: Page, tmp_path: Path) -> None:
    """A model with fewer classes and without maps: what both have is compared, the rest is shown of one."""
    fewer = replace(BARE, classes=2, names=NAMES[:2])
    one, other = prediction(), prediction(fewer)
    show(page, tmp_path, [("a.png", one)], PROMISE, [("a.png", other)], engines=("whole", "bare"))
    choose(page, "views", 1)
    assert page.run("return document.querySelectorAll('#panels canvas').length") == 1
    ids = one.clusters["stage1"].ids[0]
    point_at(page, ids, 1, 1)
    np.testing.assert_array_equal(lit(page, *ids.shape), ids == ids[1, 1])
    assert "changed" not in text(page, "#verdict") + text(page, "#explained")
    shares = page.run("return [...document.querySelectorAll('#top .row')].map((row) => row.children[1].textContent)")
    assert sum(share.endswith("\N{EN DASH}") for share in shares) == len(NAMES) - 2
