"""config.pbtxt, which says to Triton what a model takes, gives, and how it is run; and the manifest for KServe.

- Tensors have the names that the graph gives them: image, logits, clusters/<layer>, ...
- With `pictures`, a request gives either `image` or `picture`, the bytes of one JPEG, PNG, ... as uint8 [1, n]. Not as
  a text: where Python has NumPy 2, Triton's Python backend dies of any text it is given.
- The batches that an engine was compiled for are preferred; an engine for single images takes what waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluinfer.errors import CluinferError, NotShownError
from cluinfer.graph import ATTENTION_CLASSES, EVIDENCE_CLASSES, INPUT, LOGITS, Promise

PICTURE = "picture"
LABELS = "labels.txt"
MARK = "# Written by `cluinfer package triton`; writing the model again replaces it."
_BATCH = 8  # at least: what waits together is handed over together


@dataclass(frozen=True)
class Serving:
    """How a model is to be served. None: as fits the artifact, or as the engine chooses."""

    maps: tuple[str, ...] | None = None  # by alias or layer; None: all that the model shows
    pictures: bool = False  # files of pictures are taken, too
    max_batch: int | None = None
    delay: int = 0  # microseconds that a request may wait for others
    instances: int = 1
    threads: int | None = None  # of the engine, in each instance

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("delay", 0), ("instances", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and least <= value <= 10_000_000):
                raise CluinferError(f"{name} must be a whole number of {least} or more, got {value!r:.60}")

    def outputs(self, promise: Promise) -> tuple[str, ...]:
        """The outputs of the graph that are served: all but the maps that are not wanted."""
        if self.maps is None:
            return promise.outputs
        wanted = set()
        for name in self.maps:
            found = next((each for each in promise.maps if name in (each.alias, each.layer)), None)
            if found is None:
                there = ", ".join(each.alias or each.layer for each in promise.maps) or "none"
                raise NotShownError(f"no cluster map {name!r:.100}; there are {there}")
            wanted |= {found.output, found.similarity}
        left_out = {name for each in promise.maps for name in (each.output, each.similarity)} - wanted
        return tuple(name for name in promise.outputs if name not in left_out)


@dataclass(frozen=True)
class Batches:
    """What an engine takes at once: at most this many images, and how many it was compiled for."""

    most: int
    best: int

    @classmethod
    def of(cls, compiled: int, wanted: int | None) -> Batches:
        """For an engine that was compiled for so many images, which the runtime pads to and cuts into."""
        most = max(_BATCH // compiled * compiled, compiled) if wanted is None else wanted
        if most < compiled:
            raise CluinferError(f"max_batch {most} is less than the {compiled} images that the engine was built for")
        return cls(most, compiled)

    @property
    def preferred(self) -> list[int]:
        """Sizes that leave no image of padding; none where every size does."""
        return list(range(self.best, self.most + 1, self.best)) if self.best > 1 else []


def config(name: str, promise: Promise, serving: Serving, batches: Batches, plan: bool) -> str:
    """The text of config.pbtxt. `plan`: an engine that Triton's own TensorRT backend runs, else the Python backend."""
    height, width = promise.size
    optional = ["optional: true"] if serving.pictures else []
    inputs = [_block(_tensor(INPUT, "TYPE_FP32", (3, height, width)) + optional)]
    if serving.pictures:  # ragged: files of different lengths go into one batch, each request its own array
        inputs.append(_block([*_tensor(PICTURE, "TYPE_UINT8", (-1,)), "allow_ragged_batch: true", *optional]))
    outputs = [_block(_output(promise, each)) for each in serving.outputs(promise)]
    batching = [f"preferred_batch_size: {batches.preferred}"] if batches.preferred else []
    batching += [f"max_queue_delay_microseconds: {serving.delay}"]
    group = [f"count: {serving.instances}", f"kind: {'KIND_GPU' if plan else 'KIND_CPU'}"]
    parts = [
        MARK,
        f"name: {_text(name)}",
        'platform: "tensorrt_plan"' if plan else 'backend: "python"',
        f"max_batch_size: {batches.most}",
        f"input {_list(inputs)}",
        f"output {_list(outputs)}",
        *([f"dynamic_batching {_block(batching)}"] if batches.most > 1 else []),  # else it only costs a thread's turn
        f"instance_group {_list([_block(group)])}",
        "version_policy { latest { num_versions: 1 } }",
        *(f"model_warmup {_list([_warm_up(size, promise)])}" for size in sorted({1, batches.best})),
    ]
    if serving.threads is not None and not plan:
        parts.append(f'parameters {{ key: "threads" value {{ string_value: "{serving.threads}" }} }}')
    return "\n".join(parts) + "\n"


def kserve(name: str, storage: str, image: str | None) -> str:
    """An InferenceService of KServe for the repository at this address; `image`: a server with cluinfer in it."""
    model = [
        "      modelFormat: { name: triton }",
        "      protocolVersion: v2",
        f"      storageUri: {json.dumps(storage)}",
        *([] if image is None else [f"      image: {json.dumps(image)}"]),
    ]
    return "\n".join(
        [
            MARK,
            "apiVersion: serving.kserve.io/v1beta1",
            "kind: InferenceService",
            "metadata:",
            f"  name: {service_name(name)}",
            "spec:",
            "  predictor:",
            "    model:",
            *model,
            "",
        ]
    )


def check_name(name: str) -> str:
    """A name that is a folder, part of a URL, and nothing that Triton or a file system reads otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) or name.endswith("."):
        raise CluinferError(
            f"{name!r:.120} cannot name a model of Triton: wanted letters, digits, _, - and ., at most 100, the first "
            "a letter or digit; give one with --name"
        )
    return name


def service_name(name: str) -> str:
    """As Kubernetes takes it: small letters, digits and hyphens, a letter first, at most 63."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"m-{plain}")[:63].strip("-")


def _output(promise: Promise, name: str) -> list[str]:
    if name == LOGITS:
        labels = [f"label_filename: {_text(LABELS)}"] if promise.names else []
        return [*_tensor(name, "TYPE_FP32", (promise.classes or -1,)), *labels]
    for each in promise.maps:
        if name in (each.output, each.similarity):
            return _tensor(name, "TYPE_INT32" if name == each.output else "TYPE_FP32", (each.heads, *each.size))
    if name == EVIDENCE_CLASSES:
        return _tensor(name, "TYPE_INT32", (promise.evidence,))
    if name == ATTENTION_CLASSES:
        return _tensor(name, "TYPE_INT64", (promise.attention,))
    return _tensor(name, "TYPE_FP32", (-1, -1, -1))  # features, evidence, attention


def _tensor(name: str, kind: str, sides: Sequence[int]) -> list[str]:
    return [f"name: {_text(name)}", f"data_type: {kind}", f"dims: {list(sides)}"]


def _warm_up(size: int, promise: Promise) -> str:
    value = f"{{ data_type: TYPE_FP32 dims: {[3, *promise.size]} zero_data: true }}"
    return _block([f'name: "{size}"', f"batch_size: {size}", f'inputs {{ key: "{INPUT}" value {value} }}'])


def _block(lines: Sequence[str]) -> str:
    return "{ " + ", ".join(lines) + " }"


def _list(blocks: Sequence[str]) -> str:
    return "[\n" + ",\n".join(f"  {each}" for each in blocks) + "\n]"


def _text(text: str) -> str:
    """A text of protobuf: octal escapes for whatever is not plain."""
    plain = (chr(each) if 32 <= each < 127 and each not in b'"\\' else f"\\{each:03o}" for each in text.encode())
    return f'"{"".join(plain)}"'
