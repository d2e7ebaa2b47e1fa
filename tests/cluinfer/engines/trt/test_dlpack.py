"""Capsules of NumPy and PyTorch, read by the part that takes those of a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from cluinfer.engines.trt.dlpack import Taken, take
from cluinfer.errors import ShapeError


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8])
def test_what_a_capsule_says(dtype: type) -> None:
    array = np.arange(48).astype(dtype).reshape(2, 4, 6)[:, 1:, ::2]
    taken = Taken("image", array.__dlpack__())
    said = taken.__cuda_array_interface__
    assert (said["shape"], said["strides"], said["data"][0]) == (array.shape, array.strides, array.ctypes.data)
    assert np.dtype(said["typestr"]) == array.dtype
    taken.release()
    taken.release()


def test_pytorch_and_its_offsets() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(4, 5)[1:]
    assert Taken("x", tensor.__dlpack__()).__cuda_array_interface__["data"][0] == tensor.data_ptr()
    with pytest.raises(ShapeError, match="numbers that NumPy does not know"):
        Taken("x", torch.zeros(2, dtype=torch.bfloat16).__dlpack__())


def test_what_is_not_on_the_gpu() -> None:
    array = np.zeros((1, 3), np.float32)
    for given in (array, array.__dlpack__()):
        with pytest.raises(ShapeError, match="image must be an array on the GPU, its DLPack device is 1"):
            take("image", given, 1)
    with pytest.raises(ShapeError, match="no DLPack capsule"):
        take("image", "text", 1)
