"""An exported graph held against its checkpoint: the same passes, anything else does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_cases
import numpy as np
import onnx
import pytest
import torch
from conftest import BuiltModel
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx_models import tiny

from cluinfer.cli import main
from cluinfer.errors import CheckpointError, GraphError, ShapeError
from cluinfer.export import load_model
from cluinfer.export.images import read_images, synthetic_images
from cluinfer.export.models import Config, build, published
from cluinfer.export.models.config import config
from cluinfer.export.models.icasc import IcascConfig
from cluinfer.export.nn import watch_clusters
from cluinfer.export.nn.layout import Layout
from cluinfer.export.nn.margins import watch_margins
from cluinfer.export.nn.watch import Assignment
from cluinfer.export.onnx_file import read_promise, write_onnx
from cluinfer.export.reference import reference_outputs
from cluinfer.export.to_onnx import to_onnx
from cluinfer.export.torch_ops import cluster_assign as assign
from cluinfer.export.verify import measure, verify
from cluinfer.ops import cluster_assign

COC = config("coc", (1, 1, 1, 1), (32, 64, 96, 128), (2, 2, 4, 4), 24, (2, 2, 2, 2), (4, 2, 1, 1), (1, 1, 1, 1))
ICASC = IcascConfig("basic", (1, 1, 1, 1), num_classes=7)


def saved(folder: Path, settings: Config, kind: str) -> Path:
    """A checkpoint with the golden parameters."""
    model = build(settings)
    golden_cases.fill(model, kind)
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def exported(checkpoint: Path, **options: Any) -> Path:
    """The plain graph beside its checkpoint: the passes have tests of their own."""
    path = checkpoint.with_suffix(".onnx")
    write_onnx(to_onnx(load_model(checkpoint), optimize=False, **options), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cluenet_cifar as model.pt, and as model.onnx with all maps and evidence."""
    folder = tmp_path_factory.mktemp("cluenet_cifar")
    exported(saved(folder, published("cluenet_cifar"), "clue"), maps="all", evidence=3)
    return folder


def changed(folder: Path, to: Path, scale: float = 1.001) -> Path:
    """The graph with its largest weight scaled a little."""
    model = onnx.load_model(folder / "model.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(scale), weight.name))
    write_onnx(model, to / "changed.onnx")
    return to / "changed.onnx"


# --- what passes


def test_a_graph_does_what_its_checkpoint_does(folder: Path) -> None:
    found = verify(folder / "model.onnx", folder / "model.pt")
    assert found.failures == ()
    fidelity = found.fidelity
    assert (fidelity.images, fidelity.top1_same) == (6, 6)
    assert list(fidelity.maps) == [f"clusters/{layer}" for layer in golden_cases.load("cluenet_cifar").index]
    assert all(each.near_ties is not None and each.flips == 0 for each in fidelity.maps.values())
    assert list(fidelity.numbers) == list(found.tensors) == ["logits", "evidence"]
    assert all(each.passed and each.max_absolute < 1e-3 for each in found.tensors.values())
    assert fidelity.numbers["logits"].max_error < 1e-4


def test_icasc_with_attention(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, ICASC, "icasc")
    found = verify(exported(checkpoint, size=64), checkpoint, batches=(2,))
    assert found.failures == ()
    assert list(found.fidelity.numbers) == ["logits", "attention/last", "attention/inner"]


@pytest.mark.filterwarnings("ignore::cluinfer.export.load.AssumptionWarning")
def test_overrides_as_at_export(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, COC, "coc")
    settings = {"grid": "3,3,2,2", "fold": "2,2,1,1"}
    model = load_model(checkpoint, **settings)
    write_onnx(to_onnx(model, size=64, maps="all", optimize=False), tmp_path / "model.onnx")
    found = verify(tmp_path / "model.onnx", checkpoint, batches=(2,), **settings)
    assert found.failures == ()
    assert found.fidelity.maps
    with pytest.raises(GraphError) as error:
        verify(tmp_path / "model.onnx", checkpoint, batches=(1,))
    assert str(error.value) == (
        "the graph clusters network.0.0.token_mixer with fold (2, 2), the reference with (8, 8); set arch, grid, fold "
        "or heads of the reference as they were at export"
    )


@pytest.mark.filterwarnings("ignore::cluinfer.export.load.AssumptionWarning")
def test_backbones(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, replace(COC, num_classes=None), "coc")
    found = verify(exported(checkpoint, size=64), checkpoint, batches=(2,))
    assert found.failures == ()
    assert list(found.fidelity.numbers) == ["features/1", "features/2", "features/3", "features/4"]
    assert found.fidelity.top1_same is None


def test_images_of_ones_own(folder: Path, tmp_path: Path) -> None:
    images = golden_cases.load("cluenet_cifar").input
    np.save(tmp_path / "images.npy", np.concatenate([images] * 5))
    found = verify(folder / "model.onnx", folder / "model.pt", read_images(tmp_path / "images.npy"), batches=(1, 2))
    assert found.failures == ()
    assert found.fidelity.images == 5 * len(images)


def test_an_artifact_in_its_engine(built_model: BuiltModel, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(built_model.artifact), "--reference", str(built_model.checkpoint), "--json"]
    assert main(command) == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["passed"], held["images"], held["top1_same"]) == (True, 6, 6)
    assert held["maps"].keys() == {"clusters/network.0.0.token_mixer", "clusters/network.2.0.token_mixer"}
    assert held["polygraphy"].keys() == {"logits", "evidence"}
    assert all(each["near_ties"] is not None for each in held["maps"].values())


def test_on_real_pictures(built_model: BuiltModel, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(built_model.artifact), "--reference", str(built_model.checkpoint), "--json"]
    assert main([*command, "--pictures", str(built_model.pictures)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["images"] == 3
    damaged = f"{built_model.pictures / 'damaged.png'}: wanted a picture, found a file of no format that Pillow reads"
    assert f"cluinfer: warning: {damaged}; left out\n" in printed.err


def test_measuring_needs_an_image() -> None:
    with pytest.raises(ShapeError, match="no images to compare with: wanted one at least"):
        measure(lambda images: {}, lambda images, classes: ({}, {}), [])


# --- what does not


def test_one_weight_changed(folder: Path, tmp_path: Path) -> None:
    found = verify(changed(folder, tmp_path, 1.05), folder / "model.pt")
    assert any(failure.startswith("logits: off by up to ") for failure in found.failures)
    assert not found.tensors["logits"].passed


def test_the_thresholds_decide(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path)
    assert verify(path, folder / "model.pt", min_agreement=0, max_error=10).failures == ()
    strict = verify(path, folder / "model.pt", min_agreement=0, max_error=1e-9)
    assert [failure.partition(":")[0] for failure in strict.failures] == ["logits", "evidence"]
    assert not strict.tensors["logits"].passed


def test_ids_that_are_shuffled_are_flips(folder: Path, tmp_path: Path) -> None:
    model = onnx.load_model(folder / "model.onnx")
    name = "clusters/network.1"
    for node in model.graph.node:
        node.output[:] = ["shuffled" if each == name else each for each in node.output]
        node.input[:] = ["shuffled" if each == name else each for each in node.input]
    one = numpy_helper.from_array(np.array(1, np.int32), "one")
    model.graph.initializer.append(one)
    model.graph.node.append(onnx.helper.make_node("Add", ["shuffled", "one"], [name]))
    write_onnx(model, tmp_path / "model.onnx")
    found = verify(tmp_path / "model.onnx", folder / "model.pt")
    (failure,) = found.failures
    assert failure.startswith(f"{name}: only 0")
    assert found.fidelity.maps[name].same == 0
    assert found.fidelity.numbers["logits"].max_error < 1e-4


def test_another_checkpoint(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit cluenet_cifar"):
        verify(folder / "model.onnx", saved(tmp_path, COC, "coc"))
    other = tmp_path / "trained_further.pt"
    state = torch.load(folder / "model.pt", weights_only=True)
    torch.save({name: value * 1.2 if "mlp" in name else value for name, value in state.items()}, other)
    failures = verify(folder / "model.onnx", other).failures
    assert any(failure.startswith("logits: off by up to ") for failure in failures)


def test_another_number_of_classes(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / "model.pt", weights_only=True)
    state |= {"head.weight": state["head.weight"][:10].clone(), "head.bias": state["head.bias"][:10].clone()}
    torch.save(state, tmp_path / "ten.pt")
    with pytest.raises(GraphError) as error:
        verify(folder / "model.onnx", tmp_path / "ten.pt")
    ten = tmp_path / "ten.pt"
    assert str(error.value) == (
        f"the graph has 1000 classes, {ten} has 10; give the checkpoint that the graph was exported from"
    )


def test_a_graph_that_does_not_say_what_it_is(folder: Path, tmp_path: Path) -> None:
    write_onnx(tiny(), tmp_path / "model.onnx")
    with pytest.raises(GraphError) as error:
        verify(tmp_path / "model.onnx", folder / "model.pt")
    assert str(error.value) == (
        f"{tmp_path / 'model.onnx'}: does not say what its outputs are; export the checkpoint with cluinfer export"
    )


def test_kinds_of_files_that_are_not_taken(folder: Path) -> None:
    with pytest.raises(GraphError, match=r"model\.pt2: a torch\.export program, wanted a checkpoint"):
        verify(folder / "model.onnx", "model.pt2")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 32, 33), np.float32), "images: wanted 32x32, got 32x33"),
        (np.zeros((1, 32, 32, 3), np.float32), "images: wanted float32 [N, 3, H, W], got float32 [1, 32, 32, 3]"),
        (np.zeros((1, 3, 32, 32)), "images: wanted float32 [N, 3, H, W], got float64 [1, 3, 32, 32]"),
        (np.zeros((0, 3, 32, 32), np.float32), "images: wanted float32 [N, 3, H, W], got float32 [0, 3, 32, 32]"),
    ],
)
def test_images_that_do_not_fit(folder: Path, images: NDArray[Any], message: str) -> None:
    with pytest.raises(ShapeError) as error:
        verify(folder / "model.onnx", folder / "model.pt", images)
    assert str(error.value) == message


# --- the reference


@pytest.mark.parametrize("name", ["fec_small", "coc_tiny", "cluenet_cifar"])
def test_near_ties_are_as_many_as_the_golden_cases_say(name: str) -> None:
    case = golden_cases.load(name)
    model = build(replace(published(name), num_classes=case.num_classes)).eval()
    golden_cases.fill(model, case.kind)
    with torch.no_grad(), watch_clusters(model) as seen, watch_margins() as margins:
        model(torch.from_numpy(case.input))
    for layer, assignment in seen.items():
        margin = margins.of(assignment)
        assert margin.shape == assignment.index.shape
        if case.kind != "clue" or "token_mixer" not in layer:  # there the cases count none
            assert float((margin < 1e-5).float().mean()) == pytest.approx(case.near_tie[layer], abs=2e-4)


def test_margins_against_numpy() -> None:
    random = np.random.default_rng(0)
    points, centers = random.normal(size=(2, 4, 9)), random.normal(size=(2, 4, 3))
    with watch_margins() as margins:
        index, weight = assign(torch.from_numpy(points), torch.from_numpy(centers), 2.0, -0.5)
        one, one_weight = assign(torch.from_numpy(points), torch.from_numpy(centers[:, :, :1]))
    layout = Layout(1, (1, 1), (3, 3), (1, 3))
    best, first = cluster_assign(points, centers, alpha=2.0, beta=-0.5)[1], index.numpy()
    second = np.empty_like(best)
    for g, n in np.ndindex(*first.shape):
        rest = np.delete(centers[g], first[g, n], axis=1)[None]
        second[g, n] = cluster_assign(points[g : g + 1, :, n : n + 1], rest, alpha=2.0, beta=-0.5)[1][0, 0]
    np.testing.assert_allclose(margins.of(Assignment(index, weight, layout)).numpy(), best - second, atol=1e-9)
    assert bool(margins.of(Assignment(one, one_weight, layout)).isinf().all())


@pytest.mark.filterwarnings("ignore::cluinfer.export.load.AssumptionWarning")
def test_ids_count_regions_row_by_row(tmp_path: Path) -> None:
    """Against a plain loop over the regions."""
    model = load_model(saved(tmp_path, COC, "coc"), fold="4,2,1,1")
    promise = read_promise(to_onnx(model, size=64, maps="all", optimize=False))
    assert promise is not None
    images = synthetic_images(2, (64, 64))
    with torch.no_grad(), watch_clusters(model) as seen:
        model(torch.from_numpy(images))
    outputs, margins = reference_outputs(model, promise, images)
    for each in promise.maps:
        assignment = seen[each.layer]
        index = assignment.index.numpy().reshape(2, each.heads, *each.fold, *assignment.layout.region)
        rows, columns = assignment.layout.region
        ids = outputs[each.output]
        assert (ids.shape, ids.dtype) == ((2, each.heads, *each.size), np.int32)
        for r, c in np.ndindex(*each.fold):
            block = ids[:, :, r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            first = (r * each.fold[1] + c) * each.grid[0] * each.grid[1]
            np.testing.assert_array_equal(block, index[:, :, r, c] + first)
        assert margins[each.output].shape == ids.shape
    assert {each.fold for each in promise.maps} == {(4, 4), (2, 2), (1, 1)}


# --- the command


def command(folder: Path, *more: str, model: Path | None = None) -> int:
    return main(["verify", str(model or folder / "model.onnx"), "--reference", str(folder / "model.pt"), *more])


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert printed.err == ""
    assert lines[0].split() == ["layer", "points", "same", "near", "ties", "real", "flips"]
    assert lines[-2:] == ["", "the same, within the thresholds"]
    assert any(line.split()[:3] == ["network.1", "pool1", "6144"] for line in lines)


def test_command_with_another_graph(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(folder, tmp_path, 1.05)
    assert command(folder, model=path) == 1
    assert "not the same: logits: off by up to " in capsys.readouterr().out
    assert command(folder, "--max-logit-error", "10", "--min-agreement", "0", model=path) == 0


def test_command_as_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--json") == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["passed"], held["failures"], held["images"], held["top1_same"]) == (True, [], 6, 6)
    assert held["maps"]["clusters/network.1"]["points"] == 6144
    assert held["polygraphy"]["logits"]["passed"] is True
    assert command(folder, "--json", model=changed(folder, tmp_path, 1.05)) == 1
    held = json.loads(capsys.readouterr().out)
    assert (held["passed"], held["polygraphy"]["logits"]["passed"]) == (False, False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--set", "colour=3"],
            "--set colour=3: wanted grid, fold, heads, size, each with a value, such as grid=8,8,4,4",
        ),
        (["--set", "grid"], "--set grid=: wanted grid, fold, heads, size, each with a value, such as grid=8,8,4,4"),
        (["--set", "grid=0"], "grid=0: wanted one value or 4, from 1 to 8192"),
        (["--arch", "nonesuch"], "unknown arch"),
        (["--images", "gone.npy"], "gone.npy: wanted a .npy or .npz file with images, found none"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert command(folder, *more) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"cluinfer: error: {message}")
    assert printed.err.count("\n") == 1


def test_files_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"hello")
    for path, message in (
        (tmp_path / "gone.onnx", "wanted an ONNX file, found nothing"),
        (tmp_path / "model.onnx", "not an ONNX file, or truncated or damaged; copy or export it again"),
    ):
        assert command(folder, model=path) == 2
        assert capsys.readouterr() == ("", f"cluinfer: error: {path}: {message}\n")
