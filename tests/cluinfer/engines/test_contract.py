"""What every engine promises, asked of each: base.py is the contract."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cluinfer.engines import ENGINES, Engine, Options, Session, get_engine
from cluinfer.errors import CluinferError, EngineError, ShapeError

for package in ("onnx", "onnxruntime", "openvino", "torch"):
    pytest.importorskip(package)

from engine_cases import SMALL, assert_same, image, in_onnx_runtime, small  # noqa: E402

NAMES = ("openvino", "ort")
DAMAGED = "the graph is damaged or no ONNX: export it again"


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return get_engine(request.param)


@pytest.fixture(scope="module")
def compiled() -> dict[str, bytes]:
    return {name: get_engine(name).compile(small("fec"), Options()) for name in NAMES}


@pytest.fixture
def session(engine: Engine, compiled: dict[str, bytes]) -> Iterator[Session]:
    with engine.load(compiled[engine.name], Options(threads=2)) as made:
        yield made


def assert_equal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert set(got) == set(want)
    for name, expected in want.items():
        np.testing.assert_array_equal(got[name], expected, err_msg=name)


@pytest.mark.parametrize("family", SMALL)
def test_what_it_computes(engine: Engine, family: str) -> None:
    engine.check()
    options = Options(threads=2, batch=2)
    with engine.load(engine.compile(small(family), options), options) as session:
        assert_same(session.run({"image": image(3)}), in_onnx_runtime(family, 3))


def test_what_a_session_says_of_itself(session: Session) -> None:
    assert {name: str(each) for name, each in session.inputs.items()} == {"image": "float32 [?, 3, 32, 48]"}
    assert set(session.outputs) == set(in_onnx_runtime("fec", 1))
    assert (session.batch, session.streams) == (1, 1)


def test_an_image_does_not_depend_on_its_neighbours(engine: Engine) -> None:
    x, options = image(5), Options(threads=2, batch=2)
    with engine.load(engine.compile(small("fec"), options), options) as session:
        whole = session.run({"image": x})
        parts = [session.run({"image": x[start : start + 2]}) for start in (0, 2, 4)]
    assert_equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_many_threads_and_streams(engine: Engine, compiled: dict[str, bytes], hint: str) -> None:
    x = image(5)
    options = Options(hint=hint, threads=2, streams=2)
    got: list[dict[str, np.ndarray]] = []
    with engine.load(compiled[engine.name], options) as session:
        assert session.streams == 2
        want = session.run({"image": x})

        def work() -> None:
            for _ in range(10):
                got.append(session.run({"image": x}))

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(got) == 80
    for each in got:
        assert_equal(each, want)


def test_what_comes_back_belongs_to_the_caller_and_what_went_in_too(session: Session) -> None:
    x = image(1)
    kept_x = x.copy()
    first = session.run({"image": x})
    kept = {name: array.copy() for name, array in first.items()}
    session.run({"image": np.zeros_like(x)})
    read_only = np.ones_like(x)
    read_only.flags.writeable = False
    session.run({"image": read_only})
    assert_equal(first, kept)
    np.testing.assert_array_equal(x, kept_x)
    assert (read_only == 1).all()
    assert_equal(session.run({"image": x}), kept)


def test_any_layout_of_memory(session: Session) -> None:
    x = image(2)
    want = session.run({"image": x})
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    odd = bytes_[1:].view(np.float32).reshape(x.shape)
    odd[:] = x
    for other in (turned, odd, x[::-1][::-1], x.repeat(2, axis=0)[::2]):
        assert_equal(session.run({"image": other}), want)


def test_a_closed_session_does_not_run(engine: Engine, compiled: dict[str, bytes]) -> None:
    session = engine.load(compiled[engine.name], Options(hint="throughput", streams=2))
    session.run({"image": image(3)})
    session.close()
    session.close()
    with pytest.raises(EngineError) as error:
        session.run({"image": image(1)})
    assert str(error.value) == "the session is closed: load it again"


def test_closing_waits_for_the_runs_at_work(engine: Engine, compiled: dict[str, bytes]) -> None:
    session = engine.load(compiled[engine.name], Options())
    x, began, ends = image(64), threading.Event(), []

    def work() -> None:
        began.set()
        try:
            while True:
                ends.append(len(session.run({"image": x})["logits"]))
        except EngineError as error:
            ends.append(str(error))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    began.wait()
    time.sleep(0.05)
    session.close()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert ends.count("the session is closed: load it again") == 4
    assert set(ends) <= {64, "the session is closed: load it again"}


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "inputs ['image'] are wanted, got []"),
        ({"picture": np.zeros((1, 3, 32, 48), np.float32)}, "inputs ['image'] are wanted, got ['picture']"),
        (
            {"image": np.zeros((1, 3, 32, 32), np.float32)},
            "image must be float32 [?, 3, 32, 48], got float32 [1, 3, 32, 32]",
        ),
        ({"image": np.zeros((3, 32, 48), np.float32)}, "image must be float32 [?, 3, 32, 48], got float32 [3, 32, 48]"),
        ({"image": np.zeros((1, 3, 32, 48))}, "image must be float32 [?, 3, 32, 48], got float64 [1, 3, 32, 48]"),
        ({"image": np.zeros((0, 3, 32, 48), np.float32)}, "an empty batch: at least one image is needed"),
    ],
)
def test_wrong_inputs_are_refused(session: Session, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ShapeError) as error:
        session.run(feeds)
    assert str(error.value) == message


def test_blobs_that_do_not_fit_are_refused(engine: Engine, compiled: dict[str, bytes]) -> None:
    blob = compiled[engine.name]
    line, _, rest = blob.partition(b"\n")
    magic = f"cluinfer {engine.name} 1 ".encode()
    no_graph = f"this is not a graph compiled by the {engine.name} engine"
    for bad, message in (
        (b"", f"{no_graph} \\(no cluinfer header\\): compile it again"),
        (b"cluinfer other 1 {}\nrest", f"{no_graph} \\(no cluinfer header\\)"),
        (magic + b"{}\nrest", f"{no_graph} \\(fields are missing\\)"),
        (magic + b"[[[\nrest", f"{no_graph} \\(Expecting value"),
        (magic + b"[" * 100_000 + b"\nrest", no_graph),
        (line + b"\n", "cannot load the compiled graph: "),
        (line + b"\n" + rest[: len(rest) // 2], f"cannot load the compiled graph: |^{DAMAGED}$"),
    ):
        with pytest.raises(EngineError, match=message):
            engine.load(bad, Options())
    with pytest.raises(EngineError, match="compiled for batch 1, 2 is wanted: compile it again"):
        engine.load(blob, Options(batch=2))
    with pytest.raises(EngineError, match="compiled for precision fp32, bf16 is wanted: compile it again"):
        engine.load(blob, Options(precision="bf16"))


def test_what_is_no_graph_is_refused(engine: Engine) -> None:
    for bad in (b"", b"no graph", small("fec")[:5000]):
        with pytest.raises(EngineError, match=f"cannot compile the graph: |^{DAMAGED}$") as error:
            engine.compile(bad, Options())
        assert "\n" not in str(error.value)


def test_precisions_that_are_not_there(engine: Engine) -> None:
    with pytest.raises(EngineError, match=f"has precisions {', '.join(engine.precisions)}, got 'int3'"):
        engine.compile(small("fec"), Options(precision="int3"))


def test_a_batch_that_the_graph_does_not_have(engine: Engine) -> None:
    import onnx

    model = onnx.load_model_from_string(small("fec"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(EngineError, match="the graph's batch is fixed to 4, 3 is wanted"):
        engine.compile(model.SerializeToString(), Options(batch=3))


def test_a_blob_fits_where_it_was_compiled(engine: Engine) -> None:
    versions, machine = engine.versions(), engine.machine()
    assert engine.misfit(versions, machine) == ""
    assert set(engine.bound_to) <= {**versions, **machine}.keys()
    assert engine.device == "CPU"
    assert engine.misfit({**versions, "python": "2.7"}, {**machine, "cpu": "another"}) == ""


def test_a_blob_does_not_fit_elsewhere(engine: Engine) -> None:
    versions, machine = engine.versions(), engine.machine()
    package, here = engine.package()
    for name in engine.bound_to:
        changed = [{**held, name: "x"} if name in held else held for held in (versions, machine)]
        now = {**versions, **machine}[name] or "unknown"
        assert engine.misfit(*changed) == f"{name} x there, {now} here"
    del versions[package], machine["architecture"]
    assert f"{package} unknown there, {here} here" in engine.misfit(versions, machine)
    assert "architecture unknown there, " in engine.misfit(versions, machine)


@pytest.mark.parametrize("wrong", [{"hint": "speed"}, {"threads": 0}, {"batch": None}, {"streams": 1 << 17}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=f"{next(iter(wrong))} must be"):
        Options(**wrong)


def test_an_engine_that_does_not_exist() -> None:
    with pytest.raises(CluinferError) as error:
        get_engine("x")
    assert str(error.value) == f"there is no engine 'x'; there are: {', '.join(ENGINES)}"


def test_asking_for_an_engine_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from cluinfer.engines import ENGINES, get_engine
        for name in ENGINES:
            get_engine(name)
        print([name for name in ("openvino", "onnxruntime", "tensorrt", "torch", "onnx") if name in sys.modules])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
