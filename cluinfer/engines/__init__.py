"""The engines by name; none is imported, nor its package, before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from cluinfer.engines.base import Array, Engine, Options, Session
from cluinfer.errors import CluinferError, EngineError

__all__ = ["ENGINES", "Array", "Choice", "Engine", "Options", "Session", "choose_engine", "get_engine"]

ENGINES = {  # name: module, class; best first
    "trt": ("cluinfer.engines.tensorrt", "TensorRTEngine"),
    "openvino": ("cluinfer.engines.openvino", "OpenVINOEngine"),
    "ort": ("cluinfer.engines.ort", "ORTEngine"),
}


def get_engine(name: str) -> Engine:
    """The engine of this name, whether or not it can work here (`check` says that)."""
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r:.60}; there are: {', '.join(ENGINES)}")
    module, kind = ENGINES[name]
    engine: Engine = getattr(import_module(module), kind)()
    return engine


class Choice(NamedTuple):
    """An engine by name, and why it was chosen."""

    name: str
    why: str


def choose_engine() -> Choice:
    """The first of ENGINES that works on this machine."""
    passed: list[str] = []
    for name in ENGINES:
        try:
            get_engine(name).check()
        except CluinferError as error:
            passed.append(f"{name}: {error}")
        else:
            return Choice(name, "; ".join([*passed, f"{name} works here"]))
    raise EngineError(f"no engine works here: {'; '.join(passed)}")
