"""Which files are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluinfer.errors import PictureError
from cluinfer.picture_files import find_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.png", "below/c.webp", ".cache/d.jpg", "odd[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def found(*given: str) -> list[str]:
    return [path.as_posix() for path in find_pictures(given)]


@pytest.mark.usefixtures("folder")
def test_what_is_meant() -> None:
    assert found("below", "gone.jpg", "notes.txt") == ["below/c.webp", "gone.jpg", "notes.txt"]
    assert found("b.jpg", "*.jpg") == ["b.jpg", "odd[1].jpg"]
    assert found("**/*.webp") == ["below/c.webp"]
    assert found("odd[1].jpg") == ["odd[1].jpg"]
    assert found() == []


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "[x]" * 2000], ids=["long", "zero", "long pattern"])
def test_a_name_that_cannot_be_does_not_stop_the_others(folder: Path, name: str) -> None:
    if "[" in name:
        with pytest.raises(PictureError, match="no file has such a name"):
            find_pictures([name])
    else:
        assert find_pictures([name, folder / "b.jpg"]) == [Path(name), folder / "b.jpg"]


def test_a_folder_is_all_pictures_below_it(folder: Path) -> None:
    assert find_pictures([folder]) == [folder / name for name in ("a.PNG", "b.jpg", "below/c.webp", "odd[1].jpg")]


@pytest.mark.usefixtures("folder")
def test_what_holds_no_picture() -> None:
    Path("empty").mkdir()
    with pytest.raises(PictureError) as error:
        find_pictures(["b.jpg", "empty"])
    assert str(error.value) == (
        "empty: wanted a folder with pictures, found none ending in .bmp, .gif, .jp2, .jpeg, .jpg, .png, .ppm, .tif, "
        ".tiff, .webp"
    )
    with pytest.raises(PictureError) as error:
        find_pictures(["*.bmp"])
    assert str(error.value) == "*.bmp: no file has such a name"


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read every folder, so the listing itself fails here."""

    def scandir(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(PictureError, match="wanted a folder to look for pictures in: Permission denied"):
        find_pictures([folder])
