"""cluinfer: deploy vision models that see by clustering, and keep their clusters visible.

This is the target side: importing it loads nothing else; NumPy, Pillow and the runtime come with the first name of
theirs that is asked for. The build side (`cluinfer.export`, `cluinfer.calibration`) is imported by name.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from cluinfer.errors import CluinferError

if _TYPE_CHECKING:
    from cluinfer.prediction import Prediction
    from cluinfer.runtime import Failure, Runtime

__version__ = "0.1.0"
__all__ = ["CluinferError", "Failure", "Prediction", "Runtime", "__version__"]

_MODULE_OF = {"Failure": "runtime", "Prediction": "prediction", "Runtime": "runtime"}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
