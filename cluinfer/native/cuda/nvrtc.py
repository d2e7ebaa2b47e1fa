"""Kernels to PTX by NVRTC, which needs neither a GPU nor a driver.

PTX of a newer CUDA than the driver's is refused by that driver, and by a TensorRT that was built with an older one. The
kernels need nothing new, so their PTX says that it is of the first version that knows the target: whatever runs the GPU
reads it. A target that is not in the table keeps the version of the NVRTC that is installed, which `version` tells.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from cluinfer.errors import EngineError, MissingPackageError
from cluinfer.native.cuda import Kernel

# The first version of PTX with each target (PTX ISA, "Target ISA"); ptxas holds the kernels to it in the tests.
FIRST_WITH = {
    "sm_75": "6.3",
    "sm_80": "7.0",
    "sm_86": "7.1",
    "sm_87": "7.4",
    "sm_88": "9.0",
    "sm_89": "7.8",
    "sm_90": "7.8",
    "sm_100": "8.6",
    "sm_103": "8.8",
    "sm_110": "9.0",
    "sm_120": "8.7",
    "sm_121": "8.8",
}
_ADVICE = "pip install 'cluinfer[trt]'"


def compile_ptx(kernel: Kernel, target: str) -> bytes:
    """The PTX of a kernel for a GPU such as sm_90, and for later ones."""
    return _compile(kernel.source, kernel.entry, check_target(target))


def check_target(target: str) -> str:
    """The target, if this NVRTC knows it."""
    known = targets()
    if target not in known:
        raise EngineError(f"there is no target {target!r:.60} in NVRTC {version()}; there are: {', '.join(known)}")
    return target


def targets() -> tuple[str, ...]:
    """The GPUs that this NVRTC compiles for."""
    api = _nvrtc()
    _, count = _checked(api.nvrtcGetNumSupportedArchs())
    _, numbers = _checked(api.nvrtcGetSupportedArchs())
    return tuple(f"sm_{number}" for number in numbers[:count])


def version() -> str:
    """The CUDA release that NVRTC is of, as in 13.0."""
    _, major, minor = _checked(_nvrtc().nvrtcVersion())
    return f"{major}.{minor}"


@lru_cache(maxsize=256)
def _compile(source: str, entry: str, target: str) -> bytes:
    api = _nvrtc()
    _, program = _checked(api.nvrtcCreateProgram(source.encode(), f"{entry}.cu".encode(), 0, [], []))
    try:
        options = [f"--gpu-architecture={target.replace('sm', 'compute')}".encode(), b"--std=c++17"]
        result, *_ = api.nvrtcCompileProgram(program, len(options), options)
        if result != api.nvrtcResult.NVRTC_SUCCESS:
            log = _text(api.nvrtcGetProgramLogSize, api.nvrtcGetProgramLog, program).decode(errors="replace")
            line = next((line for line in log.splitlines() if "error" in line), log.strip())
            raise EngineError(f"NVRTC {version()} cannot compile {entry} for {target}: {line:.300}")
        # A hint on which bytes of a load are used, which PTX has only known since 8.3, and NVRTC 13.0 gives or does not
        # give for the same source.
        ptx = re.sub(
            rb'(?m)^\s*\.pragma "used_bytes_mask [^"]*";\n', b"", _text(api.nvrtcGetPTXSize, api.nvrtcGetPTX, program)
        )
        if target not in FIRST_WITH:
            return ptx
        return re.sub(rb"(?m)^\.version .*$", f".version {FIRST_WITH[target]}".encode(), ptx, count=1)
    finally:
        api.nvrtcDestroyProgram(program)


def _text(size_of: Any, get: Any, program: Any) -> bytes:
    """What NVRTC has to say, without the zero byte at its end."""
    _, size = _checked(size_of(program))
    text: bytes = b" " * size  # filled in place
    _checked(get(program, text))
    return text.rstrip(b"\0")


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    api = _nvrtc()
    if answer[0] != api.nvrtcResult.NVRTC_SUCCESS:
        raise EngineError(f"NVRTC fails: {answer[0].name}")
    return answer


@lru_cache(maxsize=1)
def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # loads the library, which is another package
    except ImportError as error:
        raise MissingPackageError(f"the CUDA kernels need cuda-bindings ({error}): {_ADVICE}") from error
    except Exception as error:  # cuda.pathfinder's own errors, which vary with its release
        reason = re.sub(r"\s+", " ", str(error))
        raise MissingPackageError(f"the CUDA kernels need NVRTC ({reason:.200}): {_ADVICE}") from error
    return nvrtc
