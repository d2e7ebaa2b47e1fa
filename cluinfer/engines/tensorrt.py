"""TensorRT on an NVIDIA GPU, 8.6 and later, with the cluster operators as plugins from 10.9 on.

- The graph's types are the engine's (builder.py); below 10.9, or where it is asked for, the cluster operators are
  expanded into standard ones (graph.py), slower.
- A blob is a line of JSON (what it was built with and for) and TensorRT's engine. It fits one release and one compute
  capability, unless it was built compatible; it needs neither our plugins nor NVRTC.
- What of this has run where is in docs/tensorrt.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from cluinfer import forks
from cluinfer.engines import blob as blobs
from cluinfer.engines.base import THROUGHPUT, Engine, Options
from cluinfer.engines.self_contained import check_self_contained
from cluinfer.engines.trt import builder
from cluinfer.engines.trt.arrays import Port
from cluinfer.engines.trt.gpu import check_driver, gpu
from cluinfer.engines.trt.opset17 import check_reductions
from cluinfer.engines.trt.precision import PRECISIONS, check_pairs, check_types
from cluinfer.engines.trt.session import TensorRTSession
from cluinfer.engines.trt.settings import MOST, Profile, Settings
from cluinfer.errors import EngineError, EngineWarning, MissingPackageError

OLDEST = (8, 6)
_KINDS: dict[str, type] = {
    **dict.fromkeys(("tensorrt", "precision", "gpu", "capability"), str),
    **dict.fromkeys(("plugins", "version_compatible", "hardware_compatible"), bool),
    "batch": int,
    "profile": list,
}


class TensorRTEngine(Engine):
    """The contract is in base.py."""

    name = "trt"
    extra = "trt"
    precisions = PRECISIONS
    device = "GPU"
    bound_to = ("system", "architecture")  # `load` looks at the release and the GPU: a compatible engine fits several

    def check(self) -> None:
        """A GPU and TensorRT must be there."""
        check_driver()
        _tensorrt()
        gpu()

    def package(self) -> tuple[str, str]:
        """The release."""
        return "tensorrt", str(_tensorrt().__version__)

    def machine(self) -> dict[str, str]:
        """The host, the GPU, and the newest CUDA that its driver knows."""
        here = gpu()
        cuda = ".".join(map(str, here.cuda))
        return {**super().machine(), "gpu": here.name, "capability": here.capability, "cuda": cuda}

    def half_beside_int8(self) -> bool:
        """From TensorRT 10 on; without TensorRT the graph is for another machine, whose release is not known."""
        try:
            return builder.parse_version(_tensorrt().__version__) >= builder.STRONGLY_TYPED
        except (EngineError, MissingPackageError):
            return True

    def compile(self, graph: bytes, options: Options) -> bytes:
        """Prepare the graph for this release and build."""
        from cluinfer.engines.trt.graph import standard, with_plugins

        check_self_contained(graph)
        trt, here, settings = _tensorrt(), gpu(), _settings(options)
        check_types(graph, options.precision)
        if not self.half_beside_int8():
            check_pairs(graph, trt.__version__)
        plugins = choose_plugins(builder.parse_version(trt.__version__), settings.plugins)
        profile: Profile = settings.profile or (1, options.batch, options.batch)
        here.activate()
        at_work: AbstractContextManager[Any] = nullcontext()
        if not plugins:
            prepared = standard(graph)
            if builder.parse_version(trt.__version__) < builder.STRONGLY_TYPED:
                check_reductions(prepared, trt.__version__)
        else:
            from cluinfer.engines.trt.plugins import building

            prepared, calls = with_plugins(graph)
            if calls and not settings.kernels:
                from cluinfer.native.cuda import nvrtc

                if here.target not in nvrtc.FIRST_WITH:
                    here.check_ptx_of(nvrtc.version())
            at_work = building(here.target, settings.kernels)
        with at_work:
            built = builder.build(trt, prepared, options.precision, profile, settings, here.name)
        head = {
            "tensorrt": trt.__version__,
            "precision": options.precision,
            "batch": options.batch,
            "profile": list(profile),
            "plugins": plugins,
            "gpu": here.name,
            "capability": here.capability,
            "version_compatible": settings.version_compatible,
            "hardware_compatible": settings.hardware_compatible,
            "layers": dict(built.types),
        }
        return blobs.seal(self.name, head, built.content)

    def as_compiled(self, blob: bytes, options: Options) -> Options:
        """With the profile and the flags of a blob that does not fit here, so that its graph is compiled alike."""
        try:
            head, _ = blobs.unseal(self.name, blob, _KINDS)
            profile, version = _profile(head["profile"]), builder.parse_version(head["tensorrt"])
        except EngineError:
            return options
        plugins = False if version >= builder.PLUGINS and not head["plugins"] else None  # as it was asked for
        flags = (head["version_compatible"], head["hardware_compatible"])
        return replace(options, own=Settings(profile, plugins, None, *flags))

    def load(self, blob: bytes, options: Options) -> TensorRTSession:
        """The blob must fit this release and this GPU."""
        head, content = blobs.unseal(self.name, blob, _KINDS)
        profile = _profile(head["profile"])
        blobs.check_made_for(head, options)
        trt, here = _tensorrt(), gpu()
        if reason := unfit(head, trt.__version__, here.name, here.capability):
            raise EngineError(f"{reason}: compile the graph again")
        if head["gpu"] != here.name:
            message = f"the engine was built for {head['gpu']:.60}, this is {here.name}: one built here may be faster"
            warnings.warn(message, EngineWarning, stacklevel=3)
        here.activate()
        log = builder.logger(trt)
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineError(f"TensorRT cannot load the engine: {log.last()}")
        lanes = options.streams or (2 if options.hint == THROUGHPUT else 1)
        inputs, outputs = _ports(trt, engine)
        return TensorRTSession(here, (engine, runtime, log), [*inputs, *outputs], len(inputs), profile, lanes)


def plan(blob: bytes) -> tuple[bytes, Profile]:
    """TensorRT's own engine, which needs nothing of ours, and the batches it takes: at least, at best, at most."""
    head, content = blobs.unseal(TensorRTEngine.name, blob, _KINDS)
    return content, _profile(head["profile"])


def choose_plugins(version: builder.Version, asked: bool | None) -> bool:
    """Whether the operators become plugins: where TensorRT has them, unless asked otherwise."""
    able = version >= builder.PLUGINS
    if asked and not able:
        here = ".".join(map(str, version))
        raise EngineError(f"plugins need TensorRT 10.9 or later, this is {here}: update it, or build with --no-plugins")
    return able if asked is None else asked


def unfit(head: Mapping[str, Any], version: str, gpu_name: str, capability: str) -> str:
    """Why an engine does not run here; empty if it does."""
    there, here = (builder.parse_version(text) for text in (str(head["tensorrt"]), version))
    exact = head["tensorrt"] == version
    if not exact and not (head["version_compatible"] and here >= there and here[0] == there[0]):
        return f"built by TensorRT {head['tensorrt']:.40}, this is {version}"
    if head["capability"] != capability:
        newer = _capability(capability) >= _capability(str(head["capability"])) >= (8, 0)
        if not (head["hardware_compatible"] and newer):
            return (
                f"built for {head['gpu']:.60} (compute capability {head['capability']:.10}), "
                f"this is {gpu_name} ({capability})"
            )
    return ""


def _capability(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(map(int, parts)) if len(parts) == 2 and all(part.isdecimal() for part in parts) else (0, 0)


def _profile(sides: list[Any]) -> Profile:
    whole = len(sides) == 3 and all(type(side) is int for side in sides)
    if not whole or not 1 <= sides[0] <= sides[1] <= sides[2] <= MOST:
        raise EngineError(f"the compiled graph has no right profile, got {sides!r:.60}: compile it again")
    return sides[0], sides[1], sides[2]


def _settings(options: Options) -> Settings:
    return options.own if isinstance(options.own, Settings) else Settings()


def _ports(trt: Any, engine: Any) -> tuple[list[Port], list[Port]]:
    """The engine's inputs and outputs."""
    inputs: list[Port] = []
    outputs: list[Port] = []
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        port = Port(name, np.dtype(trt.nptype(engine.get_tensor_dtype(name))), tuple(engine.get_tensor_shape(name)))
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(port)
    return inputs, outputs


def _tensorrt() -> Any:
    forks.use_engines()
    try:
        import tensorrt
    except ImportError as error:
        raise MissingPackageError(f"the trt engine needs a package ({error}): pip install 'cluinfer[trt]'") from error
    if builder.parse_version(tensorrt.__version__) < OLDEST:
        raise EngineError(f"the trt engine needs TensorRT 8.6 or later, this is {tensorrt.__version__}: update it")
    return tensorrt
