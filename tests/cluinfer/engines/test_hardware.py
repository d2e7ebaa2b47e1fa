"""What a machine says of itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluinfer.engines import hardware


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    hardware.cpu.cache_clear()
    yield
    hardware.cpu.cache_clear()


@pytest.mark.parametrize(
    ("info", "name", "isa"),
    [
        (
            "processor\t: 0\nmodel name\t: A: B\nflags\t\t: fpu avx sse avx2 amx_tile avx512f\n\n"
            "processor\t: 1\nmodel name\t: other\nflags\t\t: avx512_vnni\n",
            "A: B",
            "avx avx2 avx512f amx_tile",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd sve bf16\n", None, "asimd bf16 sve"),
        ("", None, ""),
    ],
)
def test_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, info: str, name: str | None, isa: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(info)
    monkeypatch.setattr(hardware, "_INFO", path)
    found = hardware.cpu()
    assert found["isa"] == isa
    assert found["cpu"] == (name or platform.processor() or platform.machine())
    assert (found["system"], found["architecture"]) == (platform.system(), platform.machine())


def test_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "_INFO", tmp_path / "none")
    assert hardware.cpu()["isa"] == ""


def test_cores() -> None:
    assert 1 <= hardware.cores() <= (os.cpu_count() or 1)
