"""The runtime: every form of picture, batches, streams, futures, threads, closing, and what goes wrong."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluinfer import CluinferError, Failure, Prediction, Runtime
from cluinfer.artifact import read_artifact, write_artifact
from cluinfer.errors import ArtifactError, EngineError, EngineWarning, PictureError
from cluinfer.preprocess import prepare

onnxruntime = pytest.importorskip("onnxruntime")
for package in ("onnx", "openvino", "torch"):
    pytest.importorskip(package)

from engine_cases import SIZE, artifact, image, in_onnx_runtime, promise, small  # noqa: E402

CLOSED = "the runtime is closed: open the artifact again"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("model") / "model.clu")


@pytest.fixture(scope="module")
def runtime(model: Path) -> Iterator[Runtime]:
    """Shared by the tests that do not close it."""
    with Runtime(model, threads=1) as made:
        yield made


def pictures(count: int) -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, (40 + i, 70 - i, 3), np.uint8) for i in range(count)]


def logits(prediction: Any) -> np.ndarray:
    assert isinstance(prediction, Prediction), prediction
    assert prediction.logits is not None
    return prediction.logits


def assert_equal(got: Any, want: Any) -> None:
    """The same predictions, bit for bit, in the same order."""
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert logits(one).tobytes() == logits(other).tobytes()
        for name, each in other.clusters.items():
            np.testing.assert_array_equal(one.clusters[name].ids, each.ids)


def message(call: Any, *given: Any, kind: type[CluinferError] = PictureError, **named: Any) -> str:
    with pytest.raises(kind) as error:
        call(*given, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- calls


def test_what_it_is(runtime: Runtime, model: Path) -> None:
    assert runtime.promise == promise("fec")
    assert runtime.manifest.built.engine == "ort"
    assert not runtime.closed
    assert repr(runtime) == f"Runtime('{model}': custom, ort fp32, batch 1)"


@pytest.mark.parametrize("engine", ["openvino", "ort"])
def test_outputs_are_the_engines(tmp_path: Path, engine: str) -> None:
    with Runtime(artifact(tmp_path / "a.clu", engine), "cpu") as runtime:
        got = runtime.run(image(3))
    for name, want in in_onnx_runtime("fec", 3).items():
        np.testing.assert_allclose(got[name], want, atol=2e-4)


def test_one_picture_in_every_form(runtime: Runtime, tmp_path: Path) -> None:
    (array,) = pictures(1)
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    tensor = prepare(array, SIZE, runtime.promise.preprocess)
    one = runtime(array)
    assert one.picture is not None
    assert one.picture.size == (SIZE[1], SIZE[0])
    np.testing.assert_array_equal(logits(one), runtime.run(tensor[None])["logits"][0])
    assert_equal([runtime(form) for form in (str(path), path, Image.fromarray(array), tensor)], [one] * 4)
    assert runtime(tensor).picture is None


def test_several_pictures(runtime: Runtime) -> None:
    many = pictures(9)
    want = [runtime(each) for each in many]
    assert_equal(runtime(many), want)
    assert_equal(runtime(tuple(many)), want)
    assert_equal(runtime(many[:1]), want[:1])
    batch = np.stack([prepare(each, SIZE, runtime.promise.preprocess) for each in many])
    assert_equal(runtime(batch), want)
    assert_equal(runtime([many[0], batch[1:4], batch[4], *many[5:]]), want)


def test_batches_are_split_and_joined(tmp_path: Path) -> None:
    many = pictures(11)
    with Runtime(artifact(tmp_path / "a.clu", batch=4), threads=1) as runtime:
        want = [each for start in range(0, 11, 4) for each in runtime(many[start : start + 4])]
        assert_equal(runtime(many), want)
        assert_equal(list(runtime.stream(many)), want)
        assert len(runtime(many[0]).top(5)) == 5


def test_timings(runtime: Runtime) -> None:
    timings = runtime(pictures(1)[0]).timings
    assert min(timings.preprocess, timings.inference, timings.postprocess) > 0
    assert len({id(each.timings) for each in runtime(image(2))}) == 1  # of the call, for all of its pictures


@pytest.mark.parametrize("hint", ["latency", "throughput"])
@pytest.mark.parametrize("engine", ["openvino", "ort"])
def test_many_threads_get_what_one_gets(tmp_path: Path, engine: str, hint: str) -> None:
    many = [[each] if i % 2 else each for i, each in enumerate(pictures(8))]
    with Runtime(artifact(tmp_path / "a.clu", engine), threads=2, hint=hint) as runtime:
        want = [runtime(each) for each in many]
        end, wrong, done = time.monotonic() + 0.5, [], []

        def work(start: int) -> None:
            i = start
            while time.monotonic() < end:
                got, i = runtime(many[i % 8]), i + 1
                before = want[(i - 1) % 8]
                both = (got, before) if isinstance(got, list) else ([got], [before])
                if logits(both[0][0]).tobytes() != logits(both[1][0]).tobytes():
                    wrong.append(i)
            done.append(start)

        workers = [threading.Thread(target=work, args=(start,)) for start in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(done) == list(range(16))
    assert wrong == []


# --- what is wrong with pictures


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], "wanted a picture or a list of them, got an empty list"),
        ((), "wanted a picture or a list of them, got an empty list"),
        (None, "wanted a path, a PIL image or a uint8 array, got NoneType"),
        (["x.jpg", None], "picture 0 of the list: x.jpg: wanted a picture, found nothing"),
        (
            [np.zeros((9, 9, 3), np.uint8), 1],
            "picture 1 of the list: wanted a path, a PIL image or a uint8 array, got int",
        ),
        ("", "wanted a picture, found a folder"),
        ("x.jpg", "x.jpg: wanted a picture, found nothing"),
        (
            np.zeros((0, 9, 3), np.uint8),
            "the array: wanted a picture, found one of 9x0 pixels",
        ),
        (
            np.zeros((9, 9, 2), np.uint8),
            "wanted a uint8 array [height, width], [height, width, 3] or [height, width, 4], got uint8 [9, 9, 2]",
        ),
        (
            np.zeros((2, 9, 9, 3), np.uint8),
            "wanted a uint8 array [height, width], [height, width, 3] or [height, width, 4], got uint8 [2, 9, 9, 3]",
        ),
        (
            np.zeros((1, 3, 48, 32), np.float32),
            "wanted a float32 array [batch, 3, 32, 48], got float32 [1, 3, 48, 32]",
        ),
        (np.zeros((1, 3, *SIZE)), "wanted a float32 array [batch, 3, 32, 48], got float64 [1, 3, 32, 48]"),
        (np.zeros((0, 3, *SIZE), np.float32), "wanted a float32 array [batch, 3, 32, 48], got an empty batch"),
        (
            np.full((2, 3, *SIZE), np.nan, np.float32),
            "wanted a float32 array [batch, 3, 32, 48] of finite numbers, image 0 of the batch holds NaN or infinity",
        ),
    ],
)
def test_what_is_no_picture(runtime: Runtime, given: Any, wanted: str) -> None:
    assert message(runtime, given).endswith(wanted)
    assert message(runtime.predict_async(given).result).endswith(wanted)


def test_a_corrupt_picture(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(pictures(1)[0]).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert message(runtime, path).startswith(f"{path}: the picture is damaged or cut short: ")
    path.write_bytes(b"")
    assert message(runtime, [path]) == f"picture 0 of the list: {path}: wanted a picture, found an empty file"


def test_bare_outputs_of_what_is_no_tensor(runtime: Runtime) -> None:
    wanted = "wanted a float32 array [batch, 3, 32, 48], got "
    assert message(runtime.run, "x.jpg") == f"{wanted}str"
    assert message(runtime.run, image(1)[0]) == f"{wanted}float32 [3, 32, 48]"


# --- streams


@pytest.mark.parametrize("batch", [None, 1, 3, 50])
def test_a_stream_is_in_order(runtime: Runtime, batch: int | None) -> None:
    many = pictures(10)
    assert_equal(list(runtime.stream(iter(many), batch)), [runtime(each) for each in many])


def test_streams_of_nothing_and_of_tensors(runtime: Runtime) -> None:
    assert list(runtime.stream([])) == []
    assert_equal(list(runtime.stream(image(3), batch=2)), runtime(image(3)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_picture_that_fails_is_reported_in_its_place(runtime: Runtime, batch: int) -> None:
    good = pictures(4)
    got = list(runtime.stream([good[0], "none.jpg", good[1], None, image(2), good[2], good[3]], batch))
    assert [type(each) for each in got] == [Prediction, Failure, Prediction, Failure, Failure, Prediction, Prediction]
    assert_equal([each for each in got if isinstance(each, Prediction)], runtime(good))
    failures = [each for each in got if isinstance(each, Failure)]
    assert [each.index for each in failures] == [1, 3, 4]
    assert failures[0].picture == "none.jpg"
    assert [str(each) for each in failures] == [
        "picture 1 of the stream: none.jpg: wanted a picture, found nothing",
        "picture 3 of the stream: wanted a path, a PIL image or a uint8 array, got NoneType",
        "picture 4 of the stream: wanted one picture at a time, got a batch of 2",
    ]
    assert isinstance(failures[0].error, PictureError)


def test_only_failures(runtime: Runtime) -> None:
    assert [type(each) for each in runtime.stream(["a", "b", "c"], batch=2)] == [Failure] * 3


def test_a_stream_reads_no_further_than_it_may(runtime: Runtime) -> None:
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for i in range(1000):
            read.append(i)
            yield pictures(1)[0]

    stream = runtime.stream(source(), batch=2, ahead=5)
    assert read == []  # nothing before the first is asked for
    for taken in range(1, 10):
        next(stream)
        time.sleep(0.02)
        assert len(read) <= taken + 5
    stream.close()


def test_less_ahead_than_a_batch(runtime: Runtime) -> None:
    assert len(list(runtime.stream(pictures(7), batch=3, ahead=1))) == 7


def test_a_result_does_not_wait_for_the_next_picture(runtime: Runtime) -> None:
    """Whoever answers one question before the next is asked."""
    answered = threading.Event()

    def source() -> Iterator[np.ndarray]:
        for each in pictures(3):
            yield each
            assert answered.wait(30)
            answered.clear()

    count = 0
    for _ in runtime.stream(source()):
        count += 1
        answered.set()
    assert count == 3


def test_what_the_iterable_raises_comes_in_its_place(runtime: Runtime) -> None:
    def source() -> Iterator[np.ndarray]:
        yield from pictures(3)
        raise KeyError("broken source")

    got = []
    with pytest.raises(KeyError, match="broken source"):
        got.extend(iter_all := runtime.stream(source(), batch=2))
    assert list(iter_all) == []
    stream = runtime.stream(source(), batch=2)
    assert [type(next(stream)) for _ in range(3)] == [Prediction] * 3
    with pytest.raises(KeyError):
        next(stream)


def test_what_the_engine_raises_ends_the_stream(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(model) as runtime:

        def fail(feeds: Any) -> None:
            raise EngineError("out of memory")

        monkeypatch.setattr(runtime._opened().session, "run", fail)
        assert message(list, runtime.stream(pictures(5)), kind=EngineError) == "out of memory"


def readers() -> int:
    return sum(each.name == "cluinfer-stream" for each in threading.enumerate())


@pytest.mark.parametrize("leave", ["break", "close", "forget", "raise"])
def test_whoever_leaves_ends_the_work(model: Path, leave: str) -> None:
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        while True:
            read.append(1)
            yield pictures(1)[0]

    with Runtime(model) as runtime:
        stream = runtime.stream(source(), batch=2)
        next(stream)
        if leave == "close":
            stream.close()
        elif leave == "raise":
            with pytest.raises(ValueError, match="x"):
                stream.throw(ValueError("x"))
        elif leave == "break":
            for _ in stream:
                break
        del stream
        deadline = time.monotonic() + 20
        while readers() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert readers() == 0
        before = len(read)
        assert len(runtime(pictures(3))) == 3
        assert len(read) == before


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("cat.jpg",), "wanted an iterable of pictures, got str; for one picture, call the runtime"),
        ((Path("cat.jpg"),), "wanted an iterable of pictures, got PosixPath; for one picture, call the runtime"),
        (
            (np.zeros((9, 9, 3), np.uint8),),
            "wanted an iterable of pictures, got ndarray; for one picture, call the runtime",
        ),
        ((Image.new("RGB", (9, 9)),), "wanted an iterable of pictures, got Image; for one picture, call the runtime"),
        ((7,), "wanted an iterable of pictures, got int; for one picture, call the runtime"),
        (([], 0), "batch must be a positive number, got 0"),
        (([], "2"), "batch must be a positive number, got '2'"),
    ],
)
def test_what_cannot_be_streamed_is_said_at_once(runtime: Runtime, given: tuple[Any, ...], wanted: str) -> None:
    assert message(runtime.stream, *given, kind=CluinferError) == wanted
    assert message(runtime.stream, [], ahead=-1, kind=EngineError) == "ahead must be a positive number, got -1"


# --- futures


def test_futures(runtime: Runtime) -> None:
    many = pictures(20)
    futures: list[Future[Any]] = [runtime.predict_async(each) for each in many]
    assert_equal([future.result() for future in futures], runtime(many))
    assert_equal(runtime.predict_async(many[:3]).result(), runtime(many[:3]))


# --- closing


def test_what_is_closed_says_so(model: Path) -> None:
    with Runtime(model) as runtime:
        stream, late = runtime.stream(pictures(9)), runtime.stream(pictures(9))
        next(stream)
    runtime.close()
    assert runtime.closed
    assert repr(runtime).endswith(", closed)")
    picture = pictures(1)[0]
    for call, given in (
        (runtime, picture),
        (runtime.run, image(1)),
        (runtime.stream, [picture]),
        (runtime.predict_async, picture),
        (next, stream),
        (next, late),
        (pickle.dumps, runtime),
    ):
        assert message(call, given, kind=EngineError) == CLOSED
    assert runtime.promise == promise("fec")


def test_closing_waits_for_the_calls_at_work(model: Path) -> None:
    runtime = Runtime(model, threads=1)
    many, ended = image(64), []

    def work() -> None:
        try:
            while True:
                ended.append(len(runtime(many)))
        except EngineError as error:
            ended.append(str(error))

    callers = [threading.Thread(target=work) for _ in range(4)]
    for each in callers:
        each.start()
    futures = [runtime.predict_async(image(2)) for _ in range(30)]
    runtime.close()
    assert [len(each.result(0)) for each in futures] == [2] * 30
    for each in callers:
        each.join(60)
    assert ended.count(CLOSED) == 4
    assert set(ended) <= {64, CLOSED}


def test_closing_frees_the_threads(model: Path) -> None:
    before = threading.active_count()
    with Runtime(model, hint="throughput", streams=2) as runtime:
        runtime(pictures(9))
        list(runtime.stream(pictures(9)))
        runtime.predict_async(pictures(2)).result()
        assert threading.active_count() > before
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the reader of a stream ends by itself
    assert threading.active_count() == before


def test_closing_from_a_future(model: Path) -> None:
    runtime, closed = Runtime(model), threading.Event()

    def close(_: object) -> None:
        runtime.close()
        closed.set()

    futures = [runtime.predict_async(each) for each in pictures(6)]
    futures[2].add_done_callback(close)
    assert closed.wait(60)
    assert len([each.result(30) for each in futures]) == 6


def test_without_close_it_is_freed_with_the_object(model: Path) -> None:
    import gc
    import weakref

    runtime = Runtime(model)
    runtime(pictures(3))
    session = weakref.ref(runtime._opened().session)
    del runtime
    gc.collect()
    assert session() is None


# --- artifacts that do not fit


def test_an_engine_of_another_version(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.clu", versions={"onnxruntime": "0.1"})
    with pytest.warns(EngineWarning) as warned, Runtime(path) as runtime:
        assert_equal(runtime(image(1)), Runtime(artifact(tmp_path / "b.clu"))(image(1)))
    here = onnxruntime.__version__
    assert [str(each.message) for each in warned] == [
        f"{path}: its engine does not fit here (onnxruntime 0.1 there, {here} here); the graph is compiled anew, every "
        "time: build it on this machine"
    ]
    assert issubclass(EngineWarning, RuntimeWarning)
    assert warned[0].filename == __file__


def test_an_engine_of_another_machine(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.clu", machine={"architecture": "riscv64"})
    with pytest.warns(EngineWarning, match=r"architecture riscv64 there, \w+ here"), Runtime(path) as runtime:
        assert len(runtime(image(2))) == 2


def test_an_engine_that_is_none(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.clu", blob=b"cluinfer ort 1 {}\n")
    with pytest.warns(EngineWarning, match="not a graph compiled by the ort engine"), Runtime(path) as runtime:
        assert len(runtime(image(2))) == 2


@pytest.mark.filterwarnings("error")
def test_without_a_compiled_engine_it_compiles_quietly(tmp_path: Path) -> None:
    with Runtime(artifact(tmp_path / "a.clu", blob=None)) as runtime:
        assert len(runtime(image(2))) == 2


def test_an_engine_that_does_not_fit_and_a_graph_that_cannot_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("no compiler")

    path = artifact(tmp_path / "a.clu", versions={"onnxruntime": "0.1"})
    other = artifact(tmp_path / "b.clu", blob=None)
    monkeypatch.setattr("cluinfer.engines.ort.ORTEngine.compile", fail)
    with pytest.warns(EngineWarning):
        got = message(Runtime, path, kind=EngineError)
    here = onnxruntime.__version__
    assert got == (
        f"{path}: its engine does not fit here (onnxruntime 0.1 there, {here} here), and its graph cannot be compiled "
        "here: no compiler"
    )
    assert message(Runtime, other, kind=EngineError) == f"{other}: its graph cannot be compiled here: no compiler"


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (
            {"size": (32, 32)},
            "its engine takes image float32 [?, 3, 32, 48], the manifest says image float32 [?, 3, 32, 32]",
        ),
        (
            {"maps": ()},
            "its engine gives logits, clusters/network.0.0.token_mixer, clusters/network.1, "
            "clusters/network.2.0.token_mixer, clusters/network.2.1.token_mixer, the manifest says logits",
        ),
    ],
)
def test_a_manifest_that_promises_something_else(tmp_path: Path, changed: dict[str, Any], wanted: str) -> None:
    path = artifact(tmp_path / "a.clu", **changed)
    assert message(Runtime, path, kind=ArtifactError) == f"{path}: {wanted}"


def test_a_manifest_that_promises_other_shapes(tmp_path: Path) -> None:
    from cluinfer.errors import GraphError

    with Runtime(artifact(tmp_path / "a.clu", classes=7)) as runtime:
        wanted = "the graph promises logits of shape [?, 7], but it has [1, 5]"
        assert message(runtime, image(1), kind=GraphError) == wanted


def test_an_engine_that_nobody_knows(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "a.clu"
    built = replace(read_artifact(model).manifest.built, engine="magic")
    write_artifact(path, small("fec"), None, promise("fec"), built)
    assert message(Runtime, path, kind=EngineError) == (
        f"{path}: there is no engine 'magic'; there are: trt, openvino, ort; "
        "update cluinfer, or build it for one of these"
    )


def test_wrong_arguments(model: Path, tmp_path: Path) -> None:
    assert message(Runtime, model, "TPU", kind=EngineError) == "device must be CPU or GPU, got 'TPU'"
    assert message(Runtime, model, "GPU", kind=EngineError) == (
        f"{model}: built for ort, which runs on the CPU, not on the GPU: build it with another --engine"
    )
    assert message(Runtime, model, hint="speed", kind=EngineError).startswith("hint must be latency or throughput")
    assert message(Runtime, model, threads=0, kind=EngineError) == "threads must be a positive number, got 0"
    none = tmp_path / "none.clu"
    wanted = f"{none}: wanted an artifact, which `cluinfer build` makes, found nothing"
    assert message(Runtime, none, kind=ArtifactError) == wanted


def test_a_graph_alone_is_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small("fec"))
    assert message(Runtime, path, kind=ArtifactError).startswith(f"{path}: wanted an artifact; `cluinfer build` ")


def test_a_relative_path_stays_where_it_was(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    with Runtime(model.name) as runtime:
        monkeypatch.chdir(tmp_path)
        with pickle.loads(pickle.dumps(runtime)) as copy:
            assert_equal(copy(image(1)), runtime(image(1)))
