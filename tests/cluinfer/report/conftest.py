"""One browser for all of the report's tests; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import chromium
import pytest
from chromium import Page


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    if chromium.MISSING:
        pytest.skip(chromium.MISSING)
    with chromium.chromium() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A desktop window; whatever a test does in it, the page must not complain nor ask for anything."""
    browser.look(1280, 900)
    yield browser
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
