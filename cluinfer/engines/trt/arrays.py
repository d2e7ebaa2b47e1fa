"""Arrays on the GPU: what goes into an engine without a copy is checked, what comes out can be given on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluinfer.engines.base import Input
from cluinfer.engines.trt import dlpack
from cluinfer.engines.trt.gpu import Gpu, Memory
from cluinfer.errors import EngineError, ShapeError

LEGACY_STREAM = 1  # CUDA's name of the default stream, for which streams of ours do not wait by themselves


@dataclass(frozen=True)
class Port:
    """An input or output of the engine."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # -1 for the batch

    def of(self, batch: int) -> tuple[int, ...]:
        """Its shape for so many images."""
        return tuple(batch if side < 0 else side for side in self.shape)

    def bytes(self, batch: int) -> int:
        """Its size for so many images."""
        return math.prod(self.of(batch)) * self.dtype.itemsize


class GpuArray:
    """An output that lies on the GPU, for whoever knows __cuda_array_interface__ or DLPack.

    Freed with `free`, or by whoever takes it by `__dlpack__`, to whom it then belongs.
    """

    def __init__(self, gpu: Gpu, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._gpu, self._memory = gpu, memory
        self.shape, self.dtype = shape, dtype
        self._ours = True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Complete: whoever takes it need not wait for a stream."""
        self._check()
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._memory.pointer, False),
            "strides": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """The first GPU."""
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int | None = None, **ignored: object) -> object:
        """A capsule to which the memory belongs, once; it is complete, whatever the stream."""
        self._check()
        self._ours = False
        return dlpack.give(self._memory.pointer, self.shape, self.dtype, self._free)

    def free(self) -> None:
        """Give the memory back; twice, and after somebody has taken it, is harmless."""
        if self._ours:
            self._ours = False
            self._free()

    def _free(self) -> None:
        self._gpu.activate()
        self._memory.free()

    def _check(self) -> None:
        if not self._ours:
            raise EngineError("the array was freed, or given away by __dlpack__")


def check_gpu_arrays(feeds: Mapping[str, Any], inputs: Sequence[Port]) -> tuple[dict[str, int], int]:
    """Where they lie, and how many images they are."""
    if set(feeds) != {port.name for port in inputs}:
        raise ShapeError(f"inputs {sorted(port.name for port in inputs)} are wanted, got {sorted(feeds)}")
    pointers, batches = {}, set()
    for port in inputs:
        said = getattr(feeds[port.name], "__cuda_array_interface__", None)
        if said is None:
            raise ShapeError(f"{port.name} must be an array on the GPU, got {type(feeds[port.name]).__name__}")
        shape, dtype = tuple(said["shape"]), np.dtype(said["typestr"])
        if dtype != port.dtype or len(shape) != len(port.shape) or shape != port.of(shape[0]):
            wanted = Input((None, *port.shape[1:]), port.dtype.name)
            raise ShapeError(f"{port.name} must be {wanted}, got {dtype} {list(shape)}")
        strides = said.get("strides")
        whole = zip(shape, strides or (), _strides(shape, dtype.itemsize), strict=False)
        if strides is not None and any(side > 1 and given != wanted for side, given, wanted in whole):
            raise ShapeError(f"{port.name} must be C-contiguous on the GPU")
        if said.get("mask") is not None:
            raise ShapeError(f"{port.name} has a mask, which the engine cannot heed")
        if shape[0] and not said["data"][0]:
            raise ShapeError(f"{port.name} is at address 0: it was freed, or lies elsewhere")
        pointers[port.name] = int(said["data"][0])
        batches.add(shape[0])
    if len(batches) != 1 or 0 in batches:
        raise ShapeError("the inputs have different batches, or none")
    return pointers, batches.pop()


def stream_of(said: Mapping[str, Any]) -> int:
    """What is to be waited for; 0 for nothing. Before version 3 nobody says: the default stream, as PyTorch uses it."""
    if "stream" in said:
        return int(said["stream"] or 0)
    return LEGACY_STREAM if said.get("version", 0) < 3 else 0


def _strides(shape: Sequence[int], size: int) -> tuple[int, ...]:
    strides = [size]
    for side in reversed(shape[1:]):
        strides.append(strides[-1] * side)
    return tuple(reversed(strides))
