"""Whole networks through TensorRT on a GPU, against the same graph in ONNX Runtime."""

from __future__ import annotations

import threading

import engine_cases
import numpy as np
import pytest

from cluinfer.engines import Options, get_engine
from cluinfer.engines.trt.builder import parse_version
from cluinfer.engines.trt.settings import Settings
from cluinfer.errors import EngineError

tensorrt = pytest.importorskip("tensorrt")
HOW = [False, True] if parse_version(tensorrt.__version__) >= (10, 9) else [False]


@pytest.fixture(scope="module", params=HOW, ids=lambda plugins: "plugins" if plugins else "standard")
def blobs(request: pytest.FixtureRequest) -> dict[str, bytes]:
    options = Options(batch=2, own=Settings(profile=(1, 2, 4), plugins=request.param))
    return {family: get_engine("trt").compile(engine_cases.small(family), options) for family in engine_cases.SMALL}


@pytest.mark.parametrize("family", engine_cases.SMALL)
@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_the_same_as_onnx_runtime(blobs: dict[str, bytes], family: str, batch: int) -> None:
    with get_engine("trt").load(blobs[family], Options(batch=2, streams=2)) as session:
        for _ in range(4):  # the second run in a row is recorded, those that follow are replayed
            got = session.run({"image": engine_cases.image(batch)})
            engine_cases.assert_same(got, engine_cases.in_onnx_runtime(family, batch))


def test_many_threads(blobs: dict[str, bytes]) -> None:
    wrong = []
    with get_engine("trt").load(blobs["fec"], Options(batch=2, streams=2)) as session:

        def work(batch: int) -> None:
            for _ in range(20):
                got = session.run({"image": engine_cases.image(batch)})
                try:
                    engine_cases.assert_same(got, engine_cases.in_onnx_runtime("fec", batch))
                except AssertionError as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert not wrong


def test_arrays_on_the_gpu(blobs: dict[str, bytes]) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch without CUDA")
    with get_engine("trt").load(blobs["coc"], Options(batch=2)) as session:
        held = torch.from_numpy(engine_cases.image(2)).cuda()
        made = session.run_on_gpu({"image": held})  # type: ignore[attr-defined]
        got = {name: torch.as_tensor(array, device="cuda").cpu().numpy() for name, array in made.items()}
        [array.free() for array in made.values()]
    engine_cases.assert_same(got, engine_cases.in_onnx_runtime("coc", 2))


def test_an_engine_of_another_gpu(blobs: dict[str, bytes]) -> None:
    here = get_engine("trt").machine()["capability"].encode()
    foreign = blobs["fec"].replace(b'"capability":"%s"' % here, b'"capability":"5.0"', 1)
    with pytest.raises(EngineError, match=r"compute capability 5\.0"):
        get_engine("trt").load(foreign, Options(batch=2))


def test_a_damaged_engine(blobs: dict[str, bytes]) -> None:
    head, _, content = blobs["fec"].partition(b"\n")
    with pytest.raises(EngineError, match="cannot load the engine"):
        get_engine("trt").load(head + b"\n" + content[: len(content) // 2], Options(batch=2))


def test_the_same_bits_again(blobs: dict[str, bytes]) -> None:
    with get_engine("trt").load(blobs["coc"], Options(batch=2)) as session:
        first, second = (session.run({"image": engine_cases.image(2)}) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
