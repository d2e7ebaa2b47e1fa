"""Measurements as a picture: bars from zero, each with its spread, or dots. Needs the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluinfer.errors import CluinferError

FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Bar:
    """A value, and the range in which the measured ones lay."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """Bars of one quantity, on an axis of their own; `spread` says what the thin lines reach from and to."""

    title: str
    unit: str
    spread: str
    bars: Sequence[Bar]


def draw_bars(path: str | Path, panels: Sequence[Panel], note: str = "") -> None:
    """Write the panels side by side, in the format that the path's suffix names."""
    from matplotlib.figure import Figure  # without pyplot, which keeps every figure and picks a window system

    check_format(path)
    most = max(len(panel.bars) for panel in panels)
    figure = Figure(figsize=(5.5 * len(panels), 1.4 + 0.45 * most), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        places = range(len(panel.bars))
        values = [bar.value for bar in panel.bars]
        reach = [
            [max(bar.value - bar.low, 0) for bar in panel.bars],
            [max(bar.high - bar.value, 0) for bar in panel.bars],
        ]
        axes.barh(places, values, color="#4477aa", height=0.6)
        axes.errorbar(values, places, xerr=reach, fmt="none", ecolor="#222222", capsize=3, linewidth=1)
        for place, bar in zip(places, panel.bars, strict=True):
            at = (max(bar.high, bar.value), place)
            shown = f"{bar.value:,.0f}" if bar.value >= 100 else f"{bar.value:.3g}"
            axes.annotate(shown, at, (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [bar.label for bar in panel.bars])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{panel.unit} (thin lines: {panel.spread})")
        axes.set_title(panel.title)
        axes.spines[["top", "right"]].set_visible(False)
    if note:
        figure.supxlabel(note, fontsize="small", color="#555555")
    _write(figure, path)


@dataclass(frozen=True)
class Dot:
    """One of several things that differ in two quantities; `low` and `high`: the range of the first as measured."""

    label: str
    across: float
    up: float
    low: float
    high: float
    chosen: bool = False


def draw_dots(path: str | Path, dots: Sequence[Dot], across: str, up: str, level: float | None = None) -> None:
    """Write a plane with the dots, from zero on the left, each with its name, and a line at the level to reach."""
    from matplotlib.figure import Figure

    check_format(path)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, dot in enumerate(dots):
        colour, size = ("#cc6677", 80) if dot.chosen else ("#4477aa", 36)
        reach = [[max(dot.across - dot.low, 0)], [max(dot.high - dot.across, 0)]]
        axes.errorbar(dot.across, dot.up, xerr=reach, fmt="none", ecolor=colour, capsize=3, linewidth=1, zorder=2)
        axes.scatter(dot.across, dot.up, s=size, color=colour, zorder=3)
        aside = (0, -14 if place % 2 else 7)  # neighbours in turns, since they may lie on one another
        axes.annotate(dot.label, (dot.across, dot.up), aside, textcoords="offset points", ha="center", fontsize="small")
    if level is not None:
        axes.axhline(level, color="#555555", linewidth=1, linestyle="--")
    axes.margins(x=0.1, y=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def check_format(path: str | Path) -> None:
    """Refuse what cannot be written, before anything is measured for it."""
    if Path(path).suffix.lower() not in FORMATS:
        raise CluinferError(f"{path}: wanted a picture's name ending in {', '.join(FORMATS)}")
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        raise CluinferError(f"{path}: wanted the name of a file to write, in a folder that exists")


def _write(figure: Any, path: str | Path) -> None:
    try:
        figure.savefig(path)
    except OSError as error:
        raise CluinferError(f"{path}: cannot write a picture there: {error.strerror}") from error
