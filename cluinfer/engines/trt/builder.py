"""From a graph to a TensorRT engine: network, profile, types, timing cache, and a look at what came out.

Networks are strongly typed from TensorRT 10 on: types are those of the graph. Before, they are flags, and every layer
is held to the type of its input. TF32 is off: float32 means float32, above all in the similarities.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluinfer.engines.trt import timing_cache
from cluinfer.engines.trt.settings import Profile, Settings
from cluinfer.errors import EngineError

STRONGLY_TYPED, PLUGINS, MONITOR = (10, 0), (10, 9), (9, 0)  # the first release with each

Version = tuple[int, int]
# TensorRT goes on using the first logger that it is given, by its address, in whatever else is made later.
_loggers: list[Any] = []


@dataclass(frozen=True)
class Built:
    """A serialized engine, and of how many layers' outputs each type is."""

    content: bytes
    types: Counter[str]


def parse_version(text: str) -> Version:
    """The first two numbers of a version such as 10.9.0.34."""
    numbers = re.match(r"(\d+)\.(\d+)", text)
    if numbers is None:
        raise EngineError(f"TensorRT says it is of version {text!r:.60}, which is none")
    return int(numbers[1]), int(numbers[2])


def build(trt: Any, graph: bytes, precision: str, profile: Profile, settings: Settings, gpu_name: str) -> Built:
    """Build; `graph` as graph.py made it for this version."""
    version = parse_version(trt.__version__)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt, version))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [describe_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"TensorRT {trt.__version__} cannot take the graph: {'; '.join(errors[:3]) or log.last()}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector says nothing of types
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace << 20)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if version < STRONGLY_TYPED:
        _set_types(trt, network, config, precision)
        # else two contexts, as for two streams, would each need a profile of its own; TensorRT 10 always does it
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    _set_profile(builder, network, config, profile)
    if settings.progress is not None and version >= MONITOR:
        config.progress_monitor = _monitor(trt, settings.progress)
    kept = timing_cache.read(trt.__version__, gpu_name)
    cache = config.create_timing_cache(kept) or config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(f"TensorRT {trt.__version__} cannot build an engine: {log.last()}")
    timing_cache.write(trt.__version__, gpu_name, bytes(cache.serialize()))
    content = bytes(serialized)
    types = _types(trt, log, content)
    check_built(types, precision)
    return Built(content, types)


def describe_parser_error(error: Any) -> str:
    """What the parser did not like, and where; older versions know less of it."""
    places = [
        f"{getattr(error, field)()}"
        for field in ("node_operator", "node_name")
        if callable(getattr(error, field, None))
    ]
    where = " ".join(place for place in places if place) or f"node {error.node()}"
    return f"{where}: {' '.join(error.desc().split()):.200}"


def types_of_layers(information: str) -> Counter[str]:
    """How many layers give outputs of which type, from what the engine's inspector says as JSON."""
    found: Counter[str] = Counter()
    try:
        layers = json.loads(information).get("Layers", [])
    except ValueError:  # an engine that took minutes is not thrown away for how TensorRT writes of it
        return found
    for each in layers:
        if not isinstance(each, dict):  # names alone: the engine was built without details
            continue
        for output in each.get("Outputs", []):
            text = str(output.get("Format/Datatype") or output.get("Datatype") or "")
            for name, pattern in _TYPES.items():
                if re.search(pattern, text, re.IGNORECASE):
                    found[name] += 1
                    break
    return found


# "Row major linear FP16 format", "Half", "Channel major FP32 format where ...", "Float", "Four wide channel vectorized
# row major Int8 format"
_TYPES = {
    "int8": r"\bint8\b",
    "fp16": r"\b(fp16|half)\b",
    "bf16": r"\b(bf16|bfloat16)\b",
    "fp32": r"\b(fp32|float)\b",
    "int32": r"\bint32\b",
    "int64": r"\bint64\b",
    "bool": r"\bbool\b",
}


def check_built(types: Counter[str], precision: str) -> None:
    """Refuse an engine without a layer of the precision that was asked for."""
    if types and not types[precision]:
        held = ", ".join(f"{count} {name}" for name, count in types.most_common())
        raise EngineError(f"{precision} was asked for, but no layer of the engine computes in it; layers: {held}")


def _network_flags(trt: Any, version: Version) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if version < STRONGLY_TYPED:
        return 1 << int(flags.EXPLICIT_BATCH)
    made = 1 << int(flags.STRONGLY_TYPED)
    if version >= PLUGINS:
        made |= 1 << int(flags.PREFER_AOT_PYTHON_PLUGINS)
    return made


def _set_types(trt: Any, network: Any, config: Any, precision: str) -> None:
    """What a strongly typed network does by itself: every layer computes in the type that it is given."""
    if precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    kinds = trt.LayerType
    floats = (trt.float32, trt.float16)
    free = (kinds.CONSTANT, kinds.SHAPE, kinds.CAST, kinds.QUANTIZE, kinds.DEQUANTIZE)
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    # A layer that reads a pair is to run in int8: held to the type of the pair's output, it would not.
    given = {layer.get_output(0).name for layer in layers if layer.type == kinds.DEQUANTIZE}
    for layer in layers:
        inputs = [each for i in range(layer.num_inputs) if (each := layer.get_input(i)) is not None]
        if layer.type in free or any(each.name in given for each in inputs):
            continue
        taken = [each.dtype for each in inputs if each.dtype in floats]  # a selection's first input is the condition
        if taken:
            layer.precision = taken[0]


def _set_profile(builder: Any, network: Any, config: Any, batches: Sequence[int]) -> None:
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        free = [axis for axis, side in enumerate(tensor.shape) if side < 0]
        if free not in ([0], []):
            raise EngineError(f"input {tensor.name} has free sides {free}; only the batch may be free: export it again")
        if free:
            profile.set_shape(tensor.name, *((batch, *tuple(tensor.shape)[1:]) for batch in batches))
        elif any(batch != tensor.shape[0] for batch in batches):
            raise EngineError(
                f"the graph's batch is fixed to {tensor.shape[0]}, {':'.join(map(str, batches))} is wanted"
            )
    config.add_optimization_profile(profile)


def _types(trt: Any, log: Any, content: bytes) -> Counter[str]:
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(f"TensorRT does not load the engine that it has built: {log.last()}")
    inspector = engine.create_engine_inspector()
    return types_of_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps what went wrong, to be said in one line."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(" ".join(message.split()))

        def last(self) -> str:
            return f"{self.errors[-1]:.300}" if self.errors else "it does not say why"

    made = Log()
    _loggers.append(made)
    return made


def _monitor(trt: Any, progress: Callable[[str], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """The outermost phases, as they begin; inner ones are too many."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                progress(f"TensorRT: {phase_name}")

        def phase_finish(self, phase_name: str) -> None:
            """Nothing to say."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # goes on

    return Monitor()


def logger(trt: Any) -> Any:
    """A logger that keeps errors; `last` says the last one."""
    return _logger(trt)
