"""Ray against a plain stream of the same runtime: pictures a second, memory, and a job whose actor is killed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import models
from benchmarks.cpu import machine
from benchmarks.int8 import quantized

CPUS = 2
TARGET = 0.9  # of the plain stream's pictures a second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=int, default=5000, help="224x224 JPEGs to make and predict (5000)")
    parser.add_argument("--rounds", type=int, default=3, help="of the stream and Ray in turns (3)")
    parser.add_argument("--precision", choices=("int8", "bf16"), default="int8")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")


def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        artifact = build(folder, arguments.precision)
        paths = draw(folder / "pictures", arguments.pictures)
        record: dict[str, Any] = {"machine": machine(), "pictures": len(paths), "precision": arguments.precision}
        with local_cluster():
            record["speed"] = speed(artifact, paths, folder, arguments.rounds)
            record["memory_mib"] = memory(artifact, paths, folder)
            record["killed"] = killed(artifact, paths, folder)
        print(json.dumps(record, indent=1))
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def build(folder: Path, precision: str) -> Path:
    from cluinfer.build import build as build_artifact

    graph = folder / "fec_small.onnx"
    graph.write_bytes(
        (quantized("fec_small", None) if precision == "int8" else models.our_onnx("fec_small")).read_bytes()
    )
    build_artifact(graph, folder / "model.clu", engine="openvino", precision=precision, threads=CPUS)
    return folder / "model.clu"


def draw(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (14, 14, 3), np.uint8))
        paths.append(str(folder / f"{i:06}.jpg"))
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def local_cluster() -> Any:
    from cluinfer.commands.predict_ray import LOCAL, cluster

    return cluster(LOCAL)


def speed(artifact: Path, paths: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """In turns. Ray's first job of a process also starts its workers, so one that is not counted comes first."""
    predict(artifact, paths[:64], folder / "warm")
    taken: dict[str, list[float]] = {"stream": [], "ray": []}
    for number in range(rounds):
        start = time.perf_counter()
        stream(artifact, paths)
        taken["stream"].append(len(paths) / (time.perf_counter() - start))
        start = time.perf_counter()
        predict(artifact, paths, folder / f"speed-{number}")
        taken["ray"].append(len(paths) / (time.perf_counter() - start))
        print({name: round(values[-1], 1) for name, values in taken.items()}, "pictures a second", flush=True)
    share = median(taken["ray"]) / median(taken["stream"])
    print(f"Ray: {share:.1%} of the stream's pictures a second; wanted {TARGET:.0%}", flush=True)
    return {**taken, "share": share}


def stream(artifact: Path, paths: Sequence[str]) -> None:
    from cluinfer import Prediction, Runtime

    with Runtime(artifact, threads=CPUS) as runtime:
        for each in runtime.stream(paths):
            assert isinstance(each, Prediction), each
            each.top(1)


def predict(artifact: Path, paths: Sequence[str], folder: Path) -> Path:
    from cluinfer.scale import predict_files

    done = predict_files(paths, artifact, folder, cpus=CPUS, actors=1)
    assert done.rows == len(paths) and not done.failed, done
    return folder


def memory(artifact: Path, paths: Sequence[str], folder: Path) -> dict[str, float]:
    """The most that the actor and this process hold, for a tenth of the pictures and for all."""
    return {str(n): watched(artifact, paths[:n], folder / f"memory-{n}") for n in (len(paths) // 10, len(paths))}


def watched(artifact: Path, paths: Sequence[str], folder: Path) -> float:
    most, done = [0.0], Event()

    def watch() -> None:
        while not done.wait(0.2):
            most[0] = max(most[0], sum(map(resident, [os.getpid(), *actors()])))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        predict(artifact, paths, folder)
    finally:
        done.set()
        watcher.join()
    return most[0]


def killed(artifact: Path, paths: Sequence[str], folder: Path) -> dict[str, Any]:
    """The same files from a job whose actor is killed as soon as one of them is there."""
    few = paths[: max(len(paths) // 4, 8)]
    whole, broken = folder / "whole", folder / "broken"
    from cluinfer.scale import predict_files

    rows = max(len(few) // 8, 1)
    predict_files(few, artifact, whole, cpus=CPUS, actors=1, rows=rows)
    struck: list[int] = []

    def kill() -> None:
        while not struck:
            time.sleep(0.05)
            if any(broken.glob("*.parquet")):
                struck.extend(actors())
                for pid in struck:
                    os.kill(pid, signal.SIGKILL)

    Thread(target=kill, daemon=True).start()
    predict_files(few, artifact, broken, cpus=CPUS, actors=1, rows=rows)
    found = [checksum(each) for each in (whole, broken)]
    print(f"{len(struck)} actor killed: rows and checksums {'equal' if found[0] == found[1] else 'DIFFER'}", flush=True)
    return {"actors": len(struck), "rows": found[1][0], "equal": found[0] == found[1]}


def checksum(folder: Path) -> tuple[int, str]:
    """The number of rows, and a hash of them all."""
    from pyarrow import parquet

    rows = parquet.read_table(folder).to_pylist()
    return len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()


def actors() -> Iterator[int]:
    """The processes on this machine that run ours."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and (b"PartWriter" in command or b"MapWorker" in command):
            yield int(entry.name)


def resident(pid: int) -> float:
    """MiB, without what it shares with others."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20
