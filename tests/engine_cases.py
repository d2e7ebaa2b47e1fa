"""Small exported models and artifacts of them, for the tests of engines and of what runs them.

Each is exported and compiled once a process.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import golden_cases
import numpy as np

from cluinfer.artifact import Built, write_artifact
from cluinfer.engines import Options, get_engine
from cluinfer.export import to_onnx
from cluinfer.export.models import build
from cluinfer.export.models.config import config
from cluinfer.graph import KEY, Promise

SIZE = (32, 48)
SMALL = {
    "fec": config("fec", (1, 2), (16, 24), (2, 1), 8, (2, 2), (2, 1), (2, 2), num_classes=5, size=SIZE),
    "coc": config("coc", (2, 1), (16, 24), (2, 1), 8, (2, 2), (2, 1), (2, 2), num_classes=5, size=SIZE),
    "cluenet": config(
        "cluenet", (2, 1), (16, 24), (2, 1), 8, (2, 3), (1, 1), (2, 2), num_classes=5, size=SIZE, layer_scale=False
    ),
}


@cache
def small(family: str, similarities: bool = False) -> bytes:
    """Its graph, with every cluster map."""
    model = build(replace(SMALL[family])).eval()
    golden_cases.fill(model, "clue" if family == "cluenet" else family)
    return bytes(to_onnx(model, SIZE, maps="all", similarities=similarities).SerializeToString())


@cache
def in_onnx_runtime(family: str, batch: int, similarities: bool = False) -> dict[str, np.ndarray]:
    """What the plain graph gives for `image(batch)`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(small(family, similarities))
    outputs = session.run(None, {"image": image(batch)})
    return dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))


def image(batch: int) -> np.ndarray:
    return golden_cases.weights().image(1, (batch, 3, *SIZE))  # type: ignore[no-any-return]


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """The same outputs, as far as two engines agree."""
    assert set(got) == set(want)
    for name, expected in want.items():
        assert (got[name].shape, got[name].dtype) == (expected.shape, expected.dtype), name
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got[name], expected, atol=2e-4)
        else:
            assert (got[name] != expected).mean() <= 0.01, name


@cache
def promise(family: str) -> Promise:
    """What its graph says of itself."""
    import onnx

    properties = onnx.load_model_from_string(small(family)).metadata_props
    return Promise.from_json(next(each.value for each in properties if each.key == KEY))


@cache
def compiled(engine: str, family: str = "fec", batch: int = 1) -> bytes:
    return get_engine(engine).compile(small(family), Options(batch=batch))


def artifact(
    path: Path, engine: str = "ort", family: str = "fec", batch: int = 1, blob: bytes | None = b"", **changed: Any
) -> Path:
    """An artifact of a small model; `blob` None: without an engine; `changed`: fields of Built or of the promise."""
    kind = get_engine(engine)
    built = Built(engine, "fp32", "latency", batch, kind.versions(), kind.machine(), "2026-01-31")
    said = promise(family)
    for name, value in changed.items():
        built, said = (replace(x, **{name: value}) if hasattr(x, name) else x for x in (built, said))
    write_artifact(path, small(family), compiled(engine, family, batch) if blob == b"" else blob, said, built)
    return path
