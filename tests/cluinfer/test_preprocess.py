"""Pictures in every form give the same tensor, the one that torchvision and timm give; what is no picture says why."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cluinfer.errors import GraphError, PictureError
from cluinfer.graph import INTERPOLATIONS, Preprocess
from cluinfer.preprocess import MAX_PIXELS, check_tensor, normalise, open_picture, prepare, seen, shown

HOW = Preprocess()
SIZE = (32, 32)


def texture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth and sharp parts, different in every channel and corner."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    planes = [127 + 60 * np.sin(rows / (3 + c)) + 60 * np.sign(np.sin(columns / (4 + c))) for c in range(channels)]
    return (np.stack(planes, -1) * (0.5 + 0.5 * rows[..., None] / height)).astype(np.uint8)


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(PictureError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message and message.isprintable()
    return message


# --- what the model sees


def as_torchvision(image: Image.Image, size: int, how: Preprocess) -> Image.Image:
    """Resize(floor(size / crop)) and CenterCrop(size), written plainly."""
    short = math.floor(size / how.crop)
    width, height = image.size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(scaled, getattr(Image.Resampling, how.interpolation.upper()))
    left, top = round((scaled[0] - size) / 2.0), round((scaled[1] - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop", [1.0, 0.9, 0.875, 0.5])
@pytest.mark.parametrize("height_width", [(60, 75), (75, 60), (20, 33), (64, 64), (31, 200), (1, 1)])
def test_resized_and_cropped_as_torchvision_does(interpolation: str, crop: float, height_width: Any) -> None:
    how = Preprocess(crop=crop, interpolation=interpolation)
    picture = Image.fromarray(texture(*height_width))
    wanted = as_torchvision(picture, 32, how)
    got = shown(picture, SIZE, how)
    assert (got.mode, got.size) == ("RGB", (32, 32))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


@pytest.mark.parametrize(
    ("height_width", "scaled", "left_top"),
    [  # the model sees 20 rows and 40 columns; the picture must cover 40 x 80
        ((400, 800), (80, 40), (20, 10)),
        ((400, 400), (80, 80), (20, 30)),
        ((300, 1000), (133, 40), (46, 10)),  # 133.3, and half of 93 is rounded to even
        ((100, 157), (80, 51), (20, 16)),  # 50.96
    ],
)
def test_a_model_that_is_not_square(height_width: Any, scaled: Any, left_top: Any) -> None:
    picture = Image.fromarray(texture(*height_width))
    left, top = left_top
    wanted = picture.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + 40, top + 20))
    got = shown(picture, (20, 40), replace(HOW, crop=0.5))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_long_picture_is_cut_before_it_is_resized_and_looks_the_same(interpolation: str, turned: bool) -> None:
    how = Preprocess(interpolation=interpolation)
    pixels = texture(50, 2000)
    picture = Image.fromarray(pixels.swapaxes(0, 1) if turned else pixels)
    wanted = np.asarray(as_torchvision(picture, 32, how)).astype(int)
    got = np.asarray(shown(picture, SIZE, how)).astype(int)
    near = np.abs(got - wanted) <= 1  # Pillow rounds a box's weights otherwise
    assert near.mean() > (0.9 if interpolation == "nearest" else 0.999)


def test_a_tiny_crop_is_cut_before_it_is_resized() -> None:
    """The whole picture would be enlarged to 102400x102400 first."""
    picture = Image.fromarray(texture(100, 100))
    got = np.asarray(shown(picture, (1024, 1024), Preprocess(crop=0.01))).astype(int)
    wanted = picture.resize((1024, 1024), Image.Resampling.BICUBIC, (49.5, 49.5, 50.5, 50.5))
    assert np.abs(got - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize(
    ("height_width", "size", "crop", "box"),
    [
        ((80, 100), (32, 32), 0.5, (30, 20, 70, 60)),
        ((100, 80), (32, 32), 1.0, (0, 10, 80, 90)),
        ((400, 400), (20, 40), 0.5, (100, 150, 300, 250)),
        ((50, 2000), (32, 32), 0.9, (977, 3, 1023, 49)),  # 977.1 to 1022.9, 2.9 to 48.6
        ((1, 1), (32, 32), 0.9, (0, 0, 1, 1)),
        ((2, 3), (32, 32), 0.01, (1, 1, 2, 2)),  # a hundredth of a pixel: one at least is shown
    ],
)
def test_what_the_model_sees_in_full_resolution(height_width: Any, size: Any, crop: float, box: Any) -> None:
    picture = Image.fromarray(texture(*height_width))
    got = seen(picture, size, Preprocess(crop=crop))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(picture.crop(box)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("height_width", [(1, 20_000_000), (20_000_000, 1)])
def test_an_endless_picture_takes_no_more_memory_than_its_pixels(height_width: Any) -> None:
    """Resized as a whole, it would have 2 * 10^10 pixels. In a process of its own: its peak is measured."""
    script = f"""
import numpy as np
from cluinfer.graph import Preprocess
from cluinfer.preprocess import prepare
pixels = np.full({(*height_width, 1)}, 255, np.uint8)
tensor = prepare(pixels, (32, 32), Preprocess((0, 0, 0), (1, 1, 1)))
assert tensor.shape == (3, 32, 32) and (tensor == 1).all()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 500e6  # not ru_maxrss, in which the parent's counts


def test_normalised_with_the_bits_of_torchvision() -> None:
    torch = pytest.importorskip("torch")
    image = Image.fromarray(texture(32, 32))
    wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = (torch.tensor(each, dtype=torch.float32).view(3, 1, 1) for each in (HOW.mean, HOW.std))
    got = normalise(image, HOW)
    assert (got.dtype, got.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(got, wanted.sub_(mean).div_(std).numpy())


# --- the same in every form


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.ppm"])
def test_a_file_an_image_and_an_array_give_the_same_bits(tmp_path: Path, name: str) -> None:
    pixels = texture(60, 75)
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **({"lossless": True} if name == "a.webp" else {}))
    wanted = prepare(pixels, SIZE, HOW)
    assert wanted.shape == (3, 32, 32)
    np.testing.assert_array_equal(normalise(as_torchvision(Image.fromarray(pixels), 32, HOW), HOW), wanted)
    with Image.open(path) as opened:
        forms = [path, str(path), os.fspath(path), Image.fromarray(pixels), opened, np.asfortranarray(pixels)]
        for form in forms:
            np.testing.assert_array_equal(prepare(form, SIZE, HOW), wanted)
    np.testing.assert_array_equal(prepare(pixels[::-1, ::-1][::-1, ::-1], SIZE, HOW), wanted)


def test_a_jpeg_is_decoded_in_full(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(texture(600, 800)).save(path)
    with Image.open(path) as opened:
        pixels = np.array(opened)
    np.testing.assert_array_equal(prepare(path, SIZE, HOW), prepare(pixels, SIZE, HOW))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """What EXIF says of the stored rows and columns, undone on arrays by hand."""
    upright = texture(40, 60)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),  # shown turned clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    for form in (path, Image.open(path)):
        np.testing.assert_array_equal(np.asarray(open_picture(form)), upright)
    once = open_picture(path)
    np.testing.assert_array_equal(np.asarray(open_picture(once)), upright)  # and not turned a second time
    crop = shown(path, (20, 20), HOW)
    np.testing.assert_array_equal(np.asarray(open_picture(crop)), np.asarray(crop))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_is_no_orientation(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "a.png"
    pixels = texture(20, 30)
    Image.fromarray(pixels).save(path, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        np.testing.assert_array_equal(np.asarray(open_picture(path)), pixels)


# --- every mode

GREY = texture(6, 8, 1)[:, :, 0]
COLOUR = texture(6, 8)


def rgb(picture: Any) -> np.ndarray:
    image = open_picture(picture)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey() -> None:
    wanted = np.stack([GREY] * 3, -1)
    for picture in (GREY, GREY[:, :, None], Image.fromarray(GREY)):
        np.testing.assert_array_equal(rgb(picture), wanted)


def test_black_and_white() -> None:
    np.testing.assert_array_equal(rgb(Image.fromarray(GREY > 127)), np.stack([np.where(GREY > 127, 255, 0)] * 3, -1))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path, dtype: str) -> None:
    values = (GREY.astype(np.uint32) * 256 + 99).astype(dtype)
    image = Image.fromarray(values)
    wanted = np.stack([GREY] * 3, -1)
    np.testing.assert_array_equal(rgb(image), wanted)
    if dtype == "<u2":
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(rgb(tmp_path / "a.png"), wanted)


def test_a_palette() -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(rgb(image), np.asarray(image.convert("RGB")))


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, 4:], alpha[3:, 4:] = 128, 255
    share = alpha[..., None] / 255
    wanted = COLOUR * share + 255 * (1 - share)
    four = np.dstack([COLOUR, alpha])
    image = Image.fromarray(four)
    image.save(tmp_path / "a.png")
    for picture in (four, image, tmp_path / "a.png"):
        got = rgb(picture)
        assert np.abs(got - wanted).max() < 1
        np.testing.assert_array_equal(got[3:, 4:], COLOUR[3:, 4:])
        assert (got[:, :4] == 255).all()
    grey = Image.fromarray(np.dstack([GREY, alpha]))
    assert grey.mode == "LA"
    np.testing.assert_array_equal(rgb(grey)[3:, 4:, 0], GREY[3:, 4:])
    assert (rgb(grey)[:, :4] == 255).all()


def test_a_transparent_colour_of_a_palette_and_of_rgb(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "a.png", transparency=0)
    solid = Image.new("RGB", (4, 2), (10, 20, 30))
    solid.putpixel((0, 0), (1, 2, 3))
    solid.save(tmp_path / "b.png", transparency=(1, 2, 3))
    for name in ("a.png", "b.png"):
        got = rgb(tmp_path / name)
        assert got[0, 0].tolist() == [255, 255, 255]
        assert got[1, 3].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_ways_to_store_colour(mode: str) -> None:
    image = Image.new("RGB", (4, 2), (200, 40, 90)).convert(mode)
    assert np.abs(rgb(image).astype(int) - [200, 40, 90]).max() <= 3


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert rgb(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def test_nothing_that_is_given_is_changed(tmp_path: Path) -> None:
    pixels = texture(40, 50)
    image = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
    before = (pixels.copy(), image.copy())
    for each in (pixels, image):
        crop = shown(each, SIZE, HOW)
        crop.paste("red", (0, 0, 32, 32))
    np.testing.assert_array_equal(pixels, before[0])
    assert image == before[1]
    same = Image.fromarray(texture(32, 32))
    shown(same, SIZE, replace(HOW, crop=1.0)).paste("red", (0, 0, 32, 32))
    np.testing.assert_array_equal(np.asarray(same), texture(32, 32))


def test_threads_share_an_image_that_is_not_decoded_yet(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(texture(400, 500)).save(path)
    wanted = prepare(path, SIZE, HOW)
    for _ in range(5):
        shared, results = Image.open(path), []
        start = threading.Barrier(8)

        def work(shared: Image.Image = shared, results: list[Any] = results, start: Any = start) -> None:
            start.wait()
            results.append(prepare(shared, SIZE, HOW))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 8
        assert all((each == wanted).all() for each in results)


# --- what is no picture


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    Image.fromarray(texture(60, 75)).save(tmp_path / "whole.png")
    return (tmp_path / "whole.png").read_bytes()


def test_paths_without_a_picture(tmp_path: Path) -> None:
    missing, text, empty = tmp_path / "none.png", tmp_path / "a.txt", tmp_path / "empty.jpg"
    text.write_text("hello\n")
    empty.touch()
    assert refused(open_picture, missing) == f"{missing}: wanted a picture, found nothing"
    assert refused(open_picture, str(tmp_path)) == f"{tmp_path}: wanted a picture, found a folder"
    assert refused(open_picture, text) == f"{text}: wanted a picture, found a file of no format that Pillow reads"
    assert refused(open_picture, empty) == f"{empty}: wanted a picture, found an empty file"
    below = f"{text}/b"
    assert refused(open_picture, below) == f"{below}: wanted a picture, found what cannot be opened: Not a directory"
    assert refused(open_picture, "a\0b").startswith("'a\\x00b': wanted a picture, found what cannot be opened: ")
    assert refused(open_picture, "none\n\x1b[2J") == "'none\\n\\x1b[2J': wanted a picture, found nothing"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(open_picture, tmp_path / "pipe") == (
        f"{tmp_path / 'pipe'}: wanted a picture, found something that is not a file"
    )


def test_a_file_that_may_not_be_read(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "whole.png"
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root everything may be read, so the system's refusal is played
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert refused(open_picture, path) == f"{path}: wanted a picture, found a file that may not be read"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tiff", "a.webp"])
def test_a_picture_cut_short(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    Image.fromarray(texture(60, 75)).save(whole)
    data = whole.read_bytes()
    for length in (len(data) * 2 // 3, len(data) // 2):
        whole.write_bytes(data[:length])
        message = refused(open_picture, whole)
        kind = message.removeprefix(f"{whole}: ")
        assert kind.startswith(("the picture is damaged or cut short: ", "wanted a picture, found a file of no format"))


def test_a_picture_cut_short_or_damaged_says_so(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png[: len(png) // 2])
    assert refused(open_picture, path).startswith(
        f"{path}: the picture is damaged or cut short: image file is truncated"
    )
    with Image.open(path) as opened:
        message = refused(open_picture, opened)
    assert message.startswith("the PIL image: the picture is damaged or cut short: image file is truncated")
    data = bytearray(png)
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    assert refused(open_picture, path).startswith(f"{path}: the picture is damaged or cut short: ")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tiff", "a.webp", "a.ppm"])
def test_whatever_bytes_are_wrong_it_is_a_picture_or_a_picture_error(tmp_path: Path, name: str) -> None:
    if name == "a.webp" and not features.check("webp"):
        pytest.skip("this Pillow reads no WebP")
    path = tmp_path / name
    Image.fromarray(texture(12, 16)).save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                prepare(path, SIZE, HOW)
                outcomes.add("served")
            except PictureError as error:
                assert str(error).isprintable()
                outcomes.add("refused")
    assert outcomes == {"served", "refused"}


def test_a_bomb_is_not_decoded(tmp_path: Path, png: bytes) -> None:
    """A PNG of few bytes that says it has 10^10 pixels. Pillow refuses twice MAX_PIXELS itself, and warns below."""
    path = tmp_path / "a.png"
    for width, height in ((100_000, 100_000), (10_000, 9_000)):
        path.write_bytes(bomb(png, width, height))
        wanted = f"{path}: the picture has more than {MAX_PIXELS} pixels; make it smaller"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert refused(open_picture, path) == wanted
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert refused(open_picture, path) == wanted
    lazy = Image.new("L", (1, 1))
    lazy._size = (100_000, 100_000)
    assert (
        refused(open_picture, lazy) == f"the PIL image: the picture has more than {MAX_PIXELS} pixels; make it smaller"
    )
    endless = np.broadcast_to(np.uint8(0), (100_000, 100_000, 3))
    assert (
        refused(open_picture, endless) == f"the array: the picture has more than {MAX_PIXELS} pixels; make it smaller"
    )


def bomb(png: bytes, width: int, height: int) -> bytes:
    import zlib

    header = png[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def test_eps_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.eps"
    Image.fromarray(texture(8, 8)).save(path)
    assert refused(open_picture, path) == f"{path}: wanted a picture, found an EPS program; convert it to PNG"


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0), (0, 5, 4), (0, 5, 1)])
def test_arrays_without_pixels(shape: tuple[int, ...]) -> None:
    message = f"the array: wanted a picture, found one of {shape[1]}x{shape[0]} pixels"
    assert refused(open_picture, np.zeros(shape, np.uint8)) == message


def test_images_without_pixels() -> None:
    assert refused(open_picture, Image.new("RGB", (0, 5))) == "the PIL image: wanted a picture, found one of 0x5 pixels"


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 [4, 4, 3]"),
        (np.zeros((4, 4, 3), np.int64), "int64 [4, 4, 3]"),
        (np.zeros((4, 4), bool), "bool [4, 4]"),
        (np.zeros((4, 4), np.uint16), "uint16 [4, 4]"),
        (np.zeros((3, 5, 5), np.uint8), "uint8 [3, 5, 5]"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 [4, 4, 2]"),
        (np.zeros((1, 4, 4, 3), np.uint8), "uint8 [1, 4, 4, 3]"),
        (np.zeros(4, np.uint8), "uint8 [4]"),
        (np.zeros((), np.uint8), "uint8 []"),
        (np.array(["a.png"]), "<U5 [1]"),
    ],
)
def test_arrays_of_another_kind(array: np.ndarray, got: str) -> None:
    wanted = "wanted a uint8 array [height, width], [height, width, 3] or [height, width, 4]"
    assert refused(open_picture, array) == f"{wanted}, got {got}"


@pytest.mark.parametrize("value", [None, 3, b"bytes", [1], {"a": 1}])
def test_what_is_no_picture_at_all(value: Any) -> None:
    message = f"wanted a path, a PIL image or a uint8 array, got {type(value).__name__}"
    assert refused(open_picture, value) == message


def test_numbers_of_unknown_range() -> None:
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    message = "its pixels are floating-point numbers of unknown range; wanted 8 or 16 bits"
    assert refused(open_picture, floats) == f"the PIL image: {message}"
    wide = Image.fromarray(np.array([[-5, 70_000]], np.int32))
    assert refused(open_picture, wide) == "the PIL image: its pixels go from -5 to 70000; wanted 8 or 16 bits"


def test_a_mode_that_pillow_does_not_convert() -> None:
    odd = Image.new("La", (4, 4))
    assert refused(open_picture, odd) == "the PIL image: pixels of mode La are not taken; convert it to RGB"


# --- tensors


def test_a_tensor_that_fits_is_taken_as_it_is() -> None:
    batch = np.full((2, 3, 4, 6), np.finfo(np.float32).max, np.float32)
    assert check_tensor(batch, (4, 6)) is batch
    strided = check_tensor(batch[:, ::-1], (4, 6))
    assert strided.flags.c_contiguous
    np.testing.assert_array_equal(strided, batch)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((1, 3, 4, 6)), "float64 [1, 3, 4, 6]"),
        (np.zeros((1, 3, 4, 6), np.uint8), "uint8 [1, 3, 4, 6]"),
        (np.zeros((1, 3, 4, 6), ">f4"), ">f4 [1, 3, 4, 6]"),
        (np.zeros((3, 4, 6), np.float32), "float32 [3, 4, 6]"),
        (np.zeros((1, 4, 6, 3), np.float32), "float32 [1, 4, 6, 3]"),
        (np.zeros((1, 3, 6, 4), np.float32), "float32 [1, 3, 6, 4]"),
        (np.zeros((1, 1, 4, 6), np.float32), "float32 [1, 1, 4, 6]"),
        (np.zeros((0, 3, 4, 6), np.float32), "an empty batch"),
        ([[1.0]], "list"),
        (None, "NoneType"),
    ],
)
def test_tensors_that_do_not_fit(array: Any, got: str) -> None:
    assert refused(check_tensor, array, (4, 6)) == f"wanted a float32 array [batch, 3, 4, 6], got {got}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_tensors_that_are_not_finite(value: float) -> None:
    batch = np.zeros((3, 3, 4, 6), np.float32)
    batch[1, 2, 3, 5] = value
    assert refused(check_tensor, batch, (4, 6)) == (
        "wanted a float32 array [batch, 3, 4, 6] of finite numbers, image 1 of the batch holds NaN or infinity"
    )


# --- what a file says about it


@pytest.mark.parametrize("changes", [{"crop": 0.0}, {"crop": 1.5}, {"crop": float("nan")}, {"std": (1.0, 1e-9, 1.0)}])
def test_preprocessing_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(GraphError) as error:
        Preprocess(**changes)
    assert str(error.value) == "preprocess needs a crop from 0.01 to 1 and a std of 1e-6 or more"


def test_an_interpolation_that_is_not_known() -> None:
    with pytest.raises(GraphError) as error:
        Preprocess(interpolation="cubic")
    assert str(error.value) == (
        "preprocess needs an interpolation of nearest, box, bilinear, hamming, bicubic, lanczos, got 'cubic'"
    )
