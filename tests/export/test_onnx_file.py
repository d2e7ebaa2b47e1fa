"""ONNX files: read whole, or refused with the reason, one test for each way that a file can be wrong."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import IMPORTS, PROMISE, body, clustering, refused, stored, tiny

from cluinfer.errors import GraphError
from cluinfer.export import onnx_file
from cluinfer.export.onnx_file import read_onnx, read_promise, write_onnx

# --- what is read


def test_round_trip(tmp_path: Path) -> None:
    write_onnx(clustering(), tmp_path / "model.onnx")
    model = read_onnx(str(tmp_path / "model.onnx"))
    assert model == clustering()
    assert read_promise(model) == PROMISE


def test_a_graph_that_cluinfer_did_not_export_promises_nothing(tmp_path: Path) -> None:
    assert read_promise(read_onnx(stored(tmp_path, tiny()))) is None


def test_functions_within_functions_and_subgraphs(tmp_path: Path) -> None:
    model = tiny(
        f"""<{IMPORTS}> main (float[N, 3] x) => (float[N, 3] y) {{
          c = Constant <value_int = 1> ()
          yes = Cast <to = 9> (c)
          y = If (yes) <then_branch = t () => (float[N, 3] a) {{ a = own.twice (x) }},
                        else_branch = e () => (float[N, 3] b) {{ b = Neg (x) }}>
        }}"""
    )
    model.functions.extend(
        [body("twice (x) => (y) { h = own.once (x) y = Add (h, h) }"), body("once (x) => (y) { y = Neg (x) }")]
    )
    assert read_onnx(stored(tmp_path, model)) == model


# --- files that are none


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; copy or export it again"),
        (b"hello world", "not an ONNX file, or truncated or damaged; copy or export it again"),
        (clustering().SerializeToString()[:-5], "not an ONNX file, or truncated or damaged; copy or export it again"),
        (
            onnx.ModelProto(ir_version=8).SerializeToString(),
            "not an ONNX model: it has no graph or no version; export it again",
        ),
        (
            tiny().SerializeToString() + b"\x3a\x04\x12\x02\xff\xfe",  # a graph.name of two bytes that are no text
            "holds a name that is not text; it is damaged: copy or export it again",
        ),
    ],
    ids=["empty", "text", "truncated", "no graph", "not utf-8"],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    assert refused(stored(tmp_path, content)) == message


def test_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "model.onnx") == "wanted an ONNX file, found nothing"
    assert refused(tmp_path) == "wanted an ONNX file, found a folder"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "wanted an ONNX file, found something else"


def test_larger_than_2_gib(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**31)  # sparse: takes no space
    message = "the file is larger than 2 GiB, which no ONNX file is; keep its weights in a file beside it"
    assert refused(tmp_path / "model.onnx") == message


def test_deep_nesting(tmp_path: Path) -> None:
    """Subgraphs a thousand deep, written by hand since protobuf refuses to write them as well."""

    def message(field: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(1000):
        graph = message(1, message(5, message(6, graph)))  # graph.node.attribute.g
    path = stored(tmp_path, b"\x08\x08" + message(7, graph))
    assert refused(path) == "not an ONNX file, or truncated or damaged; copy or export it again"


# --- weights in another file


def external(folder: Path, **entries: str) -> Path:
    """A model whose only weight, 12 bytes, lies in weights.bin unless `entries` say otherwise."""
    model = tiny(f"<{IMPORTS}> main (float[N, 3] x) => (float[N, 3] y) <float[3] w = {{1, 2, 3}}> {{ y = Add (x, w) }}")
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin"} | entries).items():
        weight.external_data.add(key=key, value=value)
    (folder / "weights.bin").write_bytes(np.arange(1, 4, dtype=np.float32).tobytes())
    return stored(folder, model)


@pytest.mark.parametrize("entries", [{}, {"offset": "0", "length": "12"}])
def test_weights_beside_the_model_are_taken_in(tmp_path: Path, entries: dict[str, str]) -> None:
    model = read_onnx(external(tmp_path, **entries))
    shutil.rmtree(tmp_path)
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": ""}, "it does not say which; export it again"),
        ({"location": "a\0b"}, "it does not say which; export it again"),
        ({"location": "/etc/hostname"}, "'/etc/hostname' is an absolute path; weights must lie in the model's folder"),
        ({"location": "C:\\w.bin"}, "'C:\\w.bin' is an absolute path; weights must lie in the model's folder"),
        ({"location": "../w.bin"}, "'../w.bin' leaves the model's folder; weights must lie in it"),
        ({"location": "a\\..\\..\\w"}, "'a\\..\\..\\w' leaves the model's folder; weights must lie in it"),
        ({"location": "link/w.bin"}, "'link/w.bin' is a link that leaves the model's folder; weights must lie in it"),
        ({"location": "gone.bin"}, "'gone.bin' is not there; copy it beside the model"),
        ({"location": "pipe"}, "'pipe' is not there; copy it beside the model"),
        ({"offset": "4"}, "'weights.bin' has 12 bytes, wanted 12 from 4 on; copy or export it again"),
        ({"offset": "-4"}, "its offset is '-4', wanted a number of bytes; export it again"),
        ({"offset": "9" * 30}, f"its offset is '{'9' * 30}', wanted a number of bytes; export it again"),
        ({"length": "8"}, "it declares 12 bytes but keeps 8 there; export it again"),
        ({"length": "many"}, "its length is 'many', wanted a number of bytes; export it again"),
    ],
    ids=lambda value: "-".join(map(repr, value.items())) if isinstance(value, dict) else "",
)
def test_weights_elsewhere(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(12))
    (folder / "link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert refused(external(folder, **entries)) == f"tensor 'w' lies in another file: {message}"


def test_links_within_the_folder_are_fine(tmp_path: Path) -> None:
    path = external(tmp_path, location="link.bin")
    (tmp_path / "link.bin").symlink_to("weights.bin")
    assert numpy_helper.to_array(read_onnx(path).graph.initializer[0]).tolist() == [1, 2, 3]


def test_links_in_a_circle(tmp_path: Path) -> None:
    path = external(tmp_path, location="link.bin")
    (tmp_path / "link.bin").symlink_to("link.bin")
    assert refused(path).startswith("tensor 'w' lies in another file: 'link.bin' ")


def test_weights_together_larger_than_2_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1000)
    model = onnx.load_model_from_string(external(tmp_path).read_bytes())
    for i in range(100):  # the same bytes over and over
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{i}"
    (tmp_path / "model.onnx").unlink()
    write_onnx(model, tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_file, "_content", Path.read_bytes)
    assert refused(tmp_path / "model.onnx") == (
        "its weights are larger than 2 GiB together, more than an engine takes in"
    )


def test_flipped_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Damage in any place is either harmless or refused: no other exception, no crash, no hang."""
    content = clustering().SerializeToString()
    chance = random.Random(7)
    refusals = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            read_onnx(stored(tmp_path, bytes(damaged)))
        except GraphError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert 50 < refusals < 150


# --- writing


def test_writing_leaves_nothing_else_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    write_onnx(tiny(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_onnx(path) == tiny()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(GraphError) as error:
        write_onnx(tiny(), path)
    assert str(error.value) == f"{path}: cannot write an ONNX file there: No space left on device"
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("model.onnx", b"old")]


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_onnx(tiny(), path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("model.onnx", b"old")]


@pytest.mark.parametrize(("name", "wrong"), [("gone/model.onnx", "its folder does not exist"), (".", "is a folder")])
def test_places_that_cannot_be_written(tmp_path: Path, name: str, wrong: str) -> None:
    with pytest.raises(GraphError) as error:
        write_onnx(tiny(), tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: cannot write an ONNX file there: {wrong}"
