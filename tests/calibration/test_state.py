"""The state of an interrupted run: whole or not at all, and nothing where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluinfer.calibration.state import load, save
from cluinfer.errors import CalibrationError

ARRAYS = {"a/b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), np.float32)}
HEAD = {"done": 3, "skipped": {"1": "größer"}}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "state", HEAD, ARRAYS)
    head, arrays = load(tmp_path / "state")
    assert head == HEAD
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_one_that_ends_half_way_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "state", HEAD, ARRAYS)

    def half(file: object, **more: object) -> None:
        file.write(b"PK")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "state", {"done": 4}, {})
    assert load(tmp_path / "state")[0] == HEAD
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot keep the state of the calibration there: No such file or direc"):
        save(tmp_path / "gone" / "state", HEAD, ARRAYS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"hello" * 100, None])
def test_what_is_no_state(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "state").write_bytes(content)
    assert load(tmp_path / "state") == ({}, {})


def test_a_truncated_one_and_others_files(tmp_path: Path) -> None:
    save(tmp_path / "state", HEAD, ARRAYS)
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(whole[: len(whole) // 2])
    assert load(tmp_path / "state") == ({}, {})
    for head in (np.frombuffer(b"[1]", np.uint8), np.frombuffer(b"{", np.uint8), np.array([{}], object)):
        np.savez(tmp_path / "other.npz", allow_pickle=True, head=head)
        assert load(tmp_path / "other.npz") == ({}, {})
    np.savez(tmp_path / "other.npz", more=np.zeros(3))
    assert load(tmp_path / "other.npz") == ({}, {})
