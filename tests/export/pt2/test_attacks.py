"""Programs from an attacker: a good file with one thing changed. Each is refused, and nothing of it is executed.

For most attacks a test shows that plain torch.export.load does execute them: else the refusal would prove nothing.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cluinfer.errors import CheckpointError
from cluinfer.export.program import read_program

IMAGE = torch.rand(2, 3, 8, 8)
Entries = dict[str, bytes]
Attack = Callable[[Entries, Path], None]


class Net(nn.Module):
    """A small network with a bit of everything that an attack can change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 5)
        self.register_buffer("scale", torch.ones(5), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image).relu()
        with torch.no_grad():
            y = x.reshape(image.shape[0] * 2, 2, 2, 2).sum((2, 3)).reshape(-1, 4)
        return self.head(y) * self.get_buffer("scale")


@pytest.fixture(scope="module")
def good() -> Entries:
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    data = io.BytesIO()
    torch.export.save(torch.export.export(Net().eval(), (IMAGE,), dynamic_shapes=dynamic), data)
    with zipfile.ZipFile(data) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, entries: Entries, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"net/{name}", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_program(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    return message


def test_the_good_file_is_read(tmp_path: Path, good: Entries) -> None:
    path = write(tmp_path / "good.pt2", good)
    assert torch.equal(read_program(path).module()(IMAGE), torch.export.load(path).module()(IMAGE))


class Malicious:
    """Unpickling this leaves a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(mark: Path) -> bytes:
    data = io.BytesIO()
    torch.save({"x": Malicious(mark)}, data)
    return data.getvalue()


def change(entries: Entries, name: str, edit: Callable[[Any], None]) -> None:
    document = json.loads(entries[name])
    edit(document)
    entries[name] = json.dumps(document).encode()


def change_graph(entries: Entries, edit: Callable[[Any], None]) -> None:
    change(entries, "models/model.json", lambda document: edit(document["graph_module"]["graph"]))


WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


def code(mark: Path) -> str:
    return f"__import__('os').mkdir({str(mark)!r})"


def pickled_weight(entries: Entries, mark: Path) -> None:
    change(entries, WEIGHTS, lambda held: held["config"]["head.bias"].update(use_pickle=True))
    file = json.loads(entries[WEIGHTS])["config"]["head.bias"]["path_name"]
    entries[f"data/weights/{file}"] = pickled(mark)


def pickled_constant(entries: Entries, mark: Path) -> None:
    change(entries, CONSTANTS, lambda held: held["config"]["scale"].update(use_pickle=True))
    entries["data/constants/tensor_0"] = pickled(mark)


def opaque_object(entries: Entries, mark: Path) -> None:
    edit = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    change(entries, CONSTANTS, lambda held: held["config"].update(x=edit))
    entries["data/constants/opaque_obj_0"] = pickle.dumps(Malicious(mark))


def opaque_object_under_another_name(entries: Entries, mark: Path) -> None:
    opaque_object(entries, mark)
    entries["data/constants/tensor_7"] = entries.pop("data/constants/opaque_obj_0")
    change(entries, CONSTANTS, lambda held: held["config"]["x"].update(path_name="opaque_obj_0/../tensor_7"))


def legacy_weights(entries: Entries, mark: Path) -> None:
    entries["data/weights/model.pt"] = pickled(mark)


def legacy_constants(entries: Entries, mark: Path) -> None:
    entries["data/constants/model.pt"] = pickled(mark)


def size_expression(entries: Entries, mark: Path) -> None:
    def edit(graph: Any) -> None:
        graph["tensor_values"]["image"]["sizes"][0]["as_expr"]["expr_str"] = code(mark)

    change_graph(entries, edit)


def size_expression_in_a_graph_within(entries: Entries, mark: Path) -> None:
    def edit(graph: Any) -> None:
        (inner,) = [node for node in graph["nodes"] if "set_grad" in node["target"]]
        values = inner["inputs"][1]["arg"]["as_graph"]["graph"]["tensor_values"]
        values["relu"]["sizes"][0]["as_expr"]["expr_str"] = code(mark)

    change_graph(entries, edit)


def name_of_a_value(entries: Entries, mark: Path) -> None:
    new = f"torch[{code(mark)}]"
    entries["models/model.json"] = entries["models/model.json"].replace(b'"conv2d"', json.dumps(new).encode())


def name_of_an_input(entries: Entries, mark: Path) -> None:
    new = json.dumps(f"image={code(mark)}").encode()
    entries["models/model.json"] = entries["models/model.json"].replace(b'"image"', new)


def name_of_an_argument(entries: Entries, mark: Path) -> None:
    def edit(document: Any) -> None:
        call = document["graph_module"]["module_call_graph"][0]["signature"]
        call["forward_arg_names"] = [f"image={code(mark)}"]

    change(entries, "models/model.json", edit)


def name_of_a_parameter(entries: Entries, mark: Path) -> None:
    escaped = code(mark).replace(".", r"\x2e")  # at each dot, torch begins another getattr
    new = json.dumps(f'x", eval("{escaped}")) or getattr(self, "y').encode()
    for name in (WEIGHTS, "models/model.json"):
        entries[name] = entries[name].replace(b'"head.bias"', new)


def operator_of_the_system(entries: Entries, mark: Path) -> None:
    def edit(graph: Any) -> None:
        call = {"name": "", "arg": {"as_string": str(mark)}, "kind": 1}
        node = {"target": "torch.os.mkdir", "inputs": [call], "outputs": [{"as_none": True}], "metadata": {}}
        graph["nodes"].insert(0, {**node, "name": "made", "is_hop_single_tensor_return": None})

    change_graph(entries, edit)


def operator_of_the_system_within(entries: Entries, mark: Path) -> None:
    def edit(graph: Any) -> None:
        (outer,) = [node for node in graph["nodes"] if "set_grad" in node["target"]]
        nodes = outer["inputs"][1]["arg"]["as_graph"]["graph"]["nodes"]
        call = {"name": "", "arg": {"as_string": str(mark)}, "kind": 1}
        node = {"target": "torch.os.mkdir", "inputs": [call], "outputs": [{"as_none": True}], "metadata": {}}
        nodes.insert(0, {**node, "name": "made", "is_hop_single_tensor_return": None})

    change_graph(entries, edit)


def tree_of_an_enumeration(entries: Entries, mark: Path) -> None:
    """Importing a module by name, found on the path: here one that is there already, which makes a mark."""
    module = mark.with_name("imported_by_a_tree.py")
    module.write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    context = json.dumps([{"__enum__": True, "fqn": "imported_by_a_tree:X", "name": "x"}])
    tree = [1, {"type": "builtins.dict", "context": context, "children_spec": [LEAF]}]

    def edit(document: Any) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(tree)

    change(entries, "models/model.json", edit)


LEAF = {"type": None, "context": None, "children_spec": []}
EXECUTED: dict[Attack, str] = {
    pickled_weight: "holds head.bias as a pickled Python object, which is never loaded because loading it runs code",
    pickled_constant: "holds scale as a pickled Python object, which is never loaded",
    opaque_object: "holds pickled Python objects, which are never loaded: loading runs code",
    legacy_weights: "saved by an older version of torch, with pickles in it; export it again",
    legacy_constants: "has an entry 'data/constants/model.pt', which torch.export.save never makes",
    size_expression: "not an expression of sizes: \"__import__('os').mkdir(",
    size_expression_in_a_graph_within: "not an expression of sizes: \"__import__('os').mkdir(",
    name_of_an_input: "not as torch writes it: \"image=__import__('os').mkdir(",
    name_of_a_parameter: "not as torch writes it",
    tree_of_an_enumeration: "not as torch writes it: {'__enum__': True",
}


@pytest.mark.parametrize("attack", EXECUTED, ids=lambda attack: attack.__name__)
@pytest.mark.filterwarnings("ignore")
def test_an_attack_is_refused_that_plain_torch_executes(
    tmp_path: Path, good: Entries, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    entries = dict(good)
    attack(entries, mark)
    path = write(tmp_path / "evil.pt2", entries)
    monkeypatch.syspath_prepend(tmp_path)
    assert EXECUTED[attack] in refused(path)
    assert not mark.exists()
    with suppress(Exception):  # after the attack, the file need not make sense
        torch.export.load(path).module()(IMAGE)
    assert mark.exists()


def test_sample_inputs_and_guards_are_never_looked_at(tmp_path: Path, good: Entries) -> None:
    mark = tmp_path / "executed"
    entries = {**good, "data/sample_inputs/model.pt": pickled(mark)}
    path = write(tmp_path / "samples.pt2", entries)
    expected = read_program(path).module()(IMAGE)
    assert not mark.exists()
    with suppress(Exception):
        torch.export.load(path)
    assert mark.exists()
    mark.rmdir()
    entries = dict(good)
    change(entries, "models/model.json", lambda document: document.update(guards_code=[f"{code(mark)} or True"]))
    path = write(tmp_path / "guards.pt2", entries)
    assert torch.equal(read_program(path).module()(IMAGE), expected)
    assert not mark.exists()
    with suppress(Exception):
        torch.export.load(path).module()(IMAGE)
    assert mark.exists()


def set_node(name: str, value: Any) -> Attack:
    return lambda entries, _: change_graph(entries, lambda graph: graph["nodes"][0].update({name: value}))


def set_meta(name: str, value: Any, payload: str = "head.weight") -> Attack:
    return lambda entries, _: change(
        entries, WEIGHTS, lambda held: held["config"][payload]["tensor_meta"].update({name: value})
    )


def set_input(value: Any) -> Attack:
    return lambda entries, _: change_graph(entries, lambda graph: graph["nodes"][0]["inputs"][0].update(arg=value))


def set_program(**values: Any) -> Attack:
    return lambda entries, _: change(entries, "models/model.json", lambda document: document.update(values))


def add(name: str, content: bytes = b"x") -> Attack:
    return lambda entries, _: entries.update({name: content})


INTS = [{"as_int": 5}, {"as_int": 4}]
REFUSED: dict[str, tuple[Attack, str]] = {
    "an opaque object misnamed": (opaque_object_under_another_name, "not as torch writes it: 'opaque_obj_0/../ten"),
    "the name of an argument": (name_of_an_argument, "not as torch writes it: \"image=__import__('os').mkdir("),
    "the name of a value": (name_of_a_value, "not as torch writes it: \"torch[__import__('os').mkdir("),
    "the system": (operator_of_the_system, "calls 'torch.os.mkdir', which is not among the operators that are read"),
    "the system within": (operator_of_the_system_within, "calls 'torch.os.mkdir', which is not among the operators"),
    "a class": (set_node("target", "torch.ops.aten.relu.__class__"), "which is not among the operators"),
    "a method": (set_node("target", "torch.ops.aten.relu.overloads"), "which is not among the operators"),
    "a file's operator": (set_node("target", "torch.ops.aten.from_file.default"), "which is not among the operators"),
    "an out": (set_node("target", "torch.ops.aten.relu.out"), "which is not among the operators"),
    "another library": (set_node("target", "torch.ops.quantized.linear.default"), "which is not among the operators"),
    "an extension": (set_node("target", "#x:y"), "which is not among the operators"),
    "another graph": (set_node("target", "torch.ops.higher_order.cond"), "which is not among the operators"),
    "no operator": (set_node("target", 3), "wanted the name of an operator, found 3"),
    "an operator as argument": (set_input({"as_operator": "torch.os.mkdir"}), "'as_operator' is not read from files"),
    "a custom argument": (set_input({"as_custom_obj": {"name": "x", "class_fqn": "y"}}), "holds custom objects"),
    "a graph elsewhere": (set_input({"as_graph": {}}), "'as_graph' is not read from files"),
    "text in place of a number": (set_input({"as_int": "x"}), "wanted an integer"),
    "an unknown value": (set_input({"as_tensor": {"name": "nowhere"}}), "cannot read this program (\"KeyError: 'nowh"),
    "a GPU": (set_input({"as_device": {"type": "cuda", "index": 0}}), "exported on the device 'cuda'; move the model"),
    "an unknown field": (set_node("surprise", 1), "a field 'surprise', which is not known here; the file says"),
    "a larger shape": (set_meta("sizes", [{"as_int": 10**9}, {"as_int": 4}]), "claims shape [1000000000, 4] but"),
    "a far offset": (set_meta("storage_offset", {"as_int": 1}), "but the file stores less than that"),
    "a far stride": (set_meta("strides", [{"as_int": 4}, {"as_int": 2**62}]), "but the file stores less than that"),
    "a negative stride": (set_meta("strides", [{"as_int": -4}, {"as_int": 1}]), "wanted an integer from 0"),
    "a wider type": (set_meta("dtype", 8), "but the file stores less than that"),
    "another type": (set_meta("dtype", 4), "is stored in another type or shape than its graph takes"),
    "another shape": (set_meta("sizes", INTS[::-1]), "is stored in another type or shape than its graph takes"),
    "an unknown type": (set_meta("dtype", 99), "a tensor type that is not read (number 99)"),
    "a sparse weight": (set_meta("layout", 1), "none of those known here"),
    "a symbolic weight": (
        set_meta("sizes", [{"as_expr": {"expr_str": "Symbol('s0')"}}, {"as_int": 4}]),
        "has no fixed shape",
    ),
    "no bytes": (lambda entries, _: entries.update({"data/weights/weight_0": b""}), "stores less than that"),
    "a missing file": (lambda entries, _: entries.pop("data/weights/weight_1") and None, "the bytes of"),
    "a missing weight": (
        lambda entries, _: change(entries, WEIGHTS, lambda held: held["config"].pop("head.bias")),
        "head.bias is missing; copy or save it again",
    ),
    "no constants": (lambda entries, _: entries.pop(CONSTANTS) and None, "that of another version of torch"),
    "another major version": (
        set_program(schema_version={"major": 9, "minor": 0}),
        "is in version 9 of torch's format",
    ),
    "another archive version": (add("archive_version", b"1"), "its layout (archive version '1') is that of another"),
    "another archive": (add("archive_format", b"pt3"), "a zip file, but not a torch.export program"),
    "a big-endian file": (add("byteorder", b"big"), "was saved on a big-endian machine"),
    "no JSON": (add("models/model.json", b"{"), "models/model.json is damaged"),
    "deep JSON": (add("models/model.json", b"[" * 100_000), "models/model.json is damaged"),
    "no number in JSON": (add("models/model.json", b'{"x": NaN}'), "models/model.json is damaged"),
    "another verifier": (set_program(verifiers=["os"]), "'os' is none of those known here"),
    "an odd range": (
        set_program(range_constraints={"u999999999": {"min_val": 0, "max_val": 1}}),
        "not as torch writes",
    ),
    "machine code": (add("data/aotinductor/model/model.so"), "holds compiled machine code, which is never loaded"),
    "an ExecuTorch program": (add("data/executorch/model.pte"), "holds an ExecuTorch program"),
    "a custom object": (add("data/constants/custom_obj_0"), "holds pickled Python objects, which are never loaded"),
    "another program": (add("models/other.json", b"{}"), "holds programs by other names than 'model'"),
    "an unknown entry": (add("data/new"), "has an entry 'data/new', which torch.export.save never makes"),
    "a path upwards": (add("../../x"), "has an entry '../../x'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_changed_file_is_refused(tmp_path: Path, good: Entries, name: str) -> None:
    attack, message = REFUSED[name]
    entries = dict(good)
    attack(entries, tmp_path / "executed")
    assert message in refused(write(tmp_path / "evil.pt2", entries))
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives(tmp_path: Path, good: Entries) -> None:
    path = write(tmp_path / "bomb.pt2", {**good, "extra/x": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    assert "has compressed or overlapping entries" in refused(path)
    path = write(tmp_path / "twice.pt2", good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/models/model.json", b"{}")
    assert "entries of the same name" in refused(path)
    path = write(tmp_path / "folders.pt2", good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/extra/x", b"")
    assert "in several folders" in refused(path)
    path.write_bytes(b"PK" + path.read_bytes())
    assert "truncated or damaged" in refused(path)
