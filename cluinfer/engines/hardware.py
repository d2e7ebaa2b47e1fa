"""What this machine is, in the words that an artifact keeps: enough to tell whether a compiled graph fits it."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
# What engines choose kernels and layouts by; "Features" is the line of ARM's.
_EXTENSIONS = (
    *("avx", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2"),
)


@lru_cache(maxsize=1)
def cpu() -> dict[str, str]:
    """The system, the architecture, the CPU's name, and its instruction sets where the system tells them."""
    fields = _fields()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "isa": " ".join(name for name in _EXTENSIONS if name in present),
    }


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fields() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    if not _INFO.is_file():
        return {}
    block = _INFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
