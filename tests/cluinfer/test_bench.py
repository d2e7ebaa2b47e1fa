"""What a measurement records: enough to repeat it, and no number that depends on this machine is asserted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import BuiltModel
from onnx import TensorProto, helper, save_model

from cluinfer.bench import Bench, Contestant, Result, bench
from cluinfer.cli import main
from cluinfer.cold_start import measure_starts
from cluinfer.engines import Options
from cluinfer.errors import CluinferError, ShapeError
from cluinfer.timing import Plan, statistics

SHORT = Plan(warm_up=0, seconds=60, runs=4)
QUICK = ["--warm-up", "0", "--runs", "4", "--threads", "1", "--starts", "0"]


@pytest.fixture(scope="module")
def record(built_model: BuiltModel) -> dict[str, object]:
    """An artifact against its graph, in JSON and back."""
    steps: list[str] = []
    found = bench(
        built_model.artifact,
        [built_model.graph],
        batches=(1, 3),
        streams=(1, 2),
        threads=1,
        plan=SHORT,
        starts=1,
        progress=steps.append,
    )
    return json.loads(json.dumps({**found.to_dict(), "steps": steps}))  # type: ignore[no-any-return]


def test_every_setting_is_measured(record: dict[str, list[dict[str, object]]]) -> None:
    results = record["results"]
    assert [(each["model"], each["batch"], each["streams"]) for each in results] == [
        (model, batch, streams) for batch in (1, 3) for streams in (1, 2) for model in ("model.clu", "model.onnx")
    ]
    for each in results:
        latency = each["latency_ms"]
        assert isinstance(latency, dict)
        assert latency["runs"] >= 4
        assert 0 < latency["min"] <= latency["median"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
        assert each["images_per_second"] > 0  # type: ignore[operator]
    assert results[0]["ratio"] == {"median": 1.0, "min": 1.0, "images_per_second": 1.0}
    first, second = results[2]["latency_ms"], results[3]["latency_ms"]
    assert results[3]["ratio"]["median"] == pytest.approx(second["median"] / first["median"])  # type: ignore[index]
    assert record["steps"] == [
        *(f"measuring batch {batch}, streams {streams}" for batch in (1, 3) for streams in (1, 2)),
        "starting model.clu in fresh processes",
        "starting model.onnx in fresh processes",
    ]


def test_what_is_needed_to_repeat_it(record: dict[str, dict[str, dict[str, object]]], built_model: BuiltModel) -> None:
    conditions, models = record["conditions"], record["models"]
    assert conditions["plan"] == {"warm_up": 0, "seconds": 60, "runs": 4}
    assert conditions["threads"] == 1
    assert {"cluinfer", "openvino", "numpy", "python"} <= conditions["versions"].keys()
    assert {"system", "architecture", "cpu"} <= conditions["machine"].keys()
    assert conditions["cores"] >= 1  # type: ignore[operator]
    assert conditions["load_average"].keys() == {"before", "after"}
    assert list(models) == ["model.clu", "model.onnx"]
    for name, held in models.items():
        path = built_model.folder / name
        assert held["path"] == str(path)
        assert held["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (held["engine"], held["precision"], held["hint"]) == ("openvino", "fp32", "latency")
        assert held["inputs"] == {"image": "float32 [?, 3, 32, 32]"}
        assert held["outputs"][0] == "logits"  # type: ignore[index]
    assert models["model.clu"]["built"]["batch"] == 1  # type: ignore[index]
    assert models["model.onnx"]["built"] is None


def test_fresh_processes(record: dict[str, dict[str, dict[str, list[dict[str, float]]]]]) -> None:
    for held in record["models"].values():
        (start,) = held["starts"]
        assert 0 < start["load"] + start["first"] < start["cold"]
        assert start["peak_mib"] > 10


def test_an_artifact_runs_as_it_was_built(built_model: BuiltModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only another batch makes it compile."""
    contestant = Contestant("model.clu", built_model.artifact, "ort", 2)
    assert contestant.compiler.name == "openvino"
    monkeypatch.setattr(contestant.compiler, "compile", lambda *given: pytest.fail("compiled"))
    with contestant.open(1, 2) as session:
        assert (session.batch, session.streams) == (1, 2)
    monkeypatch.undo()
    with contestant.open(2, 1) as session:
        assert (session.batch, session.streams) == (2, 1)


def test_a_model_beside_itself_and_files_of_one_name(built_model: BuiltModel, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(built_model.graph.read_bytes())
    graph, other = built_model.graph, tmp_path / "model.onnx"
    found = bench(graph, [other, graph], threads=1, engine="ort", plan=SHORT, starts=0)
    assert [each.model for each in found.results] == [str(graph), str(other), f"{graph} (2)"]
    assert {each["engine"] for each in found.models.values()} == {"ort"}
    assert found.starts == {}


def measured(*variations: float) -> Bench:
    """Results whose runs vary by so much."""
    held = statistics([0.001])
    results = [Result(f"{i}.clu", 1, 1, replace(held, variation=each), 1e3) for i, each in enumerate(variations)]
    return Bench(tuple(results), {}, {}, {})


def test_a_busy_machine_is_named() -> None:
    assert measured(0.0, 0.025).warnings == []
    assert measured(0.02, 0.026, 0.5).warnings == [
        "the machine was not quiet: the runs of 2 of 3 measurements vary by more than 2.5%, those of 2.clu at batch 1, "
        "streams 1 by 50.0%; compare minima and ratios only"
    ]


# --- the command


def test_tables(built_model: BuiltModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(built_model.graph), "--against", str(built_model.artifact), *QUICK]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        *(
            "ms",
            "batch",
            "streams",
            "runs",
            "min",
            "mean",
            "median",
            "p90",
            "p95",
            "p99",
            "varies",
            "images/s",
            "ratio",
        ),
    ]
    assert out[1].split()[0] == "model.onnx"
    assert out[1].split()[1:4] == ["1", "1", "6"]
    assert out[1].split()[-1] == "1.00"
    assert out[2].split()[0] == "model.clu"
    assert out[4].startswith("machine   ")
    assert out[5:7] == ["threads   1", "engines   model.onnx: openvino fp32; model.clu: openvino fp32"]
    assert out[8] == "ratio     the median over that of model.onnx in the same setting"


def test_fresh_processes_in_the_table(capsys: pytest.CaptureFixture[str], built_model: BuiltModel) -> None:
    assert main(["bench", str(built_model.graph), *QUICK[:-1], "1", "--engine", "ort"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[3].split() == ["fresh", "process,", "ms", "cold", "start", "load", "first", "run", "peak", "MiB"]
    name, *numbers = out[4].split()
    assert name == "model.onnx"
    assert all(number.isdigit() for number in numbers)
    assert len(numbers) == 4


def test_json_and_plot(built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plot.svg"
    command = ["bench", str(built_model.artifact), "--batch", "1,2", "--plot", str(picture), "--json", *QUICK]
    assert main(command) == 0
    held = json.loads(capsys.readouterr().out)
    assert [each["batch"] for each in held["results"]] == [1, 2]
    assert held["models"]["model.clu"]["starts"] == []
    assert "throughput" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.clu"], "gone.clu: wanted an artifact, which `cluinfer build` makes, found nothing"),
        (["gone.onnx"], "gone.onnx: wanted an artifact (.clu) or an ONNX file (.onnx), found nothing"),
        (["model.pt"], "model.pt: wanted an artifact (.clu) or an ONNX file (.onnx), found another file"),
        (["."], ".: wanted an artifact (.clu) or an ONNX file (.onnx), found a folder"),
        (["model.clu", "--batch", "1,x"], "--batch 1,x: wanted positive numbers such as 1,2,4"),
        (["model.clu", "--streams", "0"], "--streams 0: wanted positive numbers such as 1,2,4"),
        (["model.clu", "--runs", "0"], "a measurement of 0 runs and 10.0 s: wanted one run or more, and some time"),
        (["model.clu", "--plot", "a.txt"], "a.txt: wanted a picture's name ending in .png, .svg, .pdf"),
        (["model.onnx", "--engine", "tvm"], "there is no engine 'tvm'; there are: trt, openvino, ort"),
        (["model.clu", "--threads", "0"], "threads must be a positive number, got 0"),
    ],
)
def test_what_cannot_be_measured(
    built_model: BuiltModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(built_model.folder)
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr() == ("", f"cluinfer: error: {message}\n")


def test_graphs_that_do_not_say_what_they_take(tmp_path: Path) -> None:
    free = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, "height", 4])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "main", [free], [out])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(ShapeError) as error:
        bench(tmp_path / "a.onnx", engine="ort", plan=SHORT, starts=0)
    assert str(error.value) == ("x is float32 [?, 3, ?, 4]: wanted an input of floats, every side but the batch fixed")


def test_the_peak_is_the_process_s_own(built_model: BuiltModel) -> None:
    ballast = np.ones(600 << 20, np.uint8)
    (start,) = measure_starts(1, built_model.graph, "ort", Options(threads=1))
    assert start.peak_mib is not None
    assert 10 < start.peak_mib < 500 < ballast.nbytes / (1 << 20)


def test_a_fresh_process_that_fails(built_model: BuiltModel, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    with pytest.raises(CluinferError, match=r"a fresh process could not load and run the model: .*EngineError: "):
        measure_starts(1, tmp_path / "bad.onnx", "ort", Options())
