"""Runtimes across processes: forked, forked twice, spawned, and killed. Nothing may wait for ever.

Children made by `in_child` end with `os._exit`, as those of multiprocessing do.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import platform
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluinfer import Runtime
from cluinfer.engines import Options, get_engine
from cluinfer.errors import EngineError, ShapeError

if not hasattr(os, "fork"):
    pytest.skip("there is no fork here", allow_module_level=True)
for package in ("onnx", "onnxruntime", "openvino", "torch"):
    pytest.importorskip(package)

from engine_cases import artifact, compiled, image  # noqa: E402

LONG = 60  # seconds: what takes longer waits for ever


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: artifact(folder / f"{name}.clu", name) for name in ("openvino", "ort")}


@pytest.fixture
def engine() -> str:
    """The one that waits for ever if anything is done wrongly; a test may ask for both."""
    return "openvino"


BOTH = pytest.mark.parametrize("engine", ["openvino", "ort"])


@pytest.fixture
def model(models: dict[str, Path], engine: str) -> Path:
    return models[engine]


@pytest.fixture
def runtime(model: Path) -> Iterator[Runtime]:
    """Used before the test begins, so that its engine has its threads."""
    with Runtime(model, threads=2) as made:
        list(made.stream(image(2)))
        yield made


def in_child(work: Callable[[], Any]) -> str:
    """What `work` gives in a forked child, as text; the child is killed if it takes too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            try:
                said = str(work())
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        said = b""
        while True:
            ready, _, _ = select.select([reading], [], [], LONG)
            if not ready:
                os.kill(pid, signal.SIGKILL)
                return "it waits for ever"
            part = os.read(reading, 1 << 16)
            if not part:
                return said.decode()
            said += part
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


def bits(runtime: Runtime, count: int = 2) -> str:
    """Everything that the runtime says of the same images, as text."""
    predictions = runtime(image(count))
    assert isinstance(predictions, list)
    return " ".join(array.tobytes().hex()[:64] for each in predictions for array in each._outputs.values())


@BOTH
def test_forked(runtime: Runtime) -> None:
    """Every way to call it, in the child; the parent goes on."""
    want = bits(runtime)

    def work() -> bool:
        streamed = list(runtime.stream(image(3), batch=2))
        future = runtime.predict_async(image(2)[0])
        same = bits(runtime) == want and len(streamed) == 3 and future.result().logits is not None
        runtime.close()
        return same

    assert in_child(work) == "True"
    assert bits(runtime) == want


def test_forked_again(runtime: Runtime) -> None:
    want = bits(runtime)
    assert in_child(
        lambda: [bits(runtime) == want, in_child(lambda: bits(runtime) == want), bits(runtime) == want]
    ) == ("[True, 'True', True]")


@BOTH
def test_made_in_the_child(runtime: Runtime, model: Path) -> None:
    """The parent's engine has left its traces in the child, whoever asks for one there."""
    want = bits(runtime)
    assert in_child(lambda: bits(Runtime(model)) == want) == "True"


def test_forked_while_others_call(runtime: Runtime) -> None:
    want, stop = bits(runtime), threading.Event()

    def call() -> None:
        while not stop.is_set():
            runtime(image(2))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for each in callers:
        each.start()
    try:
        assert [in_child(lambda: bits(runtime) == want) for _ in range(2)] == ["True"] * 2
    finally:
        stop.set()
        for each in callers:
            each.join()


def test_what_was_begun_before_the_fork(runtime: Runtime) -> None:
    stream = runtime.stream(image(9))
    next(stream)
    session = get_engine(runtime.manifest.built.engine).load(compiled(runtime.manifest.built.engine), Options())

    def bare() -> Any:
        session.close()
        session.run({"image": image(1)})

    assert in_child(lambda: next(stream)) == (
        "EngineError: the stream belongs to the process that this one was forked from: begin one here"
    )
    assert in_child(stream.close) == "None"
    assert in_child(bare) == (
        "EngineError: the session belongs to the process that this one was forked from: load it here"
    )
    assert len(list(stream)) == 8
    session.close()


def test_closed_before_and_closed_in_the_child(runtime: Runtime, model: Path) -> None:
    closed = Runtime(model)
    closed.close()
    wanted = "EngineError: the runtime is closed: open the artifact again"
    assert in_child(lambda: closed(image(1))) == wanted

    def close() -> Any:
        runtime.close()
        runtime.close()
        return runtime(image(1))

    assert in_child(close) == wanted
    assert len(bits(runtime)) > 0


def test_an_artifact_that_changed_before_the_child_used_it(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.clu")
    with Runtime(path) as runtime:
        runtime(image(1))
        artifact(path, batch=2)
        assert in_child(lambda: runtime(image(1))) == (
            f"ArtifactError: {path}: the file has changed since this runtime was made; make another"
        )
        path.unlink()
        assert "found nothing" in in_child(lambda: runtime(image(1)))


def test_errors_come_through(runtime: Runtime) -> None:
    def work() -> Any:
        session = runtime._opened().session
        session.check = dict  # type: ignore[method-assign,assignment]  # so that the other process finds the mistake
        with pytest.raises(ShapeError) as error:
            session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
        return str(error.value), len(bits(runtime)) > 0

    assert in_child(work) == "('image must be float32 [?, 3, 32, 48], got float32 [1, 3, 8, 8]', True)"


def test_warnings_come_through(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.clu", versions={"onnxruntime": "0.1"})
    with pytest.warns(RuntimeWarning):
        runtime = Runtime(path)
    runtime(image(1))

    def work() -> Any:
        with pytest.warns(RuntimeWarning, match="its engine does not fit here") as warned:
            runtime(image(1))
        return len(warned)

    assert in_child(work) == "1"
    runtime.close()


def others(pid: int) -> list[int]:
    """The processes that `pid` started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux")
def test_the_process_of_the_engine(runtime: Runtime) -> None:
    """Killed, it is an error; it ends with the child, however that ends."""

    def kill() -> Any:
        runtime(image(1))
        (engine,) = others(os.getpid())
        os.kill(engine, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(EngineError) as error:
                runtime(image(1))
        runtime.close()
        return pickle.loads(pickle.dumps(error.value))  # as multiprocessing does, whose parent would wait for ever

    assert in_child(kill) == "the process that runs the engine has ended: open the artifact again"

    def leave() -> Any:
        runtime(image(1))
        return others(os.getpid())[0]

    engine = int(in_child(leave))
    deadline = time.monotonic() + LONG
    while Path(f"/proc/{engine}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{engine}").exists()

    def close() -> Any:
        runtime(image(1))
        runtime.close()
        return others(os.getpid())

    assert in_child(close) == "[]"


def test_an_interrupted_call_does_not_give_its_answer_to_the_next(runtime: Runtime) -> None:
    def work() -> Any:
        runtime(image(1))

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            for _ in range(10_000):
                runtime.run(image(8))
        except KeyboardInterrupt:
            pass
        try:
            return len(runtime.run(image(3))["logits"])
        except EngineError as error:
            return error

    assert in_child(work) in ("3", "the process that runs the engine has ended: open the artifact again")


def test_without_a_python_to_start(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert in_child(lambda: runtime(image(1))) == (
        "EngineError: a forked process needs another for its engine, but there is no Python to start: use spawn"
    )
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert in_child(lambda: runtime(image(1))).startswith(
        "EngineError: the process that runs the engine cannot be started: "
    )


RUNTIME: Runtime | None = None


def remember(runtime: Runtime) -> None:
    global RUNTIME
    RUNTIME = runtime


def use(count: int) -> str:
    assert RUNTIME is not None
    return bits(RUNTIME, count)


@BOTH
def test_multiprocessing_by_fork(runtime: Runtime) -> None:
    remember(runtime)
    want = [bits(runtime, count) for count in (1, 2, 3)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(use, (1, 2, 3)).get(LONG) == want


SPAWNED = """
import multiprocessing, sys
from cluinfer import Runtime
import numpy as np

def logits(runtime):
    return [each.logits.tolist() for each in runtime(np.zeros((2, 3, 32, 48), np.float32))]

if __name__ == "__main__":
    runtime = Runtime(sys.argv[1])
    want = logits(runtime)
    with multiprocessing.get_context(sys.argv[2]).Pool(1) as pool:
        print(pool.map_async(logits, [runtime, runtime]).get(60) == [want, want])
"""


@pytest.mark.parametrize(("engine", "method"), [("openvino", "spawn"), ("ort", "forkserver")])
def test_multiprocessing_by_spawn(model: Path, tmp_path: Path, method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    command = [sys.executable, str(script), str(model), method]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * LONG)
    assert (ran.stdout, ran.returncode) == ("True\n", 0), ran.stderr


ENDED = """
import os, sys
from cluinfer import Runtime
import numpy as np
runtime = Runtime(sys.argv[1])
x = np.zeros((1, 3, 32, 48), np.float32)
runtime(x)
pid = os.fork()
if pid == 0:
    if sys.argv[2] == "uses it":
        runtime(x)
    print("from the child")
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@BOTH
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can")
@pytest.mark.parametrize("does", ["nothing", "uses it"])
def test_a_child_that_ends_by_itself(model: Path, does: str) -> None:
    """Without os._exit: the engine's clean-up would wait for threads that are not there."""
    command = [sys.executable, "-c", ENDED, str(model), does]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert (ran.stdout, ran.returncode) == ("from the child\n7\n", 0), ran.stderr
