"""The CUDA kernels, compiled by the host's own compiler and run on NumPy arrays: one library for all shapes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluinfer.native.cuda import Kernel

HEADER = Path(__file__).parent / "cuda_host.hpp"
COMPILER = shutil.which("g++")  # _Float16 and ucontext are wanted, which not every compiler has
GUARD = 64  # bytes around every array, which must stay as they are


class HostKernels:
    """Kernels by number, in the order given."""

    def __init__(self, kernels: Sequence[Kernel], folder: Path) -> None:
        self.kernels = kernels
        source = folder / "kernels.cpp"
        source.write_text(f'#include "{HEADER}"\n' + "\n".join(map(_wrapped, range(len(kernels)), kernels)))
        library = folder / "kernels.so"
        flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing", "-w"]
        done = subprocess.run([COMPILER, *flags, source, "-o", library], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        self.library = ctypes.CDLL(str(library))

    def __call__(
        self, number: int, inputs: Sequence[NDArray], outputs: Sequence[tuple[tuple[int, ...], type]], order: int = 0
    ) -> list[NDArray]:
        """Run one for as many groups as the first input has; outputs are (shape, dtype), float16 as float16."""
        kernel = self.kernels[number]
        held = [_guarded(array.shape, array.dtype, array) for array in inputs]
        held += [_guarded(shape, np.dtype(kind), None) for shape, kind in outputs]
        pointers = (ctypes.c_void_p * len(held))(*(view.ctypes.data for _, view in held))
        run = getattr(self.library, f"run{number}")
        assert run(pointers, kernel.blocks * len(inputs[0]), kernel.threads, order) == 0, "threads wait for ever"
        for memory, view in held:
            assert (memory[:GUARD] == 0xA5).all() and (memory[GUARD + view.nbytes :] == 0xA5).all(), "written outside"
        for (_, view), array in zip(held, inputs, strict=False):
            np.testing.assert_array_equal(view.view(np.uint8), array.view(np.uint8))
        return [view for _, view in held[len(inputs) :]]


def _guarded(shape, dtype, content):
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.full(size + 2 * GUARD, 0xA5, np.uint8)
    view = memory[GUARD : GUARD + size].view(dtype).reshape(shape)
    if content is not None:
        view[...] = content
    return memory, view


def _wrapped(number: int, kernel: Kernel) -> str:
    """A namespace for one kernel, and what calls it with an array of pointers."""
    half = "#define HALF 1\n" in kernel.source
    weightless = kernel.entry != "cluster_assign" and "#define WEIGHTED 0\n" in kernel.source
    count = kernel.source.count("__restrict__", kernel.source.index('extern "C"')) - weightless
    casts = ", ".join(f"Any{{arguments[{i}]}}" for i in range(count))
    source = kernel.source.replace('extern "C"', "static")
    return f"""
#undef HALF
#undef WEIGHTED
namespace k{number} {{
struct Any {{ void* held; template <class T> operator T*() const {{ return static_cast<T*>(held); }} }};
using ::load;
{"inline unsigned short store(float value) { return store_half(value); }" if half else ""}
{source}
void body(void* const* arguments) {{ {kernel.entry}({casts}); }}
}}
extern "C" int run{number}(void* const* arguments, unsigned blocks, unsigned threads, unsigned order) {{
    return run(k{number}::body, arguments, blocks, threads, order);
}}
"""
