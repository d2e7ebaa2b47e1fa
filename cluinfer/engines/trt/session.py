"""A TensorRT engine, ready to run: lanes with everything allocated once, CUDA graphs, GPU arrays in and out.

- A lane is an execution context, a stream, and buffers for the largest batch, on both sides; it works for one caller at
  a time. Pieces of a large batch go through all lanes, so that one copies while another computes.
- The second run in a row of one batch size is recorded as a CUDA graph (copies, kernels, copies), which those that
  follow replay. Another size changes the context, and the graph is void. CLUINFER_CUDA_GRAPHS=0 leaves graphs out.
- `run_on_gpu` takes and gives arrays that lie on the GPU, by __cuda_array_interface__, without a copy.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np

from cluinfer.engines.base import Array, Input, Session
from cluinfer.engines.trt import dlpack
from cluinfer.engines.trt.arrays import LEGACY_STREAM, GpuArray, Port, check_gpu_arrays, stream_of
from cluinfer.engines.trt.gpu import Event, Gpu, Memory, Pinned, Stream
from cluinfer.engines.trt.settings import Profile
from cluinfer.errors import EngineError, ShapeError


class Lane:
    """What one caller works with."""

    def __init__(self, engine: Any, inputs: Sequence[Port], outputs: Sequence[Port], largest: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.context = engine.create_execution_context()
        if self.context is None:
            raise EngineError("TensorRT has not enough memory for one more context: ask for fewer streams")
        self.stream = Stream()
        self.host: dict[str, Pinned] = {}
        self.device: dict[str, Memory] = {}
        self.batch = 0  # the context's, once it has run
        self.graph: Any = None  # of that batch
        self.record = os.environ.get("CLUINFER_CUDA_GRAPHS") != "0"
        try:
            for port in (*inputs, *outputs):
                self.host[port.name] = Pinned(port.bytes(largest))
                self.device[port.name] = Memory(port.bytes(largest))
        except EngineError as error:
            self.free()
            raise EngineError(f"{error}: build it for a smaller largest batch, or ask for fewer streams") from error

    def start(self, feeds: Mapping[str, Array], batch: int) -> None:
        """Begin; `result` waits for the end."""
        for port in self.inputs:
            size = port.bytes(batch)
            self.host[port.name].bytes[:size] = np.ascontiguousarray(feeds[port.name]).view(np.uint8).reshape(-1)
        if batch != self.batch:
            self._set(batch)
            self._work(batch)
            self.batch = batch
            return
        if self.graph is None and self.record:
            self.graph = self.stream.record(lambda: self._work(batch))
            self.record = self.graph is not None
        if self.graph is not None:
            self.stream.replay(self.graph)
        else:
            self._work(batch)

    def result(self) -> list[Array]:
        """The outputs of what was started, which belong to the caller."""
        self.stream.wait()
        made = []
        for port in self.outputs:
            content = self.host[port.name].bytes[: port.bytes(self.batch)]
            made.append(content.view(port.dtype).reshape(port.of(self.batch)).copy())
        return made

    def stages(self, feeds: Mapping[str, Array], batch: int) -> dict[str, float]:
        """One run taken apart: the host's time to set it off, the GPU's between events; a recorded one is one piece."""
        if self.graph is None or batch != self.batch:
            for _ in range(2):  # the second is recorded
                self.start(feeds, batch)
                self.result()
        events = [Event() for _ in range(4)]
        try:
            self.stream.mark(events[0])
            begun = perf_counter()
            if self.graph is not None:
                self.stream.replay(self.graph)
                enqueued = perf_counter() - begun
                self.stream.mark(events[3])
                self.stream.wait()
                found = {"enqueue": enqueued, "gpu, with transfers": events[3].since(events[0])}
            else:
                found = {}
            self.stream.mark(events[0])
            begun = perf_counter()
            self._copy_in(batch)
            self.stream.mark(events[1])
            self._execute()
            self.stream.mark(events[2])
            self._copy_out(batch)
            self.stream.mark(events[3])
            enqueued = perf_counter() - begun
            self.stream.wait()
            names = ("copy in", "gpu", "copy out")
            spans = {name: events[i + 1].since(events[i]) for i, name in enumerate(names)}
        finally:
            for event in events:
                event.free()
        return {"enqueue, not recorded" if found else "enqueue": enqueued, **spans, **found}

    def run_on_gpu(self, pointers: Mapping[str, int], batch: int) -> None:
        """Run on what lies on the GPU already, to its end."""
        self._set(batch)
        for name, pointer in pointers.items():
            self._point(name, pointer)
        self._execute()
        self.stream.wait()

    def free(self) -> None:
        """Give everything back."""
        self.stream.wait()
        self._forget()
        self.context = None
        for pinned in self.host.values():
            pinned.free()
        for memory in self.device.values():
            memory.free()
        self.stream.free()

    def _forget(self) -> None:
        if self.graph is not None:
            self.stream.forget(self.graph)
        self.graph, self.batch = None, 0

    def _set(self, batch: int) -> None:
        """The context's shapes and addresses, which voids what was recorded with others."""
        self._forget()
        for port in self.inputs:
            if not self.context.set_input_shape(port.name, port.of(batch)):
                raise ShapeError(f"TensorRT refuses {port.name} of shape {list(port.of(batch))}")
        for name, memory in self.device.items():
            self._point(name, memory.pointer)

    def _point(self, name: str, pointer: int) -> None:
        if not self.context.set_tensor_address(name, pointer):
            raise EngineError(f"TensorRT does not take the memory of {name}")

    def _work(self, batch: int) -> None:
        self._copy_in(batch)
        self._execute()
        self._copy_out(batch)

    def _copy_in(self, batch: int) -> None:
        for port in self.inputs:
            self.stream.copy_in(self.device[port.name], self.host[port.name], port.bytes(batch))

    def _copy_out(self, batch: int) -> None:
        for port in self.outputs:
            self.stream.copy_out(self.host[port.name], self.device[port.name], port.bytes(batch))

    def _execute(self) -> None:
        if not self.context.execute_async_v3(self.stream.handle):
            raise EngineError("TensorRT cannot run the engine: its log says why")


class TensorRTSession(Session):
    """The contract is in base.py; `batch` is the most images that go through the engine at once."""

    def __init__(
        self, gpu: Gpu, held: Sequence[Any], ports: Sequence[Port], count: int, profile: Profile, lanes: int
    ) -> None:
        """`held`: the engine, then what must live as long as it; `ports`: `count` inputs, then the outputs."""
        inputs, self._outputs = ports[:count], ports[count:]
        wanted = {port.name: Input((None, *port.shape[1:]), port.dtype.name) for port in inputs}
        super().__init__(wanted, [port.name for port in self._outputs], profile[2], lanes)
        self._gpu, self._held, self._least, self._inputs = gpu, held, profile[0], inputs
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        try:
            for _ in range(lanes):
                self._lanes.put(Lane(held[0], inputs, self._outputs, profile[2]))
        except EngineError:
            while not self._lanes.empty():
                self._lanes.get().free()
            raise

    def pieces(self, feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
        """Cut by the most that the profile allows; padded only where there is less than it wants."""
        total = len(next(iter(feeds.values())))
        cuts = range(0, total, self.batch)
        return [{name: self._filled(array[at : at + self.batch]) for name, array in feeds.items()} for at in cuts]

    def _filled(self, array: Array) -> Array:
        missing = self._least - len(array)
        return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        self._gpu.activate()
        done: list[list[Array]] = []
        working: deque[Lane] = deque()
        total = len(next(iter(feeds.values())))
        try:
            for piece in self.pieces(feeds):
                lane = self._take(working, done)
                working.append(lane)
                lane.start(piece, len(next(iter(piece.values()))))
            while working:
                self._finish(working, done)
        finally:
            for lane in working:
                with suppress(EngineError):
                    lane.stream.wait()
                self._lanes.put(lane)
        return self.joined(done, total)

    def _take(self, working: deque[Lane], done: list[list[Array]]) -> Lane:
        """A free lane. Who holds some finishes his own before he waits for another's, so no two wait in a ring."""
        while True:
            try:
                return self._lanes.get(block=not working)
            except Empty:
                self._finish(working, done)

    def _finish(self, working: deque[Lane], done: list[list[Array]]) -> None:
        done.append(working[0].result())
        self._lanes.put(working.popleft())

    def stages(self, feeds: Mapping[str, Array]) -> dict[str, float]:
        """Of the first piece of the feeds."""
        with self._door:
            piece = self.pieces(self.check(feeds))[0]
            self._gpu.activate()
            lane = self._lanes.get()
            try:
                return lane.stages(piece, len(next(iter(piece.values()))))
            finally:
                self._lanes.put(lane)

    def notes(self) -> dict[str, str]:
        """Whether runs are recorded."""
        with self._door:
            lane = self._lanes.get()
            self._lanes.put(lane)
        return {"CUDA graph": "on" if lane.record else "off"}

    def run_on_gpu(self, feeds: Mapping[str, Any]) -> dict[str, GpuArray]:
        """Arrays on the GPU in and out: any with __cuda_array_interface__ or __dlpack__, or capsules; C-contiguous.

        What writes an input must be done, or be on the stream that its interface names, which is waited for. A capsule
        names none: what writes it must be done, or be on the default stream.
        """
        taken: list[dlpack.Taken] = []
        with self._door:
            try:
                return self._run_on_gpu(self._described(feeds, taken))
            finally:
                for each in taken:
                    each.release()

    def _described(self, feeds: Mapping[str, Any], taken: list[dlpack.Taken]) -> dict[str, Any]:
        """The feeds, all with __cuda_array_interface__; `taken` holds what must be released."""
        described = dict(feeds)
        for name, given in feeds.items():
            by_interface = hasattr(given, "__cuda_array_interface__")
            if not by_interface and (dlpack.is_capsule(given) or hasattr(given, "__dlpack__")):
                self._gpu.activate()
                taken.append(dlpack.take(name, given, LEGACY_STREAM))
                described[name] = taken[-1]
                self._gpu.wait_for(LEGACY_STREAM)
        return described

    def _run_on_gpu(self, feeds: Mapping[str, Any]) -> dict[str, GpuArray]:
        pointers, batch = check_gpu_arrays(feeds, self._inputs)
        if not self._least <= batch <= self.batch:
            raise ShapeError(f"the engine takes {self._least} to {self.batch} images at once, got {batch}")
        self._gpu.activate()
        for each in feeds.values():
            if stream := stream_of(each.__cuda_array_interface__):
                self._gpu.wait_for(stream)
        made: dict[str, GpuArray] = {}
        lane = self._lanes.get()
        try:
            for port in self._outputs:
                memory = Memory(port.bytes(batch))
                made[port.name] = GpuArray(self._gpu, memory, port.of(batch), port.dtype)
                pointers[port.name] = memory.pointer
            lane.run_on_gpu(pointers, batch)
        except BaseException:
            with suppress(EngineError):
                lane.stream.wait()  # what has begun may still write
            for each in made.values():
                each.free()
            raise
        finally:
            self._lanes.put(lane)
        return made

    def _free(self) -> None:
        self._gpu.activate()
        for _ in range(self.streams):
            self._lanes.get().free()
        self._held = ()
