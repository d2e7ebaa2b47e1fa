"""Takes the session of the TensorRT engine through its paths, in a process with the stand-in driver (cuda_driver.c).

The driver's interface is the real one, by cuda-bindings; its GPU is the host's memory, and the engine copies its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from typing import Any

import numpy as np
from cuda.bindings import driver

from cluinfer.engines.trt.arrays import GpuArray, Port
from cluinfer.engines.trt.gpu import Memory, gpu
from cluinfer.engines.trt.session import TensorRTSession
from cluinfer.errors import CluinferError

library = ctypes.CDLL("libcuda.so.1")
SHAPE = (3, 2, 2)
PORTS = [Port(name, np.dtype(np.float32), (-1, *SHAPE)) for name in ("image", "copied", "again")]


class Context:
    """IExecutionContext: it copies the input to both outputs, and counts."""

    executed = 0
    works = True

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.batch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return name == "image" and shape[1:] == SHAPE

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        Context.executed += 1
        size = self.batch * 48
        for name in ("copied", "again"):
            driver.cuMemcpyDtoDAsync(self.addresses[name], self.addresses["image"], size, stream)
        return Context.works


class Interrupted(Context):
    """Ctrl-C comes while its second run, which is recorded, is set off."""

    def execute_async_v3(self, stream: int) -> bool:
        if Context.executed == Interrupted.at:
            Interrupted.at = -1
            raise KeyboardInterrupt
        return super().execute_async_v3(stream)

    at = -1


class Engine:
    contexts = 99
    made: type[Context] = Context

    def create_execution_context(self) -> Context | None:
        Engine.contexts -= 1
        return Engine.made() if Engine.contexts >= 0 else None


def opened(profile: tuple[int, int, int] = (1, 2, 4), lanes: int = 1) -> TensorRTSession:
    gpu().activate()
    return TensorRTSession(gpu(), (Engine(),), PORTS, 1, profile, lanes)


def image(batch: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((batch, *SHAPE), np.float32)


def right(session: TensorRTSession, batch: int, seed: int) -> bool:
    given = image(batch, seed)
    got = session.run({"image": given})
    return all(np.array_equal(got[name], given) for name in ("copied", "again"))


def executions(session: TensorRTSession, batches: list[int]) -> list[int]:
    """How often the context was called for each run; a replayed graph does not call it."""
    counts = []
    for seed, batch in enumerate(batches):
        before = Context.executed
        assert right(session, batch, seed), (batch, seed)
        counts.append(Context.executed - before)
    return counts


def raised(call: Any) -> str:
    try:
        call()
    except CluinferError as error:
        return str(error)
    return ""


def on_gpu(session: TensorRTSession) -> bool:
    given = image(3)
    held = type(
        "Held",
        (),
        {
            "__cuda_array_interface__": {
                "shape": given.shape,
                "typestr": "<f4",
                "strides": None,
                "data": (given.ctypes.data, False),
                "version": 3,
            }
        },
    )()
    made = session.run_on_gpu({"image": held})
    said = made["again"].__cuda_array_interface__
    content = (ctypes.c_float * given.size).from_address(said["data"][0])
    same = np.array_equal(np.array(content).reshape(said["shape"]), given)
    for array in made.values():
        array.free()
    return same


def waits(session: TensorRTSession) -> list[int]:
    """Which stream is waited for, by what an array says of its own: (version, stream or -1 for nothing)."""
    given, waited = image(1), []

    class Gpu(type(gpu())):  # type: ignore[misc]
        def wait_for(self, stream: int) -> None:
            super().wait_for(stream)
            waited.append(int(library.stand_in_waited()))

    session._gpu.__class__ = Gpu
    for version, stream in ((2, -1), (3, -1), (3, None), (3, 1), (3, 2)):
        said = {"shape": given.shape, "typestr": "<f4", "data": (given.ctypes.data, False), "version": version}
        said |= {} if stream == -1 else {"stream": stream}
        before = len(waited)
        made = session.run_on_gpu({"image": type("Held", (), {"__cuda_array_interface__": said})()})
        for array in made.values():
            array.free()
        if len(waited) == before:
            waited.append(0)
    return list(waited)  # which goes on to grow


class OnlyDlpack:
    """An array that shows no more than DLPack."""

    def __init__(self, array: Any) -> None:
        self.__dlpack_device__, self.__dlpack__ = array.__dlpack_device__, array.__dlpack__


def by_dlpack(session: TensorRTSession) -> dict[str, Any]:
    """Outputs given on as inputs: by the protocol, as a capsule, and a capsule that nobody takes."""
    given, found = image(3, 7), {}
    said = {"shape": given.shape, "typestr": "<f4", "data": (given.ctypes.data, False), "version": 3}
    first = session.run_on_gpu({"image": type("Held", (), {"__cuda_array_interface__": said})()})
    second = session.run_on_gpu({"image": OnlyDlpack(first["copied"])})
    capsule = first["again"].__dlpack__()
    third = session.run_on_gpu({"image": capsule})
    found["taken twice"] = raised(lambda: session.run_on_gpu({"image": capsule}))
    found["given twice"] = raised(first["again"].__dlpack__)
    second["copied"].__dlpack__()
    second["copied"].free()
    content = (ctypes.c_float * given.size).from_address(third["again"].__cuda_array_interface__["data"][0])
    found["same"] = bool(np.array_equal(np.array(content).reshape(given.shape), given))
    for array in (second["again"], *third.values(), *third.values()):
        array.free()
    found["freed"] = raised(lambda: session.run_on_gpu({"image": third["again"]}))
    found["wrong shape"] = raised(lambda: session.run_on_gpu({"image": capsule_of((1, 9))}))
    return found


def capsule_of(shape: tuple[int, ...]) -> Any:
    memory = Memory(64)
    return GpuArray(gpu(), memory, shape, np.dtype(np.float32)).__dlpack__()


def interrupted() -> dict[str, Any]:
    """A session after Ctrl-C amid a recording."""
    Engine.made = Interrupted
    with opened() as session:
        first = executions(session, [2])
        held = library.stand_in_alive()
        Interrupted.at = Context.executed
        try:
            session.run({"image": image(2)})
        except KeyboardInterrupt:
            first.append(0)
        leaked = library.stand_in_alive() - held
        found = {"first": first, "leaked": leaked, "then": executions(session, [2, 2, 1])}
    Engine.made = Context
    return found


def main() -> None:
    told: dict[str, Any] = {}
    alive = library.stand_in_alive()
    for room in range(6):  # a lane takes a stream, then two pieces for each of three ports
        library.stand_in_room(room)
        told["too little memory"] = raised(opened)
        assert library.stand_in_alive() == alive, room
    library.stand_in_room(1 << 30)
    with opened() as session:
        told["stages"] = session.stages({"image": image(2)})
        told["notes"] = dict(session.notes())
        told["waits"] = waits(session)
        held = library.stand_in_alive()
        told["by dlpack"] = by_dlpack(session)
        told["alive after dlpack"] = library.stand_in_alive() - held
        library.stand_in_room(held + 1)  # for one of two outputs
        given = image(1)
        said = {"shape": given.shape, "typestr": "<f4", "data": (given.ctypes.data, False), "version": 3}
        one = type("Held", (), {"__cuda_array_interface__": said})()
        told["no room for outputs"] = raised(lambda: session.run_on_gpu({"image": one}))
        told["alive after no room"] = library.stand_in_alive() - held
        library.stand_in_room(1 << 30)
        told["right after no room"] = right(session, 2, 0)
    with opened() as session:
        told["batch"] = session.batch
        told["executions"] = executions(session, [2, 2, 2, 2, 1, 1, 1, 2, 9, 4, 4])
        told["on gpu"] = on_gpu(session)
        told["after that"] = executions(session, [2, 2, 2])
        kept = session.run({"image": image(2, 5)})["copied"]
        session.run({"image": image(2, 6)})
        told["belongs to the caller"] = bool(np.array_equal(kept, image(2, 5)))
        Context.works = False
        told["fails"] = raised(lambda: session.run({"image": image(3)}))
        Context.works = True
        told["works again"] = right(session, 3, 1)
    told["alive after close"] = library.stand_in_alive()
    told["closed"] = raised(lambda: session.run({"image": image(1)}))

    with opened(lanes=3) as session:
        wrong: list[int] = []

        def work(number: int) -> None:
            wrong.extend(number for i in range(50) if not right(session, 1 + (number + i) % 13, number * 100 + i))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told["wrong in threads"] = wrong
    with opened((4, 4, 4)) as session:
        told["padded"] = executions(session, [4, 1, 3, 6])
    told["interrupted"] = interrupted()
    library.stand_in_fail(1)
    with opened() as session:
        told["not recorded"] = executions(session, [2, 2, 2])
    library.stand_in_fail(0)
    os.environ["CLUINFER_CUDA_GRAPHS"] = "0"
    with opened() as session:
        told["stages without graphs"] = session.stages({"image": image(2)})
        told["notes without graphs"] = dict(session.notes())
        Context.executed = 0
        told["without graphs"] = executions(session, [2, 2, 2])
    Engine.contexts = 2
    told["too many lanes"] = raised(lambda: opened(lanes=3))
    told["alive"] = library.stand_in_alive()
    print(json.dumps(told))


main()
