"""The CUDA kernels as NVRTC compiles them, and what NVIDIA's assembler makes of that. Nothing here runs on a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cluinfer.errors import EngineError
from cluinfer.native.cuda import Kernel, Shape, assign, gather, nvrtc, scatter

pytest.importorskip("cuda.bindings")

PTXAS = shutil.which("ptxas")
TARGETS = ("sm_80", "sm_90", "sm_100")
LARGE = Shape(channels=32, points=3136, centers=49)
KERNELS = {
    "assign": assign(LARGE, True, 1.0, 0.0, True),
    "assign, most channels in registers": assign(Shape(96, 196, 4), False, 1.0, 0.0, True),
    "assign, more channels": assign(Shape(160, 196, 49), True, 1.0, 0.0, False),
    "assign, careful": assign(Shape(16, 12544, 3136), False, 50.0, 0.0, True),
    "scatter": scatter(LARGE, True, True),
    "scatter to many centres": scatter(Shape(24, 12544, 3136), False, False),
    "gather": gather(LARGE, True, True),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_compiles_without_spills(kernel: Kernel, target: str, tmp_path: Path) -> None:
    ptx = nvrtc.compile_ptx(kernel, target)
    assert f".target {target}" in ptx.decode()
    assert f".visible .entry {kernel.entry}(" in ptx.decode()
    if PTXAS is None:
        pytest.skip("compiled, but there is no ptxas here to tell registers and spills")
    (tmp_path / "kernel.ptx").write_bytes(ptx)
    command = [PTXAS, "-v", f"-arch={target}", tmp_path / "kernel.ptx", "-o", tmp_path / "kernel.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = re.search(r"Used (\d+) registers", done.stderr)
    shared = re.search(r"(\d+) bytes smem", done.stderr)
    assert spilled and spilled.groups() == ("0", "0"), done.stderr
    assert registers and int(registers[1]) * kernel.threads <= 65536  # of a multiprocessor
    assert int(shared[1] if shared else 0) <= 48 << 10


@pytest.mark.skipif(PTXAS is None, reason="there is no ptxas here")
@pytest.mark.parametrize("target", nvrtc.FIRST_WITH)
def test_the_first_version_that_knows_the_target_is_enough(target: str, tmp_path: Path) -> None:
    """So whatever runs such a GPU, the driver or TensorRT, reads the PTX."""
    if target not in nvrtc.targets():
        pytest.skip("this NVRTC does not know it")
    for kernel in KERNELS.values():
        ptx = nvrtc.compile_ptx(kernel, target)
        assert ptx.count(b"\n.version ") == 1
        assert f"\n.version {nvrtc.FIRST_WITH[target]}\n".encode() in ptx
        (tmp_path / "kernel.ptx").write_bytes(ptx)
        command = [str(PTXAS), f"-arch={target}", str(tmp_path / "kernel.ptx"), "-o", str(tmp_path / "kernel.cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_ptx_is_text_to_the_end_and_the_same_again() -> None:
    ptx = nvrtc.compile_ptx(KERNELS["gather"], "sm_90")
    assert ptx.endswith(b"}\n\n")
    nvrtc._compile.cache_clear()
    assert nvrtc.compile_ptx(KERNELS["gather"], "sm_90") == ptx


@pytest.mark.parametrize("target", ["sm_1", "sm_90; rm", "H100", ""])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(EngineError, match=r"there is no target .*; there are: .*sm_80, .*sm_90"):
        nvrtc.compile_ptx(KERNELS["gather"], target)


def test_what_nvrtc_refuses_is_told_in_a_line() -> None:
    with pytest.raises(
        EngineError, match=r"NVRTC .* cannot compile broken for sm_90: .*identifier \"unknown\""
    ) as error:
        nvrtc.compile_ptx(Kernel("broken", "__device__ int x = unknown;", 1, 1), "sm_90")
    assert "\n" not in str(error.value)
