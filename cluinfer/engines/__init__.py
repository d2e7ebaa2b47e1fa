"""The engines by name; none is imported, nor its package, before it is asked for."""

from __future__ import annotations

from importlib import import_module

from cluinfer.engines.base import Array, Engine, Options, Session
from cluinfer.errors import EngineError

__all__ = ["ENGINES", "Array", "Engine", "Options", "Session", "get_engine"]

ENGINES = {"openvino": ("cluinfer.engines.openvino", "OpenVINOEngine")}  # name: module, class


def get_engine(name: str) -> Engine:
    """The engine of this name, whether or not it can work here (`check` says that)."""
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}; there are: {', '.join(ENGINES)}")
    module, kind = ENGINES[name]
    engine: Engine = getattr(import_module(module), kind)()
    return engine
