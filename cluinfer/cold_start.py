"""Fresh processes that load a model and predict once: how long that takes, and how much memory they come to.

`cold` is from the start of the process to the first prediction, as the parent sees it: Python, the imports, the load
and the run. The files are in the system's cache, as a rule, since they have just been read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluinfer.engines import Array, Options, Session, get_engine
from cluinfer.errors import EngineError, ShapeError

RUNS = 20  # after the first, until memory is looked at
_CHILD = "import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job.pop('sys_path'); "
_CHILD += "from cluinfer.cold_start import child; child(**job)"


@dataclass(frozen=True)
class Start:
    """One fresh process. Seconds; the peak is of the whole process, None where the system does not tell."""

    cold: float
    load: float  # read and load an artifact, or read, compile and load an ONNX file
    first: float  # the first prediction
    peak_mib: float | None


def measure_starts(count: int, path: str | Path, engine: str, options: Options) -> list[Start]:
    """So many processes, one after the other."""
    job = {"sys_path": sys.path, "path": str(path), "engine": engine, "options": asdict(options)}
    return [_start([sys.executable, "-c", _CHILD, json.dumps(job)]) for _ in range(count)]


def _start(command: list[str]) -> Start:
    with tempfile.TemporaryFile("w+") as complaints:  # a pipe that nobody reads would fill up
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process:
            assert process.stdout is not None
            try:
                predicted = process.stdout.readline()
                cold = time.perf_counter() - begin
                rest = process.stdout.read()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            complaints.seek(0)
            lines = complaints.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise EngineError(f"a fresh process could not load and run the model: {lines[-1]}")
    return Start(cold, **json.loads(predicted), **json.loads(rest))


def child(path: str, engine: str, options: Mapping[str, Any]) -> None:
    """What the fresh process does; two lines of JSON on standard output."""
    wanted = Options(**options)
    begin = time.perf_counter()
    run, feeds = _load(Path(path), engine, wanted)
    loaded = time.perf_counter()
    run(feeds)
    done = time.perf_counter()
    _print({"load": loaded - begin, "first": done - loaded})
    for _ in range(RUNS):
        run(feeds)
    _print({"peak_mib": peak_mib()})


def _load(path: Path, engine: str, options: Options) -> tuple[Callable[[Any], object], Any]:
    """How to predict, and with what."""
    if path.suffix == ".clu":
        from cluinfer.runtime import Runtime

        runtime = Runtime(path, threads=options.threads)
        return runtime.run, np.zeros((options.batch, 3, *runtime.promise.size), np.float32)
    compiler = get_engine(engine)
    session = compiler.load(compiler.compile(path.read_bytes(), options), options)
    return session.run, example_feeds(session, options.batch)


def example_feeds(session: Session, batch: int) -> dict[str, Array]:
    """Noise of the shape that the graph takes, the same every time."""
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, each in session.inputs.items():
        if any(side is None for side in each.shape[1:]) or not each.dtype.startswith("float"):
            raise ShapeError(f"{name} is {each}: wanted an input of floats, every side but the batch fixed")
        feeds[name] = random.standard_normal((batch, *each.shape[1:])).astype(each.dtype)  # type: ignore[arg-type]
    return feeds


def peak_mib() -> float | None:
    """The most memory that this process has had, None where the system does not tell.

    Not ru_maxrss on Linux: there a process begins with what its parent had when it was started.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _print(held: Mapping[str, float | None]) -> None:
    sys.stdout.write(json.dumps(held) + "\n")
    sys.stdout.flush()
