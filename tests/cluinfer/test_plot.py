"""Bars start at zero and say how far the measured values lay apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cluinfer.errors import CluinferError
from cluinfer.plot import Bar, Dot, Panel, draw_bars, draw_dots

PANEL = Panel("latency", "ms", "fastest run to 95 %", [Bar("a.clu", 2.0, 1.9, 2.5), Bar("b.onnx", 3.0, 2.8, 3.1)])


def test_bars(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_bars(tmp_path / "one.png", [PANEL], "AMD EPYC, 2 threads")
    with Image.open(tmp_path / "one.png") as one:
        assert one.format == "PNG"
        narrow = one.width
        colours = {colour for _, colour in one.convert("RGB").getcolors(1 << 20) or []}
        assert (0x44, 0x77, 0xAA) in colours
    draw_bars(tmp_path / "two.png", [PANEL, PANEL])
    with Image.open(tmp_path / "two.png") as two:
        assert two.width == 2 * narrow


def test_the_axis_starts_at_zero_and_the_lines_reach_as_far_as_the_runs(tmp_path: Path) -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    kept = []

    class Figure(figure_module.Figure):  # type: ignore[name-defined, misc]
        def savefig(self, *given: object, **more: object) -> None:
            kept.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_module, "Figure", Figure)
        draw_bars(tmp_path / "one.png", [PANEL])
    (axes,) = kept[0].axes
    assert axes.get_xlim()[0] == 0
    assert [patch.get_width() for patch in axes.patches] == [2.0, 3.0]
    spans = [tuple(segment[:, 0]) for segment in axes.collections[0].get_segments()]
    assert spans == [pytest.approx((1.9, 2.5)), pytest.approx((2.8, 3.1))]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a.clu", "b.onnx"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plot.txt", "wanted a picture's name ending in .png, .svg, .pdf"),
        ("gone/plot.png", "wanted the name of a file to write, in a folder that exists"),
    ],
)
def test_where_no_picture_can_go(tmp_path: Path, name: str, message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(CluinferError) as error:
        draw_bars(tmp_path / name, [PANEL])
    assert str(error.value) == f"{tmp_path / name}: {message}"


def test_dots_and_the_level_that_they_are_to_reach(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_dots(
        tmp_path / "dots.png", [Dot("a", 1, 97, 0.9, 1.2), Dot("b", 2, 99, 1.9, 2.2, chosen=True)], "ms", "%", level=98
    )
    with Image.open(tmp_path / "dots.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x44, 0x77, 0xAA), (0xCC, 0x66, 0x77)} <= colours
    with pytest.raises(CluinferError, match="wanted a picture's name ending in"):
        draw_dots(tmp_path / "dots.txt", [], "", "")
