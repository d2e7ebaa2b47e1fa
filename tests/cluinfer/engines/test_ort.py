"""The ONNX Runtime engine; what holds for every engine is in test_contract.py."""

from __future__ import annotations

from typing import Any

import pytest

from cluinfer.engines import Options, get_engine
from cluinfer.engines.hardware import cores

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)

from onnx_models import clustering  # noqa: E402


def test_more_threads_than_cores_do_not_spin() -> None:
    """They would take the time from those at work: a call took minutes with some hundred threads."""
    engine: Any = get_engine("ort")
    blob = engine.compile(clustering().SerializeToString(), Options())

    def spins(**given: Any) -> bool:
        with engine.load(blob, Options(**given)) as session:
            settings = session._session.get_session_options()
            try:
                return bool(settings.get_session_config_entry("session.intra_op.allow_spinning") == "1")
            except RuntimeError:  # not set: as ONNX Runtime does by itself
                return True

    assert spins(threads=cores())
    assert not spins(threads=cores() + 1)
    assert not spins(threads=1, hint="throughput")
