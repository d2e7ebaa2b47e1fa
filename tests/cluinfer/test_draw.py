"""Pictures of maps: every check is against the arrays, pixel by pixel where that is possible."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluinfer.draw import grid, heat_colors, heat_range, overlay_clusters, overlay_heat, palette
from cluinfer.errors import PictureError, ShapeError

GREY = Image.new("RGB", (64, 48), (128, 128, 128))
QUARTERS = np.array([[0, 1], [2, 3]], np.int32)

# Machado 2009, full severity, on linear RGB: how protanopes, deuteranopes and tritanopes see
SIGHT = [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
OKLAB = (
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883, 0.2817, 0.6300]],
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922, 0.4505937099],
        [0.0259, 0.7828, -0.8087],
    ],
)


def array(picture: Image.Image) -> NDArray[np.int64]:
    return np.asarray(picture).astype(np.int64)


def perceived(colors: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """In OKLab, for each kind of sight; differences below 0.02 are hard to see."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cones, to_lab = map(np.array, OKLAB)
    return [np.cbrt(np.clip(linear @ np.array(kind).T, 0, 1) @ to_cones.T) @ to_lab.T for kind in SIGHT]


def test_colours_differ_and_stay() -> None:
    colors = palette(1200)
    assert (colors.shape, colors.dtype) == ((1200, 3), np.uint8)
    assert len(np.unique(colors, axis=0)) == 1200
    np.testing.assert_array_equal(colors[:7], palette(7))
    assert palette(0).shape == (0, 3)


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 7, 8, 14, 16, 28, 32, 56, 64])
def test_ids_close_by_look_different_to_everyone(apart: int) -> None:
    for seen in perceived(palette(1100)):
        assert np.linalg.norm(seen[apart:] - seen[:-apart], axis=1).min() > 0.03
    for seen in perceived(palette(23)):
        assert np.linalg.norm(seen[apart:] - seen[:-apart], axis=1).min(initial=1) > 0.068


def test_a_cluster_is_painted_where_it_is() -> None:
    painted = array(overlay_clusters(QUARTERS, GREY, opacity=1, edges=False))
    expected = palette(4)[QUARTERS].repeat(24, 0).repeat(32, 1)
    np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize("opacity", [0, 0.25, 1])
def test_opacity_mixes_the_colour_with_the_grey_picture(opacity: float) -> None:
    orange = Image.new("RGB", (4, 4), (200, 100, 0))
    painted = array(overlay_clusters(np.zeros((1, 1), np.int32), orange, opacity=opacity, edges=False))
    grey = array(orange.convert("L"))[..., None]
    np.testing.assert_allclose(painted, grey + opacity * (palette(1)[0] - grey), atol=1)


def test_sizes() -> None:
    assert overlay_clusters(QUARTERS, GREY).size == (64, 48)
    assert overlay_clusters(QUARTERS, GREY, size=(100, 300)).size == (300, 100)
    assert overlay_heat(np.ones((3, 5)), GREY, size=(300, 100)).size == (100, 300)
    assert overlay_heat(np.ones((3, 5)), GREY, size=(np.int64(30), 10)).size == (10, 30)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5.0, 5), 5, "55"])
def test_sizes_that_cannot_be(size: Any) -> None:
    with pytest.raises(ShapeError, match=r"wanted a size of \(rows, columns\), got"):
        overlay_clusters(QUARTERS, GREY, size=size)


def test_ids_are_stretched_as_they_are_sampled_at_the_middle_of_pixels() -> None:
    ids = np.arange(7 * 5, dtype=np.int32).reshape(7, 5)
    painted = array(overlay_clusters(ids, GREY, size=(16, 23), opacity=1, edges=False))
    rows = [math.floor((y + 0.5) * 7 / 16) for y in range(16)]
    columns = [math.floor((x + 0.5) * 5 / 23) for x in range(23)]
    np.testing.assert_array_equal(painted, palette(35)[ids[np.ix_(rows, columns)]])


@pytest.mark.parametrize("size", [(48, 64), (3, 3), (1024, 1024)])
def test_edges_are_where_neighbouring_pixels_are_of_two_clusters(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(3).integers(0, 3, (8, 8), np.int32)
    plain, lined = (array(overlay_clusters(ids, GREY, size=size, edges=edges)) for edges in (False, True))
    rows, columns = (np.minimum((np.arange(n) + 0.5) * 8 / n, 7).astype(int) for n in size)
    whole = ids[np.ix_(rows, columns)]
    expected = np.zeros(size, bool)
    for back in range(2 if size[0] > 1000 else 1):
        expected[1 - back : size[0] - back] |= whole[1:] != whole[:-1]
        expected[:, 1 - back : size[1] - back] |= whole[:, 1:] != whole[:, :-1]
    np.testing.assert_array_equal((lined != plain).any(-1), expected)
    assert (lined[expected] >= plain[expected]).all()


def test_a_single_cluster_has_no_edges() -> None:
    one = np.full((4, 4), 5, np.int64)
    assert overlay_clusters(one, GREY).tobytes() == overlay_clusters(one, GREY, edges=False).tobytes()


def test_labels_are_written_into_their_clusters() -> None:
    big = GREY.resize((400, 400))
    plain, labelled = (array(overlay_clusters(QUARTERS, big, labels=labels)) for labels in (False, True))
    changed = (plain != labelled).any(-1)
    for row in (0, 200):
        for column in (0, 200):
            quarter = changed[row : row + 200, column : column + 200]
            middle = quarter[85:115, 85:115]
            assert 0 < middle.sum() == quarter.sum()


def test_labels_without_room_are_left_out() -> None:
    for ids in (np.zeros((1, 1), np.int32), np.arange(48 * 64, dtype=np.int32).reshape(48, 64)):
        picture = GREY.resize((ids.shape[1], ids.shape[0]))
        assert overlay_clusters(ids, picture, labels=True).tobytes() == overlay_clusters(ids, picture).tobytes()


def test_a_label_stays_inside_a_ring() -> None:
    """The middle of a ring is not the ring: its label must not say that the hole is of it."""
    ids = np.ones((30, 30), np.int32)
    ids[8:22, 8:22] = 0
    big = GREY.resize((600, 600))
    plain, labelled = (array(overlay_clusters(ids, big, edges=False, labels=labels)) for labels in (False, True))
    changed = (plain != labelled).any(-1)
    inner = changed[160:440, 160:440]
    assert 0 < inner.sum() < changed.sum()
    assert inner[120:160, 120:160].sum() == inner.sum()


def test_negative_ids_stay_unpainted() -> None:
    ids = np.array([[-1, 2]], np.int32)
    painted = array(overlay_clusters(ids, GREY, opacity=1, edges=False, labels=True))
    assert (painted[:, :32] == 128).all()
    assert (painted[0, -1] == palette(3)[2]).all()


def test_huge_ids_cost_nothing() -> None:
    ids = np.array([[0, 2**31 - 1]], np.int32)
    painted = array(overlay_clusters(ids, GREY, opacity=1, edges=False))
    assert (painted[0, 0] == palette(1)[0]).all()
    assert (painted[0, -1] != painted[0, 0]).any()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_mode(mode: str) -> None:
    assert overlay_clusters(QUARTERS, GREY.convert(mode)).mode == "RGB"
    assert overlay_heat(np.ones((2, 2)), GREY.convert(mode)).mode == "RGB"


def test_one_pixel() -> None:
    dot = Image.new("RGB", (1, 1), (10, 20, 30))
    assert array(overlay_clusters(QUARTERS, dot, opacity=1, edges=False))[0, 0].tolist() == palette(4)[3].tolist()
    assert array(overlay_heat(np.array([[2.0]]), dot, opacity=1))[0, 0].tolist() == heat_colors(False)[255].tolist()
    assert overlay_heat(np.eye(7), dot).size == grid([dot], columns=1).crop((4, 4, 5, 5)).size == (1, 1)


def test_signed_heat_is_centred_on_zero() -> None:
    values = np.array([[-1.0, 0.0, 4.0]])
    assert heat_range(values) == (-4, 4)
    painted = array(overlay_heat(values, GREY, opacity=1, scale=False))
    colors = heat_colors(True).astype(int)
    assert np.abs(painted[0, -1] - colors[255]).max() == 0
    assert np.abs(painted[0, 32] - colors[128]).max() <= 12
    assert painted[0, 0, 2] > painted[0, 0, 0]  # the negative end is blue, the positive one red
    assert painted[0, -1, 0] > painted[0, -1, 2]


def test_values_that_happen_to_be_positive_can_be_told_to_be_signed() -> None:
    values = np.array([[0.0, 4.0]])
    assert heat_range(values, signed=True) == (-4, 4)
    painted = array(overlay_heat(values, GREY, opacity=1, scale=False, signed=True))
    assert np.abs(painted[0, 0] - heat_colors(True)[128]).max() <= 1
    assert (painted[0, -1] == heat_colors(True)[255]).all()


def test_the_two_sides_of_zero_are_equally_strong() -> None:
    light = perceived(heat_colors(True))[0][:, 0]
    np.testing.assert_allclose(light, light[::-1], atol=0.06)
    assert light.argmax() in (127, 128)


def test_heat_without_negative_values_starts_at_zero() -> None:
    assert heat_range(np.array([[3.0, 6.0]])) == (0, 6)
    painted = array(overlay_heat(np.array([[3.0, 6.0]]), GREY, opacity=1, scale=False))
    assert np.abs(painted[0, 0] - heat_colors(False)[128]).max() <= 1
    assert (np.diff(perceived(heat_colors(False))[0][:, 0]) > -1e-3).all()  # lighter is more, for everyone


@pytest.mark.parametrize("constant", [0.0, 5.0, -5.0, 1e-300, 5e-324, 1e308, -1e308])
def test_constant_heat(constant: float) -> None:
    painted = array(overlay_heat(np.full((3, 3), constant), GREY, opacity=1, scale=False))
    colors = heat_colors(constant < 0)
    expected = colors[0] if constant <= 0 else colors[255]
    assert (painted == expected).all()


def test_strong_heat_hides_more_of_the_picture() -> None:
    values = np.array([[0.0, 1.0]])
    dark, light = (
        array(overlay_heat(values, Image.new("RGB", (64, 48), color), scale=False)) for color in ("black", "white")
    )
    through = (light - dark).mean(-1)[0]
    assert through[0] > 150
    assert through[-1] < 60
    assert array(overlay_heat(values, GREY, opacity=0, scale=False)).tolist() == array(GREY).tolist()


def test_a_scale_where_there_is_room() -> None:
    values = np.linspace(-1, 1, 16).reshape(4, 4)
    big = GREY.resize((300, 200))
    plain, scaled = (array(overlay_heat(values, big, scale=scale)) for scale in (False, True))
    changed = (plain != scaled).any(-1)
    assert plain.shape == scaled.shape
    assert changed[150:, :150].sum() == changed.sum() > 1500
    bar = scaled[changed.any(1)][6]  # a row of the bar itself
    for color in heat_colors(True)[[0, 255]].astype(int):
        assert (np.abs(bar - color).max(-1) <= 6).any()
    assert overlay_heat(values, GREY, scale=True).tobytes() == overlay_heat(values, GREY, scale=False).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_heat_must_be_finite(bad: float) -> None:
    with pytest.raises(PictureError, match="values to paint must be finite, got NaN or infinity"):
        overlay_heat(np.array([[0, bad]]), GREY)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"ids to paint must be \[rows, columns\], not empty, got \[1, 2, 2\]"):
        overlay_clusters(QUARTERS[None], GREY)
    with pytest.raises(ShapeError, match=r"values to paint must be \[rows, columns\], not empty, got \[0, 3\]"):
        overlay_heat(np.zeros((0, 3)), GREY)
    with pytest.raises(ShapeError, match="ids must be whole numbers, got float64"):
        overlay_clusters(np.zeros((2, 2)), GREY)
    for opacity in (-0.1, 1.5, math.nan):
        with pytest.raises(PictureError, match="opacity must be from 0 to 1, got"):
            overlay_clusters(QUARTERS, GREY, opacity=opacity)


@pytest.mark.parametrize(
    ("count", "columns", "expected"), [(1, None, (1, 1)), (4, None, (2, 2)), (8, None, (2, 4)), (5, 2, (3, 2))]
)
def test_grid(count: int, columns: int | None, expected: tuple[int, int]) -> None:
    cells = [Image.new("RGB", (48, 48), (i + 1, 0, 0)) for i in range(count)]
    made = array(grid(cells, columns=columns))
    gap = 4
    assert made.shape[:2] == tuple(side * (48 + gap) + gap for side in expected)
    for i in range(count):
        row, column = divmod(i, expected[1])
        top, left = gap + row * (48 + gap), gap + column * (48 + gap)
        assert (made[top : top + 48, left : left + 48] == [i + 1, 0, 0]).all()


def test_titles_are_written_above_and_cut_to_the_width() -> None:
    black = Image.new("RGB", (60, 60))
    titled = array(grid([black, black], ["W" * 500, ""], columns=2))
    ink = (titled < 250).any(-1)
    top = int(np.flatnonzero((titled[:, 10] == 0).all(-1))[0])
    assert ink[:top, 4:64].sum() > 50
    assert ink[:top].sum() == ink[:top, 4:64].sum()
    assert array(grid([black], ["a\nb"])).shape[0] == array(grid([black], ["a b"])).shape[0]


def test_grids_that_cannot_be() -> None:
    with pytest.raises(PictureError, match="a grid needs pictures, got none"):
        grid([])
    with pytest.raises(ShapeError, match="a grid of 1 pictures needs as many titles, or none, got 2"):
        grid([GREY], ["a", "b"])
    with pytest.raises(ShapeError, match="a grid needs a column or more, got 0"):
        grid([GREY], columns=0)


@pytest.mark.parametrize("size", [(1 << 17, 1), (1, 1 << 17), (1 << 15, 1 << 14), (10**30, 1)])
def test_sizes_beyond_reason(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match="wanted a size of up to 65536 a side and 268435456 pixels, got "):
        overlay_clusters(np.zeros((2, 2), np.int32), Image.new("RGB", (4, 4)), size=size)


def test_a_title_of_megabytes_is_cut() -> None:
    picture = Image.new("RGB", (64, 64))
    long = grid([picture], ["word " * 1_000_000])
    assert np.array_equal(np.asarray(long), np.asarray(grid([picture], ["word " * 1_000])))
    assert not np.array_equal(np.asarray(long), np.asarray(grid([picture], ["wor"])))


def test_a_thousand_clusters() -> None:
    ids = np.arange(1000).reshape(25, 40)
    made = overlay_clusters(ids, Image.new("RGB", (40, 25)), opacity=1.0, edges=False)
    np.testing.assert_array_equal(np.asarray(made), palette(1000).reshape(25, 40, 3))
    assert overlay_clusters(ids, Image.new("RGB", (1, 1)), labels=True).size == (1, 1)
