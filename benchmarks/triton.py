"""What Triton Inference Server costs over the runtime: at batch 1 over gRPC, and with many clients that it batches.

Every answer is held against the runtime's own. `added_asleep_ms` is what the way there and back takes with a model that
sleeps for as long as this one computes: waking cores count too, and no model can do better. Exit code 1 if one was
wrong or lost, if the median latency grows by more than 1.5 ms, or if the clients get less than 85 % of the runtime's
own throughput in batches.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak import artifact
from benchmarks.triton_server import Server, missing
from cluinfer import Runtime
from cluinfer.artifact import read_artifact
from cluinfer.graph import INPUT, LOGITS
from cluinfer.triton import Serving, package

ADDED_MS, SHARE = 1.5, 85.0
IMAGES = 64  # different ones
TURN = 10  # calls; the first warms up again, as the other's threads and weights have had the cores and caches


# Added to a packaged model: all of it but the inference, for which it sleeps.
IDLE = """
import time


class TritonPythonModel(TritonPythonModel):
    def initialize(self, arguments):
        super().initialize(arguments)
        promise = self.runtime.promise
        answer = self.runtime.run(np.zeros((1, 3, *promise.size), np.float32))
        self.runtime.run = lambda _: time.sleep({seconds}) or answer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="an artifact; default: fec_small, built for --engine, batch 1")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--threads", type=int, help="of the engine")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=10_000, help="of all clients together (10000)")
    parser.add_argument("--rounds", type=int, default=300, help="calls in turns, to compare the latency (300)")
    parser.add_argument("--delay", type=int, default=0, help="microseconds that the server waits for a batch (0)")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> None:
    if reason := missing():
        sys.exit(reason)
    with artifact(arguments.model, arguments.engine) as path, tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        serving = Serving(threads=arguments.threads, delay=arguments.delay)
        made = package(path, repository, "model", serving)
        built = read_artifact(path).manifest.built
        package(path, repository, "single", Serving(threads=arguments.threads, max_batch=built.batch))
        with Runtime(path, threads=arguments.threads) as runtime:
            found: dict[str, Any] = {"model": repr(runtime), "max_batch": made.max_batch}
            shape = (IMAGES, 1, 3, *runtime.promise.size)
            images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            wanted = [runtime.run(image)[LOGITS] for image in images]
            with Server(repository, "single") as server:
                found |= latency(server, runtime.run, images, arguments.rounds)
            idle, seconds = repository / "single" / "1" / "model.py", found["runtime_ms"] / 1e3
            idle.write_text(idle.read_text() + IDLE.format(seconds=seconds))
            with Server(repository, "single") as server:
                asleep = latency(server, lambda _: time.sleep(seconds), images, arguments.rounds)
            found["added_asleep_ms"] = asleep["added_ms"]
            found |= throughput(runtime, np.concatenate(images), made.max_batch, arguments.requests)
        with Server(repository, "model") as server:  # alone: the runtime's threads are gone
            found |= load(server, images, wanted, arguments.clients, arguments.requests)
    found["share_percent"] = found["served_a_second"] / found["runtime_a_second"] * 100
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:20} {value:.2f}" if isinstance(value, float) else f"{name:20} {value}")
    if found["wrong"] or found["lost"] or found["added_ms"] > ADDED_MS or found["share_percent"] < SHARE:
        sys.exit(1)


def latency(server: Server, own: Callable[[Any], Any], images: Any, rounds: int) -> dict[str, float]:
    """Milliseconds of one image, over gRPC and by our own call here, in turns; the logits alone are asked for."""
    with _connected(server) as client:
        ways = {"served_ms": lambda image: _ask(client, "single", image), "runtime_ms": own}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for first in range(0, rounds + TURN, TURN):
            for name, call in ways.items():
                times = [_milliseconds(call, images[i % len(images)]) for i in range(first, first + TURN)]
                taken[name] += times[1:] if first else []
    found = {name: float(np.median(times)) for name, times in taken.items()}
    return found | {"added_ms": found["served_ms"] - found["runtime_ms"]}


def _milliseconds(call: Callable[[Any], Any], image: Any) -> float:
    start = time.perf_counter()
    call(image)
    return (time.perf_counter() - start) * 1e3


def throughput(runtime: Runtime, images: Any, batch: int, requests: int) -> dict[str, float]:
    """Images a second of the runtime, called with as many at once as the server hands over at most."""
    groups = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
    runtime.run(groups[0])
    start = time.perf_counter()
    rounds = max(requests // batch, 1)
    for i in range(rounds):
        runtime.run(groups[i % len(groups)])
    return {"runtime_a_second": rounds * batch / (time.perf_counter() - start)}


def load(server: Server, images: Any, wanted: list[Any], clients: int, requests: int) -> dict[str, Any]:
    """So many requests from so many clients at once: how many a second, how many wrong, how many without an answer."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(requests):
        numbers.put(i)
    wrong, answered, errors = [0] * clients, [0] * clients, [""] * clients

    def work(me: int) -> None:
        with _connected(server) as client:
            while True:
                try:
                    i = numbers.get_nowait() % len(images)
                except queue.Empty:
                    return
                try:
                    answer = _ask(client, "model", images[i])
                except Exception as error:  # whatever it is, the request has no answer, and the others go on
                    errors[me] = str(error)
                    continue
                answered[me] += 1
                wrong[me] += not np.array_equal(answer, wanted[i])

    threads = [threading.Thread(target=work, args=(me,)) for me in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    found = {"requests": requests, "clients": clients, "wrong": sum(wrong), "lost": requests - sum(answered)}
    said = next(filter(None, errors), "")
    return found | {"served_a_second": sum(answered) / seconds} | ({"error": said} if said else {})


def _connected(server: Server) -> Any:
    from tritonclient.grpc import InferenceServerClient

    return InferenceServerClient(server.grpc)


def _ask(client: Any, model: str, image: Any) -> Any:
    from tritonclient.grpc import InferInput, InferRequestedOutput

    tensor = InferInput(INPUT, list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    return client.infer(model, [tensor], outputs=[InferRequestedOutput(LOGITS)]).as_numpy(LOGITS)
