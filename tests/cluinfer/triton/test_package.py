"""The model repository as it is written: what is in it, what is refused, what stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import BuiltModel

from cluinfer.artifact import Built, read_artifact, write_artifact
from cluinfer.cli import main
from cluinfer.engines import blob
from cluinfer.errors import ArtifactError, CluinferError, NotShownError
from cluinfer.triton import Serving, package
from cluinfer.triton.config import Batches, service_name

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

# What the API server asks of an InferenceService with a model, of serving.kserve.io/v1beta1.
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
INFERENCE_SERVICE = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": NAME}},
        "spec": {
            "type": "object",
            "required": ["predictor"],
            "additionalProperties": False,
            "properties": {
                "predictor": {
                    "type": "object",
                    "required": ["model"],
                    "additionalProperties": False,
                    "properties": {
                        "model": {
                            "type": "object",
                            "required": ["modelFormat"],
                            "additionalProperties": False,
                            "properties": {
                                "modelFormat": {
                                    "type": "object",
                                    "required": ["name"],
                                    "properties": {"name": {"const": "triton"}},
                                },
                                "protocolVersion": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                                "storageUri": {"type": "string", "pattern": "^(pvc|s3|gs|https?|hf|oci)://."},
                                "image": {"type": "string", "minLength": 1},
                            },
                        }
                    },
                }
            },
        },
    },
}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_command_writes_a_repository(
    built_model: BuiltModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "new" / "repository"
    command = ["package", "triton", str(built_model.artifact), "-o", str(repository), "--maps", "stage1", "--json"]
    assert main([*command, "--name", "Cats_1"]) == 0
    said = json.loads(capsys.readouterr().out)
    wanted = {"config.pbtxt", "labels.txt", "1/model.py", "1/model.clu"}
    assert files(repository) == {f"Cats_1/{name}" for name in wanted} | {"kserve.yaml"}
    assert said["platform"] == "python" and said["folder"] == str(repository / "Cats_1")
    first = next(each for each in read_artifact(built_model.artifact).manifest.promise.maps if each.alias == "stage1")
    assert [name for name in said["outputs"] if name.startswith("clusters/")] == [first.output]
    assert (repository / "Cats_1/1/model.clu").read_bytes() == built_model.artifact.read_bytes()
    assert (repository / "Cats_1/labels.txt").read_text() == "cat\ndog\nhorse\n"
    manifest = yaml.safe_load((repository / "kserve.yaml").read_text())
    jsonschema.validate(manifest, INFERENCE_SERVICE)
    assert manifest["metadata"]["name"] == "cats-1"


def test_a_model_of_ours_is_replaced_and_another_s_stays(built_model: BuiltModel, tmp_path: Path) -> None:
    made = package(built_model.artifact, tmp_path)
    (made.folder / "1" / "left.over").touch()
    assert "dynamic_batching" in (made.folder / "config.pbtxt").read_text()
    package(built_model.artifact, tmp_path, serving=Serving(max_batch=1))
    assert "max_batch_size: 1\n" in (written := (made.folder / "config.pbtxt").read_text())
    assert "dynamic_batching" not in written
    assert not (made.folder / "1" / "left.over").exists()
    (made.folder / "config.pbtxt").write_text('name: "model"')
    before = files(tmp_path)
    with pytest.raises(CluinferError, match="something that cluinfer did not write"):
        package(built_model.artifact, tmp_path)
    shutil.rmtree(made.folder)
    (tmp_path / "kserve.yaml").write_text("kind: Secret")
    with pytest.raises(CluinferError, match=r"kserve.yaml: there is something that cluinfer did not write"):
        package(built_model.artifact, tmp_path)
    assert files(tmp_path) == {"kserve.yaml"} < before


def test_a_failed_write_leaves_what_was_there(
    built_model: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = package(built_model.artifact, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(CluinferError, match="cannot write a model there: No space left on device"):
        package(built_model.artifact, tmp_path, serving=Serving(max_batch=5))
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert [path.name for path in made.folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", "x" * 101, "end."])
def test_names_that_are_refused(built_model: BuiltModel, tmp_path: Path, name: str) -> None:
    with pytest.raises(CluinferError, match="cannot name a model of Triton"):
        package(built_model.artifact, tmp_path / "repository", name)
    assert not (tmp_path / "repository").exists()


def test_what_does_not_fit_is_refused(built_model: BuiltModel, tmp_path: Path) -> None:
    with pytest.raises(NotShownError, match="no cluster map 'stage9'; there are stage1, stage2"):
        package(built_model.artifact, tmp_path, serving=Serving(maps=("stage9",)))
    for wrong in ({"max_batch": 0}, {"delay": -1}, {"instances": 0}, {"threads": 0}):
        with pytest.raises(CluinferError, match=f"{next(iter(wrong))} must be a whole number"):
            Serving(**wrong)
    with pytest.raises(CluinferError, match="less than the 4 images"):
        Batches.of(4, 3)
    assert files(tmp_path) == set()


def test_batches_leave_no_padding() -> None:
    assert Batches.of(1, None) == Batches(8, 1) and Batches(8, 1).preferred == []
    assert Batches.of(3, None).preferred == [3, 6]
    assert Batches.of(16, None).preferred == [16]


def test_names_for_kubernetes() -> None:
    assert [service_name(name) for name in ("FEC_small.int8", "7", "___")] == ["fec-small-int8", "m-7", "m"]
    assert len(service_name("x" * 100)) == 63


def tensorrt(built_model: BuiltModel, path: Path, profile: list[int]) -> bytes:
    """An artifact as TensorRT would have made it: the plan is any bytes, which nothing here reads."""
    head = dict.fromkeys(("tensorrt", "precision", "gpu", "capability"), "x") | {"batch": profile[1]}
    head |= dict.fromkeys(("plugins", "version_compatible", "hardware_compatible"), True) | {"profile": profile}
    plan = np.random.default_rng(0).bytes(1000)
    artifact = read_artifact(built_model.artifact)
    built = Built("trt", "fp16", "latency", profile[1], {}, {}, "2026-01-01")
    write_artifact(path, artifact.graph(), blob.seal("trt", head, plan), artifact.manifest.promise, built)
    return plan


def test_an_engine_of_tensorrt_is_the_server_s_own(built_model: BuiltModel, tmp_path: Path) -> None:
    plan = tensorrt(built_model, tmp_path / "gpu.clu", [1, 8, 32])
    made = package(tmp_path / "gpu.clu", tmp_path / "plans")
    assert files(made.folder) == {"config.pbtxt", "labels.txt", "1/model.plan"}
    assert (made.folder / "1/model.plan").read_bytes() == plan
    text = (made.folder / "config.pbtxt").read_text()
    for part in ('platform: "tensorrt_plan"', "max_batch_size: 32", "[8, 16, 24, 32]", "KIND_GPU"):
        assert part in text
    assert "image" not in yaml.safe_load(made.manifest.read_text())["spec"]["predictor"]["model"]
    assert package(tmp_path / "gpu.clu", tmp_path / "python", serving=Serving(pictures=True)).platform == "python"
    with pytest.raises(CluinferError, match="more than the 32 images"):
        package(tmp_path / "gpu.clu", tmp_path / "plans", serving=Serving(max_batch=33))
    tensorrt(built_model, tmp_path / "fixed.clu", [8, 8, 8])
    with pytest.raises(ArtifactError, match="takes no batch of less than 8: build it with --batch 1:8:8"):
        package(tmp_path / "fixed.clu", tmp_path / "plans")
