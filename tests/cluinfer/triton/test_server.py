"""Triton Inference Server, the real one, on a repository that `cluinfer package` wrote; one server for the file."""

from __future__ import annotations

import io
import os
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from conftest import BuiltModel
from PIL import Image

from benchmarks.triton_server import Server, missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from cluinfer import Runtime
from cluinfer.artifact import read_artifact
from cluinfer.cli import main
from cluinfer.graph import LOGITS
from cluinfer.triton import Serving, package

PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
CLIENTS = 16
BATCH = 4


@pytest.fixture(scope="module")
def repository(built_model: BuiltModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    batched = folder / "batched.clu"
    build = ["build", str(built_model.graph), "-o", str(batched), "--batch", str(BATCH), "--threads", "1"]
    assert main(build) == 0
    package(built_model.artifact, folder / "repository", "single", Serving(pictures=True, threads=1))
    package(batched, folder / "repository", "batched", Serving(maps=(), threads=1, delay=2000))
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with Server(repository, "single", "batched") as running:
        yield running


@pytest.fixture(params=list(PROTOCOLS))
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    with connect(request.param, server) as made:
        yield made


def connect(protocol: str, server: Server) -> Any:
    """To be closed: the server waits for those that are not when it ends."""
    return PROTOCOLS[protocol].InferenceServerClient(getattr(server, protocol))


def given(client: Any, name: str, array: Any, kind: str) -> Any:
    made = PROTOCOLS["http" if isinstance(client, tritonclient.http.InferenceServerClient) else "grpc"].InferInput(
        name, list(array.shape), kind
    )
    made.set_data_from_numpy(array)
    return made


def image(client: Any, array: Any) -> list[Any]:
    return [given(client, "image", array, "FP32")]


def picture(client: Any, content: bytes) -> list[Any]:
    return [given(client, "picture", np.frombuffer(content, np.uint8)[None], "UINT8")]


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32), dtype=np.float32)


def same(answer: Any, wanted: dict[str, Any]) -> bool:
    return all(
        (got := answer.as_numpy(name)).dtype == each.dtype and np.array_equal(got, each)
        for name, each in wanted.items()
    )


def test_what_the_server_says_of_the_model(client: Any, built_model: BuiltModel) -> None:
    assert client.is_server_ready() and client.is_model_ready("single") and client.is_model_ready("batched")
    metadata = client.get_model_metadata("single")
    outputs = metadata["outputs"] if isinstance(metadata, dict) else metadata.outputs
    names = [each["name"] if isinstance(each, dict) else each.name for each in outputs]
    assert names == list(read_artifact(built_model.artifact).manifest.promise.outputs)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_answers_are_the_runtime_s_own(client: Any, built_model: BuiltModel, count: int) -> None:
    with Runtime(built_model.artifact, threads=1) as runtime:
        wanted = runtime.run(images(count))
    assert same(client.infer("single", image(client, images(count))), wanted)


def test_pictures_are_prepared_as_the_runtime_does(client: Any, built_model: BuiltModel) -> None:
    with Runtime(built_model.artifact, threads=1) as runtime:
        for name in ("a.png", "b.jpg"):
            path = built_model.pictures / name
            answer = client.infer("single", picture(client, path.read_bytes()))
            np.testing.assert_array_equal(answer.as_numpy(LOGITS)[0], runtime(path).logits)


def test_labels_are_the_classes(server: Server, built_model: BuiltModel) -> None:
    client = connect("grpc", server)
    wanted = [tritonclient.grpc.InferRequestedOutput(LOGITS, class_count=1)]
    best = client.infer("single", image(client, images(1)), outputs=wanted).as_numpy(LOGITS)[0, 0].decode()
    with Runtime(built_model.artifact, threads=1) as runtime:
        assert best.split(":")[2] == runtime(images(1))[0].top(1)[0].name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_clients_at_once_get_the_bits_they_would_get_alone(
    server: Server, repository: Path, protocol: str
) -> None:
    rounds = 8
    inputs = images(CLIENTS * rounds, 1)
    with Runtime(repository / "batched/1/model.clu", threads=1) as runtime:
        wanted = [runtime.run(each[None])[LOGITS] for each in inputs]

    def ask(number: int) -> list[bool]:
        client = connect(protocol, server)
        found = []
        for i in range(number, len(inputs), CLIENTS):
            answer = client.infer("batched", image(client, inputs[i][None]))
            found.append(np.array_equal(answer.as_numpy(LOGITS), wanted[i]) and answer.as_numpy(LOGITS).size == 3)
        client.close()
        return found

    before = batches(server)
    with ThreadPoolExecutor(CLIENTS) as pool:
        right = [each for found in pool.map(ask, range(CLIENTS)) for each in found]
    assert right == [True] * len(inputs)
    assert batches(server) - before < len(inputs), "nothing was batched"


def batches(server: Server) -> int:
    """How many batches the model has run, as the metrics say."""
    return int(metric(server, 'nv_inference_exec_count{model="batched"'))


def metric(server: Server, start: str) -> float:
    with urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(start)).split()[-1])


def test_what_is_wrong_with_a_request_is_its_own_error(client: Any, built_model: BuiltModel) -> None:
    jpeg = (built_model.pictures / "b.jpg").read_bytes()
    whole = images(1)
    wrong = {
        "Expected": ("single", image(client, whole[:, :, :16])),
        "FP64": ("single", [given(client, "image", whole.astype(np.float64), "FP64")]),
        "unexpected inference input 'photo'": ("single", [given(client, "photo", whole, "FP32")]),
        "unknown model": ("none", image(client, whole)),
        "batch-size must be <= 8": ("single", image(client, images(9))),
        "NaN or infinity": ("single", image(client, whole * np.float32("nan"))),
        "damaged or cut short": ("single", picture(client, jpeg[: len(jpeg) // 2])),
        "no format that Pillow reads": ("single", picture(client, b"no picture")),
        "got both": ("single", [*image(client, whole), *picture(client, jpeg)]),
    }
    for message, (model, inputs) in wrong.items():
        with pytest.raises(InferenceServerException, match=message) as raised:
            client.infer(model, inputs)
        assert "Traceback" not in str(raised.value)
    assert client.is_server_ready()
    with Runtime(built_model.artifact, threads=1) as runtime:
        assert same(client.infer("single", image(client, whole)), runtime.run(whole))


def test_a_bad_picture_in_a_batch_costs_the_others_nothing(server: Server, built_model: BuiltModel) -> None:
    good, jpeg = images(1, 3), (built_model.pictures / "b.jpg").read_bytes()
    with Runtime(built_model.artifact, threads=1) as runtime:
        wanted = runtime.run(good)
    client = connect("grpc", server)
    answers: queue.Queue[tuple[bool, Any, Any]] = queue.Queue()
    for i in range(40):
        bad = i % 4 == 0
        inputs = picture(client, jpeg[:200]) if bad else image(client, good)
        client.async_infer("single", inputs, lambda result, error, bad=bad: answers.put((bad, result, error)))
    for _ in range(40):
        bad, result, error = answers.get(timeout=30)
        assert (error is not None) == bad
        assert bad or same(result, wanted)


def test_large_pictures_of_different_sizes_are_batched(server: Server, built_model: BuiltModel) -> None:
    client = connect("grpc", server)
    random = np.random.default_rng(4)
    contents = []
    for i in range(8):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (40 + 30 * i, 60, 3), np.uint8)).save(file, "PNG")
        contents.append(file.getvalue())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: client.infer("single", picture(client, each)).as_numpy(LOGITS), contents))
    with Runtime(built_model.artifact, threads=1) as runtime:
        for content, answer in zip(contents, answers, strict=True):
            np.testing.assert_array_equal(answer[0], runtime(Image.open(io.BytesIO(content))).logits)


def test_a_worker_that_dies_takes_its_model_alone_and_loading_brings_it_back(client: Any, server: Server) -> None:
    os.kill(worker(server, "batched"), signal.SIGKILL)
    with pytest.raises(InferenceServerException, match=r"[Ss]tub process .*not healthy"):
        client.infer("batched", image(client, images(1)))
    assert client.is_server_live()
    assert client.infer("single", image(client, images(1))).as_numpy(LOGITS).shape == (1, 3)
    client.unload_model("batched")
    for _ in range(200):
        if not client.is_model_ready("batched"):
            break
    client.load_model("batched")
    assert client.infer("batched", image(client, images(1))).as_numpy(LOGITS).shape == (1, 3)


def worker(server: Server, model: str) -> int:
    """The process of the Python backend that runs this model."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (found,) = [int(each) for each in children if f"/{model}/".encode() in Path(f"/proc/{each}/cmdline").read_bytes()]
    return found


def test_a_model_is_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("batched")
    for _ in range(200):
        if not client.is_model_ready("batched"):
            break
    with pytest.raises(InferenceServerException, match=r"not ready|no available versions|not found|unknown model"):
        client.infer("batched", image(client, images(1)))
    client.load_model("batched")
    assert client.is_model_ready("batched")
    assert client.infer("batched", image(client, images(1))).as_numpy(LOGITS).shape == (1, 3)
