"""What needs an NVIDIA GPU; skipped where there is none. All of it: pytest tests/gpu

Under NVIDIA's checker: compute-sanitizer --tool memcheck python -m pytest -p no:xdist tests/gpu/test_kernels.py
(and --tool racecheck, --tool initcheck).
"""

import pytest

from cluinfer.engines.trt.gpu import gpu
from cluinfer.errors import CluinferError


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        gpu()
    except CluinferError as error:
        for item in items:
            if "gpu" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason=str(error)))
