"""Takes our plugins through NVIDIA's own Python code, as TensorRT would while it builds, and prints what came of it.

Run in a process of its own (tests/real_tensorrt.py). TensorRT itself is not here, so some of its C++ classes have
stand-ins: the plugin registry, a dimension's expression, lists of these, and what a launch is made of. Everything
between is NVIDIA's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt as trt

GROUPS = 6


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        self.creators[creator.name, creator.plugin_version, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))


class Expression:
    """A number, or one of which only the text is known."""

    def __init__(self, text: str, value: int | None = None) -> None:
        self.text, self.value = text, value

    def is_constant(self) -> bool:
        return self.value is not None

    def get_constant_value(self) -> int:
        assert self.value is not None
        return self.value


class Expressions:
    """IExprBuilder."""

    def constant(self, value: int) -> Expression:
        return Expression(str(value), value)

    def operation(self, kind: Any, first: Expression, second: Expression) -> Expression:
        signs = {trt.DimensionOperation.PROD: "*", trt.DimensionOperation.SUM: "+"}
        if kind == trt.DimensionOperation.SUM and second.value == 0:  # a copy, as the plugin code makes it
            return first
        return Expression(f"{first.text} {signs[kind]} {second.text}")


class List(list):  # type: ignore[type-arg]
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Symbol:
    """ISymExpr: an argument or a side of the grid."""

    type: Any
    dtype: Any
    expr: Expression


registry = Registry()
trt.get_plugin_registry = lambda: registry
trt.IDimensionExpr, trt.DimsExprs, trt.ISymExpr = Expression, List, Symbol

import tensorrt.plugin  # noqa: E402

from cluinfer.engines.trt import plugins  # noqa: E402
from cluinfer.errors import CluinferError  # noqa: E402


def described(kind: Any, shape: list[int | str | None]) -> Any:
    desc = trt.DynamicPluginTensorDesc()
    inner = trt.PluginTensorDesc()
    inner.type, inner.format = kind, trt.TensorFormat.LINEAR
    inner.dims = trt.Dims([side if isinstance(side, int) else -1 for side in shape])
    desc.desc = inner
    desc.min, desc.opt, desc.max = (
        trt.Dims([batch if side is None else int(side) for side in shape]) for batch in (1, 2, GROUPS)
    )
    return desc


def symbol(side: int | str | None) -> Expression:
    return Expression(str(side), side) if isinstance(side, int) else Expression("G" if side is None else "S")


def take_through(name: str, shapes: list[list[int | str | None]], kinds: list[str], attributes: dict[str, Any]) -> dict:
    """One node, all the way from its creation to the kernel for these types.

    A side is a number; None, one that is free; or the text of a number that the profile tells, and no symbol.
    """
    creator = registry.get_creator(name, "1", "cluinfer")
    declared = {each.name: str(each.type) for each in creator.field_names}
    fields = [
        trt.PluginField(
            key,
            np.array([value], np.int32 if isinstance(value, int) else np.float32),
            trt.PluginFieldType.INT32 if isinstance(value, int) else trt.PluginFieldType.FLOAT32,
        )
        for key, value in attributes.items()
    ]
    plugin = creator.create_plugin(
        *(name, "cluinfer", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD),
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    types = [getattr(trt, kind) for kind in kinds]
    outputs = plugin.get_output_data_types(types, [len(shape) for shape in shapes])
    symbols = [[symbol(side) for side in shape] for shape in shapes]
    out_shapes = plugin.get_output_shapes(symbols, [], Expressions())
    free = [[None] * len(shape) for shape in out_shapes]
    ports = [described(*each) for each in zip((*types, *outputs), (*shapes, *free), strict=True)]
    combinations = plugin.get_supported_format_combinations(ports, len(types))
    names = [str(each.type).rpartition(".")[2] for each in combinations]
    plugin.configure_plugin(ports[: len(types)], ports[len(types) :])
    tactics = plugin.get_valid_tactics()
    plugin.set_tactic(0)
    launch, setter = SimpleNamespace(), SimpleNamespace()
    plugin.get_launch_params(symbols, ports, len(types), launch, setter, Expressions())
    entry, ptx = plugin.get_kernel([p.desc for p in ports[: len(types)]], [p.desc for p in ports[len(types) :]])
    return {
        "declared": declared,
        "outputs": [str(kind).rpartition(".")[2] for kind in outputs],
        "shapes": [[side.text for side in shape] for shape in out_shapes],
        "combinations": [names[i : i + len(ports)] for i in range(0, len(names), len(ports))],
        "tactics": tactics,
        "launch": {key: value.expr.text for key, value in vars(launch).items()},
        "extras": setter.nbSymExprs,
        "entry": entry,
        "ptx": hashlib.sha256(ptx).hexdigest(),
    }


def main() -> None:
    asked = json.loads(sys.argv[1])
    made = []
    with plugins.building(asked["target"], {key: value.encode() for key, value in asked["kernels"].items()}) as state:
        for node in asked["nodes"]:
            try:
                made.append(take_through(**node))
            except CluinferError as error:
                made.append({"error": str(error), "remembered": state.error is error})
                state.error = None
        used = list(state.used)
    creators = sorted(name for name, _, _ in registry.creators)
    print(json.dumps({"creators": creators, "made": made, "used": used}))


main()
