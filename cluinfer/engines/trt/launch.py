"""The kernels without TensorRT: the same PTX, launched by the driver with the arguments that TensorRT would give.

For tests and measurements on a GPU (tests/gpu, benchmarks/gpu.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluinfer.engines.base import Array
from cluinfer.engines.trt.gpu import Memory, Pinned, Stream, checked, driver, gpu
from cluinfer.native.cuda import Kernel
from cluinfer.native.cuda.nvrtc import compile_ptx


class Loaded:
    """A kernel on the GPU."""

    def __init__(self, kernel: Kernel) -> None:
        gpu().activate()
        self.kernel = kernel
        self._module = checked(driver().cuModuleLoadData(compile_ptx(kernel, gpu().target)), "the PTX does not load")
        self._function = checked(driver().cuModuleGetFunction(self._module, kernel.entry.encode()))

    def launch(self, groups: int, pointers: Sequence[int], stream: int) -> None:
        """Inputs, then outputs, as pointers to GPU memory."""
        if not groups:
            return
        values = np.array(pointers, np.uint64)
        places = np.array([values.ctypes.data + 8 * i for i in range(len(values))], np.uint64)
        grid, block = self.kernel.blocks * groups, self.kernel.threads
        checked(
            driver().cuLaunchKernel(self._function, grid, 1, 1, block, 1, 1, 0, stream, places.ctypes.data, 0),
            f"{self.kernel.entry} does not start",
        )

    def free(self) -> None:
        """Unload it."""
        checked(driver().cuModuleUnload(self._module))


def run(kernel: Kernel, inputs: Sequence[Array], outputs: Sequence[tuple[tuple[int, ...], Any]]) -> list[Array]:
    """Run it once on NumPy arrays; outputs are (shape, dtype)."""
    loaded, stream = Loaded(kernel), Stream()
    sizes = [array.nbytes for array in inputs]
    sizes += [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in outputs]
    host, device = [Pinned(size) for size in sizes], [Memory(size) for size in sizes]
    try:
        for array, at, to in zip(inputs, host, device, strict=False):
            at.bytes[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            stream.copy_in(to, at, array.nbytes)
        loaded.launch(len(inputs[0]), [memory.pointer for memory in device], stream.handle)
        made = []
        for (shape, kind), at, source, size in zip(
            outputs, host[len(inputs) :], device[len(inputs) :], sizes[len(inputs) :], strict=True
        ):
            stream.copy_out(at, source, size)
            stream.wait()
            made.append(at.bytes[:size].view(kind).reshape(shape).copy())
        return made
    finally:
        for pinned in host:
            pinned.free()
        for memory in device:
            memory.free()
        stream.free()
        loaded.free()
