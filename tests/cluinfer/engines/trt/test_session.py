"""The session's own logic, over the real cuda-bindings and a driver whose GPU is the host's memory (cuda_driver.c).

Shown: which run is recorded and which replayed, that results are right in any order of batches and in many threads, and
that everything is freed. Not shown: that a GPU agrees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cuda.bindings")

TESTS = Path(__file__).parents[3]
COMPILER = shutil.which("gcc")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs gcc, on Linux")
    folder = tmp_path_factory.mktemp("driver")
    source, library = TESTS / "cuda_driver.c", folder / "libcuda.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-w", source, "-o", library, "-ldl"], check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    env.pop("CLUINFER_CUDA_GRAPHS", None)
    done = subprocess.run(
        [sys.executable, TESTS / "tensorrt_session.py"], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_the_second_run_in_a_row_is_recorded_and_the_next_ones_replayed(told: dict[str, Any]) -> None:
    # 2: run, recorded, replayed, replayed; 1: run, recorded, replayed; 2: the context has changed, so run again;
    # 9: 4 (run), 4 (recorded), 1 (run); 4: run, recorded
    assert told["executions"] == [1, 1, 0, 0, 1, 1, 0, 1, 3, 1, 1]
    assert told["batch"] == 4


def test_without_graphs_every_run_is_executed(told: dict[str, Any]) -> None:
    assert told["not recorded"] == [1, 2, 1]  # the second was tried to be recorded, then run
    assert told["without graphs"] == [1, 1, 1]


def test_ctrl_c_amid_a_recording_ends_it_and_the_session_goes_on(told: dict[str, Any]) -> None:
    # run, interrupted; then recorded, replayed, and run with another batch
    assert told["interrupted"] == {"first": [1, 0], "leaked": 0, "then": [1, 0, 1]}


def test_arrays_on_the_gpu_void_what_was_recorded(told: dict[str, Any]) -> None:
    assert told["on gpu"] is True
    assert told["after that"] == [1, 1, 0]


def test_results(told: dict[str, Any]) -> None:
    assert told["belongs to the caller"] is True
    assert told["wrong in threads"] == []
    assert told["padded"] == [1, 1, 0, 0]


def test_a_run_taken_apart(told: dict[str, Any]) -> None:
    recorded, plain = told["stages"], told["stages without graphs"]
    assert 0 < recorded.pop("enqueue") < 1 and 0 < recorded.pop("enqueue, not recorded") < 1
    assert 0 < plain.pop("enqueue") < 1
    alone = {"copy in": 0.001, "gpu": 0.001, "copy out": 0.001}  # events of the stand-in are a millisecond apart
    assert recorded == {**alone, "gpu, with transfers": 0.001}
    assert plain == alone
    assert (told["notes"], told["notes without graphs"]) == ({"CUDA graph": "on"}, {"CUDA graph": "off"})


def test_arrays_wait_for_the_stream_that_they_name(told: dict[str, Any]) -> None:
    assert told["waits"] == [1, 0, 0, 1, 2]  # before version 3 nobody says: the default stream


def test_arrays_by_dlpack(told: dict[str, Any]) -> None:
    found = told["by dlpack"]
    assert found["same"] is True
    assert found["taken twice"] == "image is no DLPack capsule, or one that was taken already"
    assert found["given twice"] == found["freed"] == "the array was freed, or given away by __dlpack__"
    assert found["wrong shape"] == "image must be float32 [?, 3, 2, 2], got float32 [1, 9]"
    assert told["alive after dlpack"] == 0


def test_too_little_memory(told: dict[str, Any]) -> None:
    advice = ": build it for a smaller largest batch, or ask for fewer streams"
    assert told["too little memory"].startswith("the GPU has no 0 MiB left: CUDA_ERROR_OUT_OF_MEMORY")
    assert told["too little memory"].endswith(advice)
    assert told["no room for outputs"].startswith("the GPU has no")
    assert (told["alive after no room"], told["right after no room"]) == (0, True)


def test_errors(told: dict[str, Any]) -> None:
    assert told["fails"] == "TensorRT cannot run the engine: its log says why"
    assert told["works again"] is True
    assert told["closed"] == "the session is closed: load it again"
    assert told["too many lanes"] == "TensorRT has not enough memory for one more context: ask for fewer streams"


def test_everything_is_freed(told: dict[str, Any]) -> None:
    assert told["alive after close"] == 0
    assert told["alive"] == 0
