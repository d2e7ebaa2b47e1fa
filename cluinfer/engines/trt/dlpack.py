"""Arrays on the GPU by DLPack, in and out: capsules that name memory, without a copy.

A capsule is taken once, and then told when it is no longer needed. One that is given owns its memory: whoever takes it
frees it, and it frees itself where nobody does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from cluinfer.errors import ShapeError

CUDA = 2  # of DLDeviceType
_KINDS = {0: "i", 1: "u", 2: "f"}  # of DLDataTypeCode, as NumPy writes them
_FRESH, _TAKEN = b"dltensor", b"used_dltensor"  # names of a capsule


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


_api = ctypes.pythonapi
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_is_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
# the same, of a capsule that is about to end and may not be counted again
_ends_as = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_at_end = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(("PyCapsule_New", _api))


class Taken:
    """What a capsule held, with __cuda_array_interface__; `release` when it is no longer needed."""

    def __init__(self, name: str, capsule: object) -> None:
        if not _is_named(capsule, _FRESH):
            raise ShapeError(f"{name} is no DLPack capsule, or one that was taken already")
        self._at = int(_pointer_of(capsule, _FRESH))
        _rename(capsule, _TAKEN)
        held = _Managed.from_address(self._at).tensor
        self.device_type = int(held.device_type)
        kind = _KINDS.get(held.code)
        if kind is None or held.lanes != 1 or held.bits not in (8, 16, 32, 64) or (kind == "f" and held.bits == 8):
            self.release()
            raise ShapeError(f"{name} has numbers that NumPy does not know (DLPack code {held.code}, {held.bits} bits)")
        size = held.bits // 8
        shape = tuple(held.shape[: held.ndim])
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": np.dtype(f"{kind}{size}").str,
            "data": ((held.data or 0) + held.byte_offset, False),
            "strides": tuple(each * size for each in held.strides[: held.ndim]) if held.strides else None,
        }

    def release(self) -> None:
        """Tell its owner, once."""
        if self._at:
            deleter, at = _Managed.from_address(self._at).deleter, self._at
            self._at = 0
            if deleter:
                deleter(at)


def take(name: str, given: Any, stream: int) -> Taken:
    """A capsule, or what gives one on the GPU; what writes it is then done, or on this stream."""
    if hasattr(given, "__dlpack__"):
        kind = int(given.__dlpack_device__()[0])
        if kind != CUDA:
            raise ShapeError(f"{name} must be an array on the GPU, its DLPack device is {kind}")
        given = given.__dlpack__(stream=stream)
    taken = Taken(name, given)
    if taken.device_type != CUDA:
        taken.release()
        raise ShapeError(f"{name} must be an array on the GPU, its DLPack device is {taken.device_type}")
    return taken


def is_capsule(given: object) -> bool:
    """Whether it is one, by whatever name."""
    return type(given).__name__ == "PyCapsule"


_given: dict[int, tuple[Any, ...]] = {}  # what lives until its capsule's memory is freed


def give(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], free: Callable[[], None]) -> object:
    """A capsule that owns this memory: `free` is called once, in any thread."""
    sides = (ctypes.c_int64 * len(shape))(*shape)
    code = next(code for code, kind in _KINDS.items() if kind == dtype.kind)
    managed = _Managed()
    managed.tensor = _Tensor(pointer, CUDA, 0, len(shape), code, 8 * dtype.itemsize, 1, sides, None, 0)
    managed.deleter = _deleter
    at = ctypes.addressof(managed)
    _given[at] = (managed, sides, free)
    return _new(at, _FRESH, _destructor)


def _delete(at: int) -> None:
    held = _given.pop(at, None)
    if held is not None:
        held[2]()


def _end(capsule: int) -> None:
    """A capsule that nobody has taken."""
    if _ends_as(capsule, _FRESH):
        _delete(_pointer_at_end(capsule, _FRESH))


_deleter, _destructor = _Deleter(_delete), _Destructor(_end)
