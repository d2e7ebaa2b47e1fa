"""The overhead of the runtime: what is compared, and when it is too much. No time is asserted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("onnx", "onnxruntime", "openvino", "torch"):
    pytest.importorskip(package)

from engine_cases import artifact, image  # noqa: E402

from benchmarks import overhead  # noqa: E402
from cluinfer import Runtime  # noqa: E402

NAMES = ["bare engine", "session.run", "runtime.run", "runtime(tensor)"]


def arguments(path: Path) -> argparse.Namespace:
    return argparse.Namespace(model=path, engine="ort", threads=1, rounds=3, json=True)


@pytest.mark.parametrize("engine", ["openvino", "ort"])
def test_the_bare_call_computes_the_same(tmp_path: Path, engine: str) -> None:
    with Runtime(artifact(tmp_path / "a.clu", engine)) as runtime:
        want = runtime.run(image(1))["logits"]
        outputs: Any = overhead.bare(runtime._opened().session, image(1))()
        np.testing.assert_array_equal(next(iter(outputs.values())) if engine == "openvino" else outputs[0], want)
        found = overhead.measure(runtime, 3)
    assert list(found["calls"]) == NAMES
    assert found["calls"]["bare engine"]["over_us"] == 0
    assert all(0 < row["minimum"] <= row["median"] for row in found["calls"].values())


@pytest.mark.parametrize(
    ("percent", "microseconds", "fails"), [(2.9, 500, False), (50, 99, False), (3.1, 101, True), (-1, -50, False)]
)
def test_what_is_too_much(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    percent: float,
    microseconds: float,
    fails: bool,
) -> None:
    row = {"median": 1.0, "minimum": 1.0, "over_us": microseconds, "over_percent": percent}
    monkeypatch.setattr(overhead, "measure", lambda *_: {"model": "m", "calls": {"runtime(tensor)": row}})
    if fails:
        with pytest.raises(SystemExit) as ended:
            overhead.run(arguments(artifact(tmp_path / "a.clu")))
        assert ended.value.code == 1
    else:
        overhead.run(arguments(artifact(tmp_path / "a.clu")))
    assert json.loads(capsys.readouterr().out)["calls"]["runtime(tensor)"] == row
