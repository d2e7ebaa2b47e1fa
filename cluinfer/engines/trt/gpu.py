"""The GPU, its memory and its streams, by the driver's own interface: nothing of CUDA but the driver is needed.

Every thread that touches the GPU calls `Gpu.activate` first. What is allocated here is freed by `free`, once; nothing
is freed by the garbage collector, which may run in any thread and after the driver has gone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from cluinfer.engines.base import Array
from cluinfer.errors import EngineError, MissingPackageError


def check_driver() -> None:
    """Whether there may be a GPU at all, found out without any package."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise EngineError("no NVIDIA GPU with a driver here") from error


class Gpu:
    """The first GPU that this process may see."""

    def __init__(self) -> None:
        check_driver()
        api = driver()
        checked(api.cuInit(0), "no NVIDIA GPU works here")
        if not checked(api.cuDeviceGetCount()):
            raise EngineError("the trt engine needs an NVIDIA GPU: there is none that this process may see")
        self._device = checked(api.cuDeviceGet(0))
        self.name = bytes(checked(api.cuDeviceGetName(96, self._device))).partition(b"\0")[0].decode()
        kinds = api.CUdevice_attribute
        major, minor = (
            int(checked(api.cuDeviceGetAttribute(kind, self._device)))
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.capability = f"{major}.{minor}"
        self.target = f"sm_{major}{minor}"
        version = int(checked(api.cuDriverGetVersion()))
        self.cuda = (version // 1000, version % 1000 // 10)  # the newest CUDA that the driver knows
        self._context = checked(api.cuDevicePrimaryCtxRetain(self._device))

    def activate(self) -> None:
        """Work on this GPU in this thread."""
        checked(driver().cuCtxSetCurrent(self._context))

    def wait_for(self, stream: int) -> None:
        """Until what somebody's stream holds is done; 1 and 2 are CUDA's names of its default streams."""
        checked(driver().cuStreamSynchronize(driver().CUstream(stream)))

    def check_ptx_of(self, cuda: str) -> None:
        """Refuse a compiler whose PTX the driver would refuse."""
        if tuple(map(int, cuda.split("."))) > self.cuda:
            here = ".".join(map(str, self.cuda))
            raise EngineError(
                f"NVRTC is of CUDA {cuda}, the driver knows CUDA up to {here} and would refuse the kernels: "
                f"pip install 'nvidia-cuda-nvrtc=={here}.*', or update the driver"
            )


@lru_cache(maxsize=1)
def gpu() -> Gpu:
    """The GPU here; an EngineError where there is none."""
    return Gpu()


class Memory:
    """Memory of the GPU."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = int(checked(driver().cuMemAlloc(max(size, 1)), f"the GPU has no {size >> 20} MiB left"))

    def free(self) -> None:
        """Give it back."""
        checked(driver().cuMemFree(self.pointer))


class Pinned:
    """Memory of the host that the GPU copies from and to by itself, as bytes."""

    def __init__(self, size: int) -> None:
        self.pointer = int(checked(driver().cuMemHostAlloc(max(size, 1), 0), "no memory can be pinned"))
        held = (ctypes.c_uint8 * max(size, 1)).from_address(self.pointer)
        self.bytes: Array = np.ctypeslib.as_array(held)

    def free(self) -> None:
        """Give it back; nobody may hold a view of `bytes` then."""
        checked(driver().cuMemFreeHost(self.pointer))


class Stream:
    """Work in order, beside that of other streams; a stretch of it can be recorded and run as one."""

    def __init__(self) -> None:
        api = driver()
        flag = api.CUstream_flags.CU_STREAM_NON_BLOCKING
        self._stream = checked(api.cuStreamCreate(flag))
        self.handle = int(self._stream)

    def copy_in(self, to: Memory, source: Pinned, size: int) -> None:
        """To the GPU."""
        checked(driver().cuMemcpyHtoDAsync(to.pointer, source.pointer, size, self._stream))

    def copy_out(self, to: Pinned, source: Memory, size: int) -> None:
        """From the GPU."""
        checked(driver().cuMemcpyDtoHAsync(to.pointer, source.pointer, size, self._stream))

    def wait(self) -> None:
        """Until everything is done; an error of a kernel shows here."""
        checked(driver().cuStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> Any | None:
        """The work as a CUDA graph; nothing of it is done. None where it cannot be recorded."""
        api = driver()
        mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            checked(api.cuStreamBeginCapture(self._stream, mode))
            work()
        except BaseException as error:  # Ctrl-C as well: a stream left recording would do nothing any more
            if (graph := self._end_recording()) is not None:
                api.cuGraphDestroy(graph)
            if isinstance(error, EngineError):
                return None
            raise
        graph = self._end_recording()
        if graph is None:
            return None
        made, ready = api.cuGraphInstantiate(graph, 0)
        api.cuGraphDestroy(graph)
        return ready if made == api.CUresult.CUDA_SUCCESS else None

    def _end_recording(self) -> Any | None:
        """What was recorded, to be destroyed; None where that failed."""
        result, graph = driver().cuStreamEndCapture(self._stream)
        return graph if result == driver().CUresult.CUDA_SUCCESS else None

    def replay(self, graph: Any) -> None:
        """Do what was recorded."""
        checked(driver().cuGraphLaunch(graph, self._stream))

    def forget(self, graph: Any) -> None:
        """Free what was recorded."""
        checked(driver().cuGraphExecDestroy(graph))

    def mark(self, event: Event) -> None:
        """The event happens when all that came before it is done."""
        checked(driver().cuEventRecord(event.handle, self._stream))

    def free(self) -> None:
        """Give it back."""
        checked(driver().cuStreamDestroy(self._stream))


class Event:
    """A moment in a stream."""

    def __init__(self) -> None:
        self.handle = checked(driver().cuEventCreate(driver().CUevent_flags.CU_EVENT_DEFAULT))

    def since(self, earlier: Event) -> float:
        """Seconds between two that have happened."""
        return float(checked(driver().cuEventElapsedTime(earlier.handle, self.handle))) / 1e3

    def free(self) -> None:
        """Give it back."""
        checked(driver().cuEventDestroy(self.handle))


def checked(answer: tuple[Any, ...], what: str = "") -> Any:
    """What the driver answers beside its result; what it refuses is an EngineError."""
    result, *values = answer
    api = driver()
    if result != api.CUresult.CUDA_SUCCESS:
        name = getattr(result, "name", result)
        raise EngineError(f"{what or 'the GPU fails'}: {name}")
    return values[0] if values else None


@lru_cache(maxsize=1)
def driver() -> Any:
    """cuda.bindings.driver."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingPackageError(f"the trt engine needs a package ({error}): pip install 'cluinfer[trt]'") from error
    return driver
