"""What the report's browser tests share: to show a report, choose, point, and read text and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from chromium import Page
from numpy.typing import NDArray

from cluinfer.report import write_report

Array = NDArray[Any]
CANVAS = "#panels figure:nth-of-type({}) canvas"


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
