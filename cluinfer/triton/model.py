"""The model that Triton's Python backend runs: a runtime on the model.clu beside this file.

Requests that the server has batched are run as one batch; what is wrong with one is that one's error. Its images get
the bits that they would get alone.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from cluinfer import Runtime
from cluinfer.engines.hardware import cores
from cluinfer.errors import PictureError, one_line
from cluinfer.graph import INPUT
from cluinfer.preprocess import check_tensor, open_bytes, prepare

PICTURE = "picture"

_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = [ctypes.py_object, ctypes.c_char_p]


class TritonPythonModel:
    """One instance of the model; the server calls its methods."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the artifact."""
        config = json.loads(arguments["model_config"])
        threads = config["parameters"].get("threads")
        folder = Path(arguments["model_repository"], arguments["model_version"])
        self.runtime = Runtime(folder / "model.clu", threads=None if threads is None else int(threads["string_value"]))
        self.outputs = [each["name"] for each in config["output"]]
        self.kinds = {each["name"]: triton.triton_string_to_numpy(each["data_type"]) for each in config["output"]}
        self.readers = ThreadPoolExecutor(cores(), "cluinfer-reader")  # pictures that wait together are decoded so

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request."""
        responses: list[Any] = [None] * len(requests)
        tensors: dict[int, Any] = {}
        read = self.readers.map if len(requests) > 1 else map
        for i, got in enumerate(read(self.read, requests)):
            if isinstance(got, Exception):
                responses[i] = _failed(got)
            else:
                tensors[i] = got
        try:
            made = self.runtime.run(_joined(list(tensors.values()))) if tensors else {}
        except Exception as error:  # of the engine; the server must live, and every request must have its answer
            return [_failed(error) if i in tensors else response for i, response in enumerate(responses)]
        start = 0
        for i, tensor in tensors.items():
            wanted = set(requests[i].requested_output_names()) or set(self.outputs)
            stop = start + len(tensor)
            parts = [_given(name, made[name][start:stop], self.kinds[name]) for name in self.outputs if name in wanted]
            responses[i], start = triton.InferenceResponse(parts), stop
        return responses

    def read(self, request: Any) -> Any:
        """The images of a request, or what is wrong with it."""
        try:
            return self.tensor(request)
        except Exception as error:  # ours, or a tensor that the backend cannot hand over
            return error

    def tensor(self, request: Any) -> Any:
        """The images of a request, float32 [n, 3, height, width]."""
        image, picture = (triton.get_input_tensor_by_name(request, name) for name in (INPUT, PICTURE))
        if (image is None) == (picture is None):
            raise PictureError(f"wanted either {INPUT} or {PICTURE}, got {'neither' if image is None else 'both'}")
        promise = self.runtime.promise
        if image is not None:
            return check_tensor(np.from_dlpack(image), promise.size)

        content = np.from_dlpack(picture)
        if len(content) != 1:
            raise PictureError(f"wanted one {PICTURE} a request, got {len(content)}; the server makes the batches")
        return prepare(open_bytes(content.tobytes()), promise.size, promise.preprocess)[None]

    def finalize(self) -> None:
        """Free all of it."""
        self.readers.shutdown()
        self.runtime.close()


def _joined(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


class _Lent:
    """An array for the server to copy."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        self.capsule = self.array.__dlpack__()
        return self.capsule

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def _given(name: str, array: Any, kind: Any) -> Any:
    """An output. Through DLPack: the backend takes arrays to be of NumPy 1, and finds no bytes in those of 2."""
    lent = _Lent(np.require(array, kind, ("C", "W")))
    made = triton.Tensor.from_dlpack(name, lent)
    _rename(lent.capsule, b"used_dltensor")  # the backend calls it used_dlpack, of which NumPy complains
    return made


def _failed(error: Exception) -> Any:
    kind = triton.TritonError.INVALID_ARG if isinstance(error, PictureError) else triton.TritonError.INTERNAL
    return triton.InferenceResponse(error=triton.TritonError(one_line(str(error)) or type(error).__name__, kind))
