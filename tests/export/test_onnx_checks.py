"""Graphs that are wrong, each in one way, and refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import body, clustering, node, refused, stored, tiny

from cluinfer.export.onnx_file import read_onnx
from cluinfer.graph import KEY

Change = Callable[[onnx.ModelProto], object]


def add_tensor(model: onnx.ModelProto, *dims: int, kind: int = TensorProto.FLOAT, **held: object) -> None:
    model.graph.initializer.add(name="w", dims=dims, data_type=kind, **held)


def nested_functions(count: int, calls: int) -> list[onnx.FunctionProto]:
    """f0 does nothing much; each other calls the one before `calls` times."""
    made = [body("f0 (x) => (y) { y = Neg (x) }")]
    for i in range(1, count):
        steps = [f"v{j + 1} = own.f{i - 1} (v{j})" for j in range(calls)]
        made.append(body(f"f{i} (v0) => (v{calls}) {{ {' '.join(steps)} }}"))
    return made


WRONG: dict[str, tuple[Change, str]] = {
    # the header
    "newer format": (
        lambda m: setattr(m, "ir_version", 999),
        f"is of ONNX format 999, this onnx package reads up to {onnx.IR_VERSION}; update onnx",
    ),
    "newer operators": (
        lambda m: setattr(m.opset_import[0], "version", 999),
        f"uses ONNX operators of version 999, known are 1 to {onnx.defs.onnx_opset_version()}; update onnx",
    ),
    "newer cluinfer operators": (
        lambda m: setattr(m.opset_import[1], "version", 2),
        "uses cluinfer operators of version 2, known are 1 to 1; update cluinfer",
    ),
    "two versions": (
        lambda m: m.opset_import.add(domain="ai.onnx", version=17),
        "imports the operators of domain '' twice; export it again",
    ),
    "training": (
        lambda m: m.training_info.add(),
        "holds training steps, wanted a graph to run; export the model in evaluation mode",
    ),
    "sparse tensor": (
        lambda m: m.graph.sparse_initializer.add(),
        "holds sparse tensors, which no engine runs; store them densely",
    ),
    "sparse constant": (
        lambda m: m.graph.node.add(op_type="Constant").attribute.add(name="a").sparse_tensor.SetInParent(),
        "holds sparse tensors, which no engine runs; store them densely",
    ),
    # tensors
    "too little data": (
        lambda m: add_tensor(m, 4, float_data=[1, 2, 3]),
        "tensor 'w' declares FLOAT [4], 4 numbers, but holds 3; export it again",
    ),
    "too much data": (
        lambda m: add_tensor(m, 2, float_data=[1, 2, 3]),
        "tensor 'w' declares FLOAT [2], 2 numbers, but holds 3; export it again",
    ),
    "no data": (
        lambda m: add_tensor(m, 2),
        "tensor 'w' declares FLOAT [2], 2 numbers, but holds 0; export it again",
    ),
    "raw data": (
        lambda m: add_tensor(m, 2, 2, raw_data=bytes(15)),
        "tensor 'w' declares FLOAT [2, 2], 16 bytes, but holds 15; export it again",
    ),
    "4-bit data": (
        lambda m: add_tensor(m, 3, kind=TensorProto.INT4, raw_data=bytes(3)),
        "tensor 'w' declares INT4 [3], 2 bytes, but holds 3; export it again",
    ),
    "data of another type": (
        lambda m: add_tensor(m, 2, kind=TensorProto.INT64, float_data=[1, 2]),
        "tensor 'w' declares INT64 [2], 2 numbers, but holds 0; export it again",
    ),
    "overflow": (
        lambda m: add_tensor(m, 2**40, 2**40),
        f"tensor 'w' declares sides [{2**40}, {2**40}]: more than 2 GiB",
    ),
    "overflow to zero": (
        lambda m: add_tensor(m, 2**32, 2**32),
        f"tensor 'w' declares sides [{2**32}, {2**32}]: more than 2 GiB",
    ),
    "negative side": (lambda m: add_tensor(m, -1, 3), "tensor 'w' has a negative side in [-1, 3]"),
    "odd type": (
        lambda m: add_tensor(m, 1, kind=TensorProto.COMPLEX64),
        "tensor 'w' is of type COMPLEX64, which no engine runs; use floats or integers",
    ),
    "unknown type": (
        lambda m: add_tensor(m, 1, kind=77),
        "tensor 'w' is of type number 77, which no engine runs; use floats or integers",
    ),
    "in a constant": (
        lambda m: (
            m.graph.node.add(op_type="Constant")
            .attribute.add(name="value")
            .t.MergeFrom(TensorProto(name="t", dims=[2], data_type=1))
        ),
        "tensor 't' declares FLOAT [2], 2 numbers, but holds 0; export it again",
    ),
    "in a function": (
        lambda m: (
            m.functions.extend([body("f () => (y) { y = Constant <value = float[2] {1, 2}> () }")])
            or m.functions[-1].node[0].attribute[0].t.dims.append(2)
        ),
        "tensor '' declares FLOAT [2, 2], 4 numbers, but holds 2; export it again",
    ),
    # functions
    "function twice": (
        lambda m: m.functions.extend([body("f (x) => (y) { y = Neg (x) }")] * 2),
        "defines the function own.f twice; export it again",
    ),
    "function that calls itself": (
        lambda m: m.functions.extend([body("f (x) => (y) { y = own.f (x) }")]),
        "has a function that calls itself: own.f -> own.f",
    ),
    "functions in a ring": (
        lambda m: m.functions.extend([body(f"{a} (x) => (y) {{ y = own.{b} (x) }}") for a, b in ("ab", "bc", "cb")]),
        "has a function that calls itself: own.b -> own.c -> own.b",
    ),
    "ring through a subgraph": (
        lambda m: m.functions.extend(
            [
                body(
                    "f (x, c) => (y) { y = If (c) <then_branch = t () => (a) { a = own.f (x, c) }, "
                    "else_branch = e () => (b) { b = Neg (x) }> }"
                )
            ]
        ),
        "has a function that calls itself: own.f -> own.f",
    ),
    "a billion laughs": (
        lambda m: m.functions.extend(nested_functions(30, 10)),
        "unfolds to more than 100000 nodes, more than any model has; it may be hostile",
    ),
    "deep functions": (
        lambda m: m.functions.extend(nested_functions(2000, 1)),
        "has functions within functions more than 32 deep; inline them before",
    ),
    "deep functions, the deepest first": (
        lambda m: m.functions.extend(reversed(nested_functions(2000, 1))),
        "has functions within functions more than 32 deep; inline them before",
    ),
    # values
    "two inputs": (lambda m: m.graph.input.add(name="x"), "has two inputs called 'x'; export it again"),
    "two outputs": (
        lambda m: m.graph.output.add().CopyFrom(m.graph.output[0]),
        "has two outputs called 'y'; export it again",
    ),
    "two tensors": (
        lambda m: [add_tensor(m, 1, float_data=[1]) for _ in range(2)],
        "has two tensors called 'w'; export it again",
    ),
    "value made twice": (
        lambda m: m.graph.node.add().CopyFrom(m.graph.node[0]),
        "makes the value 'y' twice; export it again",
    ),
    "value over an input": (
        lambda m: m.graph.node.add(op_type="Neg", input=["y"], output=["x"]),
        "makes the value 'x' twice; export it again",
    ),
    "absent value": (
        lambda m: m.graph.node[0].input.__setitem__(0, "gone"),
        "reads the value 'gone', which nothing makes; export it again",
    ),
    "absent output": (
        lambda m: setattr(m.graph.output[0], "name", "gone"),
        "the graph gives the output 'gone', which nothing makes; export it again",
    ),
    "circle of one": (
        lambda m: m.graph.node[0].input.__setitem__(0, "y"),
        "goes in a circle through the value 'y': it is made from itself",
    ),
    "circle": (
        lambda m: m.graph.node.extend(
            helper.make_node("Neg", [a], [b]) for a, b in [("r", "p"), ("p", "q"), ("q", "r")]
        ),
        "goes in a circle through the value 'r': it is made from itself",
    ),
    "out of order": (
        lambda m: m.graph.node.extend(helper.make_node("Neg", [a], [b]) for a, b in [("q", "p"), ("x", "q")]),
        "uses the value 'q' before it is made; sort the nodes",
    ),
    "function with two inputs": (
        lambda m: m.functions.extend([body("f (x, x) => (y) { y = Neg (x) }")]),
        "function 'f' has two inputs called 'x'; export it again",
    ),
    "function without its output": (
        lambda m: m.functions.extend([body("f (x) => (y) { z = Neg (x) }")]),
        "function 'f' gives the output 'y', which nothing makes; export it again",
    ),
    "function reading what is not its own": (
        lambda m: m.functions.extend([body("f (a) => (b) { b = Neg (x) }")]),
        "reads the value 'x', which nothing makes; export it again",
    ),
    # operators
    "unknown operator": (
        lambda m: setattr(m.graph.node[0], "op_type", "Frobnicate"),
        "uses Frobnicate, which neither ONNX (operators of version 18) nor the file defines; export it again",
    ),
    "unknown operator of another domain": (
        lambda m: setattr(m.graph.node[0], "domain", "own"),
        "uses own.Neg, which neither ONNX (operators of version 1) nor the file defines; replace it, or give it a "
        "function body",
    ),
    "domain not imported": (
        lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
        "uses com.microsoft.Neg without importing its domain; export it again",
    ),
    "names that would break the line": (
        lambda m: setattr(m.graph.node[0], "op_type", "a\nb\x1b[31m" + "c" * 100),
        f"uses a?b?[31m{'c' * 49}..., which neither ONNX (operators of version 18) nor the file defines; export it "
        "again",
    ),
    "too many inputs for a function": (
        lambda m: (
            m.functions.extend([body("f (a) => (b) { b = Neg (a) }")])
            or m.graph.node.extend([helper.make_node("f", ["x", "x"], ["z"], domain="own")])
        ),
        "gives own.f 2 inputs, its function body has 1; export it again",
    ),
    # what ONNX itself checks
    "attribute that does not exist": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("colour", 1)),
        "ONNX's own check refuses it: Unrecognized attribute: colour for operator Neg",
    ),
    "shape that is not so": (
        lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 4),
        "ONNX's own check refuses it: (op_type:Neg): Inferred shape and existing shape differ in dimension 1: (3) "
        "vs (4)",
    ),
    "type that is not so": (
        lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT32),
        "ONNX's own check refuses it: (op_type:Neg): [TypeInferenceError] Inferred elem type differs from existing "
        "elem type: (1) vs (6)",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_graphs(tmp_path: Path, change: Change, message: str) -> None:
    model = tiny()
    change(model)
    assert refused(stored(tmp_path, model)) == message


# --- cluinfer nodes

ASSIGN, SCATTER = "ClusterAssign", "ClusterScatter"
WRONG_NODES: dict[str, tuple[Change, str]] = {
    "no function body": (
        lambda m: m.functions.pop(0),
        "uses cluinfer.ClusterAssign, which neither ONNX (operators of version 1) nor the file defines; export it "
        "again",
    ),
    "unknown operator": (
        lambda m: setattr(node(m, ASSIGN), "op_type", "ClusterDance"),
        "uses cluinfer.ClusterDance, which is none of ClusterAssign, ClusterScatter, ClusterGather; update cluinfer",
    ),
    "too few inputs": (
        lambda m: node(m, ASSIGN).input.pop(),
        "gives cluinfer.ClusterAssign 1 inputs, wanted 2; export it again",
    ),
    "an input left out": (
        lambda m: node(m, SCATTER).input.__setitem__(1, ""),
        "gives cluinfer.ClusterScatter 2 inputs, wanted 3 or 4; export it again",
    ),
    "too many inputs": (
        lambda m: node(m, SCATTER).input.extend(["weight", "weight"]),
        "gives cluinfer.ClusterScatter 5 inputs, wanted 3 or 4; export it again",
    ),
    "more inputs than the body": (
        lambda m: node(m, SCATTER).input.append("weight"),
        "gives cluinfer.ClusterScatter 4 inputs, its function body has 3; export it again",
    ),
    "too many outputs": (
        lambda m: node(m, ASSIGN).output.append("more"),
        "takes 3 outputs of cluinfer.ClusterAssign, it has 2",
    ),
    "missing attribute": (
        lambda m: node(m, ASSIGN).attribute.pop(),
        "gives cluinfer.ClusterAssign the attributes alpha, beta, wanted alpha, beta, sigmoid; export it again",
    ),
    "surplus attribute": (
        lambda m: node(m, SCATTER).attribute.append(helper.make_attribute("alpha", 1.0)),
        "gives cluinfer.ClusterScatter the attributes alpha, wanted none; export it again",
    ),
    "attribute of another type": (
        lambda m: node(m, ASSIGN).attribute[2].CopyFrom(helper.make_attribute("sigmoid", 1.0)),
        "gives cluinfer.ClusterAssign a wrong attribute sigmoid: wanted a finite int",
    ),
    "attribute that is not a number": (
        lambda m: node(m, ASSIGN).attribute[0].CopyFrom(helper.make_attribute("alpha", float("nan"))),
        "gives cluinfer.ClusterAssign a wrong attribute alpha: wanted a finite float",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_NODES.values(), ids=WRONG_NODES)
def test_wrong_cluinfer_nodes(tmp_path: Path, change: Change, message: str) -> None:
    model = clustering()
    change(model)
    assert refused(stored(tmp_path, model)) == message


# --- a description that lies


def described(**changes: object) -> Change:
    """Change the description's fields; a field of the map is written as `maps_heads`."""

    def change(model: onnx.ModelProto) -> None:
        held = json.loads(model.metadata_props[0].value)
        for name, value in changes.items():
            if name.startswith("maps_"):
                held["maps"][0][name.removeprefix("maps_")] = value
            else:
                held[name] = value
        model.metadata_props[0].value = json.dumps(held)

    return change


LIES: dict[str, tuple[Change, str]] = {
    "twice": (
        lambda m: m.metadata_props.add(key=KEY, value="{}"),
        "describes itself 2 times (metadata 'cluinfer'); export it again",
    ),
    "not JSON": (
        lambda m: setattr(m.metadata_props[0], "value", "{"),
        "the graph's description is not JSON: Expecting property name enclosed in double quotes: line 1 column "
        "2 (char 1)",
    ),
    "classes": (described(classes=3), "the graph promises logits of shape [?, 3], but it has [?, 2]"),
    "heads": (
        described(maps_heads=2),
        "the graph promises clusters/network.0 of shape [?, 2, 4, 4], but it has [?, 1, 4, 4]",
    ),
    "size of a map": (
        described(maps_size=[2, 8]),
        "the graph promises clusters/network.0 of shape [?, 1, 2, 8], but it has [?, 1, 4, 4]",
    ),
    "layer": (
        described(maps_layer="network.9"),
        "the graph promises outputs it does not have: clusters/network.9 and has outputs it does not promise: "
        "clusters/network.0; export it again",
    ),
    "no evidence": (
        described(evidence=0),
        "the graph has outputs it does not promise: evidence, evidence_classes; export it again",
    ),
    "more evidence": (
        described(evidence=2),
        "the graph promises evidence of shape [?, 2, ?, ?], but it has [?, 1, 4, 4]",
    ),
    "attention": (
        described(attention=2),
        "the graph promises outputs it does not have: attention/last, attention/inner, attention_classes; export it "
        "again",
    ),
    "size of the input": (
        described(size=[8, 8]),
        "the graph describes its input as FLOAT [?, 3, 8, 8], but it is FLOAT [?, 3, 4, 4]",
    ),
    "name of the input": (
        lambda m: [setattr(m.graph.input[0], "name", "picture"), m.graph.node[0].input.__setitem__(0, "picture"),
                   m.graph.node[1].input.__setitem__(0, "picture")],
        "the graph describes itself as taking 'image', but its inputs are 'picture'",
    ),
    "another input": (
        lambda m: m.graph.input.add().CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])),
        "the graph describes itself as taking 'image', but its inputs are 'image', 'more'",
    ),
    "type of a map": (
        lambda m: [
            setattr(m.graph.output[1].type.tensor_type, "elem_type", TensorProto.FLOAT),
            m.graph.node[5].input.__setitem__(0, "weight"),
        ],
        "the output clusters/network.0 is FLOAT, wanted INT32",
    ),
    "type of the classes": (
        lambda m: [
            setattr(m.graph.output[3].type.tensor_type, "elem_type", TensorProto.FLOAT),
            node(m, "Cast").attribute[0].CopyFrom(helper.make_attribute("to", 1)),
        ],
        "the output evidence_classes is FLOAT, wanted INT32",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), LIES.values(), ids=LIES)
def test_descriptions_that_lie(tmp_path: Path, change: Change, message: str) -> None:
    model = clustering()
    change(model)
    assert refused(stored(tmp_path, model)) == message


def test_a_large_graph_is_read(tmp_path: Path) -> None:
    model = tiny()
    names = ["x", *(f"v{i}" for i in range(20_000))]
    model.graph.node.extend(helper.make_node("Neg", [a], [b]) for a, b in pairwise(names))
    assert len(read_onnx(stored(tmp_path, model)).graph.node) == len(tiny().graph.node) + 20_000
