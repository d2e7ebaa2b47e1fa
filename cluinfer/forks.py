"""Processes made by fork: what an engine began before is neither whole nor safe there.

A fork copies the memory and one thread. An engine's own threads are gone, and locks that they held stay held. Measured
with OpenVINO 2026.4: a compiled model of the parent waits for ever in the child, a model loaded anew there sometimes
does, and so does the end of the process when it frees one. ONNX Runtime 1.31 waits for ever at the end of any child,
for a thread that importing it has started. So

- what is watched here is told that it is in a child; it must neither use nor free what its engine made;
- sessions of a forked process run in another (`engine_process`);
- a forked process ends without the clean-up of C libraries, as those of multiprocessing do.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol
from weakref import WeakSet


class Watched(Protocol):
    """What wants to know that it is in a child now."""

    def after_fork(self) -> None:
        """Called in the child, in the only thread there is, before anything else."""


_watched: WeakSet[Any] = WeakSet()
_engines_used = False
_in_child = False


def use_engines() -> None:
    """To be called before an engine's package does anything in this process."""
    global _engines_used
    _engines_used = True
    _listen()


def watch(each: Watched) -> None:
    """Have `after_fork` called on this object, as long as it lives."""
    _watched.add(each)
    _listen()


def engines_unsafe() -> bool:
    """Whether this process was forked from one in which engines had been used."""
    return _in_child


def keep_for_ever(each: object) -> None:
    """Never free this object, nor what it holds, not even when Python ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def _after_fork() -> None:
    global _in_child
    if _engines_used and not _in_child:
        _in_child = True
        _end_without_clean_up()
    for each in list(_watched):
        each.after_fork()


def _end_without_clean_up() -> None:
    """Have the C library call _exit(status) before the clean-up that was asked for in the parent; glibc can."""
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)


_listening = False


def _listen() -> None:
    """Not at import, which has no side effects."""
    global _listening
    if not _listening and hasattr(os, "register_at_fork"):
        _listening = True
        os.register_at_fork(after_in_child=_after_fork)
