"""From a model to one ONNX file that says what it is and runs anywhere."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import nn

from cluinfer.errors import CluinferError, GraphError, ShapeError
from cluinfer.export.load import AssumptionWarning
from cluinfer.export.models import family_of
from cluinfer.export.models.config import ClusterConfig
from cluinfer.export.models.icasc import Icasc, IcascAttention, IcascConfig
from cluinfer.export.nn.backbone import ClusterNet
from cluinfer.export.onnx_checks import check_model
from cluinfer.export.outputs import BATCH, add_evidence, add_maps, choose_layers, find_layers
from cluinfer.export.passes import ORDER, Done, count_nodes, run_passes
from cluinfer.export.translate import LAYER, LAYOUT, translate
from cluinfer.graph import ATTENTION, ATTENTION_CLASSES, FEATURES, INPUT, KEY, LIMIT, LOGITS, Pair, Preprocess, Promise
from cluinfer.ops.functions import functions
from cluinfer.ops.schema import DOMAIN

Size = int | str | tuple[int, int]


@dataclass(frozen=True)
class Explained:
    """What the passes did, for `cluinfer export --explain`."""

    passes: tuple[Done, ...]
    nodes_before: int
    nodes_after: int


def to_onnx(
    module: nn.Module | torch.export.ExportedProgram,
    size: Size | None = None,
    maps: str | Sequence[str] = "stages",
    evidence: int = 0,
    optimize: bool = True,
    *,
    attention: Sequence[int] | None = None,
    names: Sequence[str] = (),
    preprocess: Preprocess | None = None,
    similarities: bool = False,
    explain: Callable[[Explained], None] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> onnx.ModelProto:
    """The model as ONNX with cluinfer operators, their function bodies, and a description of all its outputs.

    `size`: of the images, 224, "224x320" or (224, 320); by default the model's own. `maps`: "none", "stages", "all",
    or layers by name. `evidence`: for how many classes. `attention`: the classes that an ICASC model shows attention
    for, by default the two likeliest. `names`: of the classes. `similarities`: whether each map comes with how similar
    the points are to their centres. The batch is always dynamic. `explain` is told what the passes did, `progress` what
    is being done.
    """
    if evidence < 0:
        raise GraphError(f"evidence for {evidence} classes: wanted 0 or more")
    if attention is not None and not isinstance(module, Icasc):
        raise GraphError("attention was asked for, which ICASC models alone give")
    settings = getattr(module, "config", None)
    settings = settings if isinstance(settings, ClusterConfig | IcascConfig) else None
    arch = str(getattr(module, "arch", "custom"))
    if isinstance(module, torch.export.ExportedProgram):
        program, height_width = module, _program_size(module)
        if size is not None and _pair(size) != height_width:
            raise ShapeError(f"a torch.export program is of one size: wanted {size}, it is {height_width}")
    else:
        height_width = _pair(size if size is not None else settings.size if settings else 224)
        if size is None and getattr(module, "size_assumed", False):
            text = f"{height_width[0]}x{height_width[1]}"
            warnings.warn(
                f"images of {text} were assumed, a checkpoint does not say; give the size that it was trained on",
                AssumptionWarning,
                stacklevel=2,
            )
        progress(f"tracing {arch} at {height_width[0]}x{height_width[1]}")
        program = _trace(IcascAttention(module, attention) if isinstance(module, Icasc) else module, height_width)
    features = 0
    if isinstance(module, ClusterNet) and not module.has_head:
        features = len(program.graph_signature.user_outputs)
    outputs = [f"{FEATURES}/{i + 1}" for i in range(features)] or [LOGITS]
    if isinstance(module, Icasc):
        outputs += [ATTENTION_CLASSES, *ATTENTION]
    progress("translating to ONNX")
    model = translate(program, [INPUT], outputs)
    before = count_nodes(model)
    _rename_batch(model)
    classes = None if features else _count_classes(model, outputs)
    if names and len(names) != classes:
        raise GraphError(f"{len(names)} class names were given, the model has {classes or 'no'} classes")
    done = run_passes(model, ORDER[:1]) if optimize else []  # what is a clustering, before its map is asked for
    chosen = choose_layers(find_layers(model), maps)
    if similarities and not chosen:
        raise GraphError("similarities were asked for, but there is no cluster map to show them beside")
    add_maps(model, chosen, similarities)
    if evidence:
        add_evidence(model, evidence)
    if optimize:
        progress("optimizing the graph")
        done += run_passes(model, ORDER[1:])
    promise = Promise(
        arch=arch,
        family=family_of(settings) if settings is not None else "custom",
        size=height_width,
        classes=classes,
        names=tuple(names),
        preprocess=preprocess or Preprocess(),
        maps=chosen,
        similarities=similarities,
        evidence=evidence,
        attention=(len(attention) if attention else 2) if isinstance(module, Icasc) else 0,
        features=features,
    )
    if explain:
        explain(Explained(tuple(done), before, count_nodes(model)))
    progress("checking the graph")
    return _finish(model, promise)


def _trace(module: nn.Module, size: Pair) -> torch.export.ExportedProgram:
    """The torch.export program for a dynamic batch of images of this size."""
    if isinstance(module, ClusterNet):
        module.check_size(*size)
    try:
        image = torch.zeros(2, 3, *size)  # a batch of 1 would be taken for a constant
        with torch.no_grad(), _evaluating(module):
            return torch.export.export(module, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    except CluinferError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise GraphError(
            f"the model cannot be traced for images of {size[0]}x{size[1]} and any batch: "
            f"{lines[0].strip()[:200] if lines else type(error).__name__}"
        ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: a model that is still being trained goes on as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _count_classes(model: ir.Model, outputs: Sequence[str]) -> int:
    """The classes of the logits, which must be what the model gives, and all that it gives."""
    shapes = [list(value.shape or ()) for value in model.graph.outputs]
    if len(shapes) == len(outputs) and len(shapes[0]) == 2 and isinstance(shapes[0][1], int):
        return shapes[0][1]
    came = ", ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
    raise GraphError(f"wanted a model that gives logits [batch, classes] and nothing else, this one gives {came}")


def _program_size(program: torch.export.ExportedProgram) -> Pair:
    """The size of the images that a program takes."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shapes = [list(value.shape) if isinstance(value, torch.Tensor) else [] for value in inputs]
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 3 and all(type(s) is int for s in shapes[0][2:]):
        return shapes[0][2], shapes[0][3]
    raise GraphError(f"wanted a program of one image [batch, 3, height, width] of fixed size, its inputs are {shapes}")


def _pair(size: Any) -> Pair:
    """A size as (height, width)."""
    parts = size.split("x") if isinstance(size, str) else [size] if isinstance(size, int) else list(size)
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2) or not 1 <= min(numbers) <= max(numbers) <= LIMIT:
        raise ShapeError(f"size {size!r}: wanted a positive number up to {LIMIT}, or HEIGHTxWIDTH")
    return numbers[0], numbers[-1]


def _rename_batch(model: ir.Model) -> None:
    """Call the dynamic dimension what it is, everywhere."""
    dimension = model.graph.inputs[0].shape[0]  # type: ignore[index]
    symbol = dimension.value if isinstance(dimension, ir.SymbolicDim) else None
    if symbol is None:
        raise GraphError("the program's batch is fixed; export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)")
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            sides = [side if isinstance(side, int) else side.value for side in value.shape]
            value.shape = ir.Shape([re.sub(rf"\b{symbol}\b", BATCH, s) if isinstance(s, str) else s for s in sides])


def _one_arity_each(model: ir.Model) -> dict[str, int]:
    """The number of inputs of each cluinfer operator in use.

    A file's function body has one: where an operator is used with and without its optional weight, ones are given.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    most = {node.op_type: max(len(n.inputs) for n in nodes if n.op_type == node.op_type) for node in nodes}
    for node in nodes:
        if len(node.inputs) < most[node.op_type]:
            index = node.inputs[1]
            same = ir.node("Equal", [index, index])
            ones = ir.node("Cast", [same.outputs[0]], {"to": ir.DataType.FLOAT})
            model.graph.insert_before(node, [same, ones])
            node.resize_inputs(most[node.op_type])
            node.replace_input_with(most[node.op_type] - 1, ones.outputs[0])
    return most


def _finish(model: ir.Model, promise: Promise) -> onnx.ModelProto:
    """Add the function bodies and the description, name every value plainly, and check the whole."""
    for node in model.graph.all_nodes():
        kept = {
            key: value for key, value in node.metadata_props.items() if node.domain == DOMAIN and key in (LAYER, LAYOUT)
        }
        node.metadata_props.clear()
        node.metadata_props.update(kept)
    order = {name: position for position, name in enumerate(promise.outputs)}
    outputs = sorted(model.graph.outputs, key=lambda value: order[value.name or ""])
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    model.graph.sort()
    used = _one_arity_each(model)
    model.metadata_props[KEY] = promise.to_json()
    proto = ir.to_proto(model)
    proto.functions.extend(functions(used))
    check_model(proto)  # what could not be read again is not written
    return proto
