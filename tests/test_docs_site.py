"""The documentation as a site: it is built without a warning, and no page of it loads anything from a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from chromium import MISSING, chromium
from doc_blocks import ROOT

pytest.importorskip("mkdocs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    return folder


class Loaded(HTMLParser):
    """What a page loads by itself, and the identifiers in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        name = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}.get(tag, "")
        if held.get(name):
            self.addresses.append(str(held[name]))


def test_every_page_is_there(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert {page.stem for page in site.glob("*.html")} == pages | {"404"}
    assert {"index", "quickstart", "STABILITY"} <= pages


def test_pages_load_what_is_beside_them_and_nothing_else(site: Path) -> None:
    for page in site.glob("*.html"):
        addresses = Loaded(page).addresses
        assert len(addresses) > 3, page
        for address in addresses:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc, f"{page.name} loads {address}"
            start = site if address.startswith("/") else page.parent
            assert (start / unquote(parts.path).lstrip("/")).is_file(), f"{page.name} loads {address}"


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        text = style.read_text(encoding="utf-8")
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text) == [], style


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_in_a_browser_pages_ask_for_files_only_complain_of_nothing_and_fit_a_phone(site: Path) -> None:
    with chromium() as page:
        page.look(390, 800)
        for path in sorted(site.glob("*.html")):
            if path.stem == "404":  # its addresses begin at the root of a server
                continue
            page.open(path)
            page.settle()
            assert page.run("return document.documentElement.scrollWidth") <= 390, path.name
            asked = page.requests()
            assert asked
            assert [url for url in asked if not url.startswith("file:")] == []
            assert page.complaints() == [], path.name
