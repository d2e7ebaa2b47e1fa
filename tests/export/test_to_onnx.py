"""The exported file: golden results through ONNX Runtime, maps, evidence and attention, and everything it promises."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import golden_cases
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import inliner

from cluinfer.errors import GraphError, ShapeError
from cluinfer.export import to_onnx
from cluinfer.export.models import build, published
from cluinfer.export.models.config import config
from cluinfer.export.nn import (
    ClusterBlock,
    ClusterNet,
    ClusterPool,
    ContextClustering,
    MapGroupNorm,
    PointEmbed,
    PointMlp,
    cluster_assign,
    cluster_gather,
    watch_clusters,
)
from cluinfer.export.outputs import choose_layers
from cluinfer.export.reference import reference_outputs
from cluinfer.graph import KEY, ClusterOutput, Promise

SMALL = {
    "fec": config("fec", (1, 2), (16, 24), (2, 1), 8, (2, 2), (2, 1), (2, 2), num_classes=5, size=(32, 48)),
    "coc": config("coc", (2, 1), (16, 24), (2, 1), 8, (2, 2), (2, 1), (2, 2), num_classes=5, size=(32, 48)),
    "cluenet": config(
        "cluenet", (2, 1), (16, 24), (2, 1), 8, (2, 3), (1, 1), (2, 2), num_classes=5, size=(32, 48), layer_scale=False
    ),
}


def small(family: str, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(replace(SMALL[family], **changes)).eval()
    golden_cases.fill(model, "clue" if family == "cluenet" else family)
    return model


def image(*shape: int) -> np.ndarray:
    return golden_cases.weights().image(1, shape)  # type: ignore[no-any-return]


def promise_of(proto: onnx.ModelProto) -> Promise:
    return Promise.from_json({entry.key: entry.value for entry in proto.metadata_props}[KEY])


def run(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": x}), strict=True))


def as_map(index: np.ndarray, each: ClusterOutput) -> np.ndarray:
    """Indices [G, N] of the torch model or a golden case as the promised map, written independently of the exporter."""
    region = each.size[0] // each.fold[0], each.size[1] // each.fold[1]
    batch = index.size // (each.heads * each.size[0] * each.size[1])
    ids = np.empty((batch, each.heads, *each.size), np.int64)
    g = 0
    for b in range(batch):
        for head in range(each.heads):
            for r in range(each.fold[0]):
                for c in range(each.fold[1]):
                    offset = (r * each.fold[1] + c) * each.grid[0] * each.grid[1]
                    rows, columns = (slice(i * n, (i + 1) * n) for i, n in zip((r, c), region, strict=True))
                    ids[b, head, rows, columns] = index[g].reshape(region) + offset
                    g += 1
    return ids


@cache
def golden_export(name: str) -> onnx.ModelProto:
    case = golden_cases.load(name)
    model = build(replace(published(name), num_classes=case.num_classes)).eval()
    golden_cases.fill(model, case.kind)
    return to_onnx(model, maps="all")


@pytest.mark.parametrize("name", golden_cases.cases("fec", "coc", "clue"))
def test_golden_case_through_onnx_runtime(name: str) -> None:
    """One export for both batches: it takes 20 s, and each worker would make its own."""
    proto = golden_export(name)
    for batch in (1, 5):
        assert_golden(golden_cases.load(name), proto, batch)


def assert_golden(case: golden_cases.GoldenCase, proto: onnx.ModelProto, batch: int) -> None:
    count = len(case.input)
    repeated = np.concatenate([case.input] * 5)
    parts = [run(proto, repeated[i : i + batch]) for i in range(0, max(batch, count), batch)]
    out = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    case.assert_logits(out["logits"][:count])
    maps = promise_of(proto).maps
    assert [each.layer for each in maps] == list(case.index)
    for each in maps:
        golden = as_map(case.index[each.layer].astype(np.int64), each)
        got = out[each.output][:count]
        assert got.dtype == np.int32
        differing = float((got != golden).mean())
        assert differing <= 1 - golden_cases.INDEX_AGREEMENT + case.near_tie[each.layer], each.layer


def test_golden_icasc_through_onnx_runtime() -> None:
    case = golden_cases.load("icasc_resnet18")
    proto = golden_export("icasc_resnet18")
    for repeat in (1, 3):
        out = run(proto, np.concatenate([case.input] * repeat))
        count = len(case.input)
        case.assert_logits(out["logits"][-count:])
        np.testing.assert_array_equal(out["attention_classes"][-count:], case.raw["classes"])
        for name in ("attention/last", "attention/inner"):
            error = np.abs(out[name][-count:] - case.raw[name]).max() / case.raw[name].std()
            assert error <= 2e-3, name


@cache
def exported(family: str, optimize: bool) -> onnx.ModelProto:
    return to_onnx(small(family), maps="all", evidence=3, optimize=optimize)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_everything_promised_is_there_and_right(family: str, optimize: bool) -> None:
    model = small(family)
    proto = exported(family, optimize)
    assert [opset.version for opset in proto.opset_import if opset.domain == ""] == [18]
    promise = promise_of(proto)
    assert [output.name for output in proto.graph.output] == list(promise.outputs)
    assert [value.name for value in proto.graph.input] == ["image"]
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 3, 32, 48]
    for batch in (1, 3):
        x = image(batch, 3, 32, 48)
        with torch.no_grad(), watch_clusters(model) as seen:
            logits = model(torch.from_numpy(x)).numpy()
        out = run(proto, x)
        np.testing.assert_allclose(out["logits"], logits, atol=1e-5 * logits.std())
        assert [each.layer for each in promise.maps] == list(seen)
        for each in promise.maps:
            np.testing.assert_array_equal(out[each.output], as_map(seen[each.layer].index.numpy(), each))
        ids = out["evidence_classes"]
        np.testing.assert_array_equal(ids, np.argsort(-logits, axis=1)[:, :3])
        with_bias = out["evidence"].sum((2, 3)) + model.head.bias.detach().numpy()[ids]
        np.testing.assert_allclose(with_bias, np.take_along_axis(logits, ids, 1), atol=1e-5)
        with torch.no_grad():
            last = model.norm(model.stage_maps(torch.from_numpy(x))[-1])
            share = torch.einsum("bkc,bchw->bkhw", model.head.weight[torch.from_numpy(ids).long()], last)
        np.testing.assert_allclose(out["evidence"], share / (last.shape[2] * last.shape[3]), atol=1e-5)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_similarities_are_those_of_the_points_to_the_centres_they_chose(family: str, optimize: bool) -> None:
    model = small(family)
    proto = to_onnx(model, maps="all", similarities=True, optimize=optimize)
    promise = promise_of(proto)
    assert [output.name for output in proto.graph.output] == list(promise.outputs)
    x = image(2, 3, 32, 48)
    with torch.no_grad(), watch_clusters(model) as seen:
        model(torch.from_numpy(x))
    out = run(proto, x)
    wanted, margins = reference_outputs(model, promise, x)
    for each in promise.maps:
        assignment = seen[each.layer]
        layout = assignment.layout
        weight = layout.merge(assignment.weight[:, None], layout.region).numpy()
        assert out[each.similarity].shape == (2, each.heads, *each.size)
        np.testing.assert_allclose(out[each.similarity], weight, atol=1e-5)
        np.testing.assert_array_equal(wanted[each.similarity], weight)
        assert each.similarity not in margins


def test_similarities_of_no_maps_are_refused() -> None:
    with pytest.raises(GraphError, match="no cluster map to show them beside"):
        to_onnx(small("coc"), maps="none", similarities=True, optimize=False)


def test_the_stages_and_pools_are_named() -> None:
    promise = promise_of(exported("fec", True))
    assert [(m.layer, m.alias, m.pool, m.stage, m.heads, m.fold, m.grid, m.size) for m in promise.maps if m.alias] == [
        ("network.0.0.token_mixer", "stage1", False, 1, 2, (2, 2), (2, 2), (8, 12)),
        ("network.1", "pool1", True, 1, 1, (1, 1), (4, 6), (8, 12)),
        ("network.2.1.token_mixer", "stage2", False, 2, 1, (1, 1), (2, 2), (4, 6)),
    ]


@pytest.mark.parametrize(
    ("maps", "layers"),
    [
        ("none", []),
        ("stages", ["network.0.blocks.1.token_mixer", "network.1", "network.2.blocks.0.token_mixer"]),
        ("pool1,network.0.blocks.0.token_mixer", ["network.0.blocks.0.token_mixer", "network.1"]),
        (["stage2"], ["network.2.blocks.0.token_mixer"]),
    ],
)
def test_maps_can_be_chosen(maps: Any, layers: list[str]) -> None:
    everything = promise_of(exported("cluenet", False)).maps
    assert [each.layer for each in choose_layers(everything, maps)] == layers


def test_only_the_chosen_maps_are_outputs() -> None:
    proto = to_onnx(small("coc"), maps=["stage2"], optimize=False)
    assert [each.layer for each in promise_of(proto).maps] == ["network.2.0.token_mixer"]
    assert [o.name for o in proto.graph.output] == ["logits", "clusters/network.2.0.token_mixer"]


def test_a_map_that_is_not_there() -> None:
    everything = promise_of(exported("cluenet", False)).maps
    with pytest.raises(GraphError, match=r"no clustering layer 'stage9'; wanted none, stages, all, or of: network.0"):
        choose_layers(everything, "stage1,stage9")


@pytest.mark.parametrize("family", SMALL)
def test_inlined_it_runs_in_plain_onnx_runtime_and_plain_openvino(family: str) -> None:
    openvino = pytest.importorskip("openvino")
    proto = exported(family, True)
    inlined = inliner.inline_local_functions(proto)
    assert {node.domain for node in inlined.graph.node} == {""}
    onnx.checker.check_model(inlined, full_check=True)
    core = openvino.Core()
    model = core.read_model(inlined.SerializeToString(), b"")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 5):
        x = image(batch, 3, 32, 48)
        wanted = run(proto, x)
        plain = run(inlined, x)
        theirs = compiled(x)
        for name, value in wanted.items():
            np.testing.assert_allclose(plain[name], value, atol=1e-6)
            np.testing.assert_allclose(theirs[name], value, atol=1e-5)


def test_sizes_other_than_the_models_own() -> None:
    model = small("fec")
    proto = to_onnx(model, size="64x32")
    x = image(2, 3, 64, 32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(proto, x)["logits"], wanted, atol=1e-5 * wanted.std())
    with pytest.raises(ShapeError, match=r"images of 36x60 do not fit .* nearest sizes that work: "):
        to_onnx(model, size=(36, 60))
    with pytest.raises(ShapeError, match=r"size 'big': wanted a positive number up to 65536, or HEIGHTxWIDTH"):
        to_onnx(model, size="big")


def test_a_backbone_gives_its_feature_maps() -> None:
    model = small("fec", num_classes=None)
    proto = to_onnx(model)
    assert promise_of(proto).classes is None
    x = image(3, 3, 32, 48)
    out = run(proto, x)
    with torch.no_grad():
        for number, wanted in enumerate(model(torch.from_numpy(x))):
            np.testing.assert_allclose(out[f"features/{number + 1}"], wanted, atol=1e-5)


class Mixed(ClusterNet):
    """A user's own: weighted and unweighted aggregation in one model."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PointEmbed(8)

        def block(weighted: bool) -> ClusterBlock:
            mixer = ContextClustering(8, 2, 4, (2, 2), weighted=weighted)
            return ClusterBlock(MapGroupNorm(8), mixer, MapGroupNorm(8), PointMlp(8, 16))

        stages = [torch.nn.Sequential(block(True), block(False)), ClusterPool(8, 12), torch.nn.Identity()]
        self.network = torch.nn.ModuleList(stages)
        self.finish([MapGroupNorm(8), MapGroupNorm(12)], 12, 4)


def test_a_users_own_model_with_both_kinds_of_aggregation() -> None:
    torch.manual_seed(3)
    model = Mixed().eval()
    proto = to_onnx(model, size=32)
    assert [each.alias for each in promise_of(proto).maps] == ["stage1", "pool1"]
    assert len({len(n.input) for n in proto.graph.node if n.op_type == "ClusterScatter"}) == 1
    x = image(3, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, x)["logits"], model(torch.from_numpy(x)), atol=1e-5)


class Unexportable(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Identity()
        self.special = Special()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.special(self.inner(x)).mean((2, 3))


class Special(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_without_translation_is_named_with_its_module() -> None:
    with pytest.raises(GraphError) as error:
        to_onnx(Unexportable(), size=8)
    assert str(error.value) == (
        "no ONNX operator for aten.special_bessel_j0.default in module 'special'; "
        "write it with operators that have one, or move it out of the model"
    )


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean((2, 3)), x


def test_models_that_give_no_logits_or_more_are_refused() -> None:
    wanted = r"wanted a model that gives logits \[batch, classes\] and nothing else, this one gives "
    with pytest.raises(GraphError, match=wanted + r"\[batch, 3\], \[batch, 3, 8, 8\]"):
        to_onnx(Two(), size=8)
    with pytest.raises(GraphError, match=wanted + r"\[batch, 3, 8, 8\]"):
        to_onnx(torch.nn.ReLU(), size=8)


def test_a_model_in_training_is_exported_for_evaluation_and_goes_on_training() -> None:
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.9), *head)
    model[1].eval()
    x = image(2, 3, 8, 8)
    proto = to_onnx(model, size=8)
    assert [part.training for part in model] == [True, False, True, True, True, True]
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, x)["logits"], model.eval()(torch.from_numpy(x)), atol=1e-5)


class OwnAssign(torch.nn.Module):
    """A user's own clustering on the bare operators, with a layout that may be wrong or absent."""

    def __init__(self, layout: list[int] | None) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        points, centers = x.flatten(2), torch.nn.functional.avg_pool2d(x, 4).flatten(2)
        index, weight = cluster_assign(points, centers, layout=self.layout)
        return cluster_gather(centers, index, weight).reshape(x.shape).mean((2, 3))


def test_layouts_are_checked_and_may_be_absent() -> None:
    assert promise_of(to_onnx(OwnAssign(None), size=8)).maps == ()
    (each,) = promise_of(to_onnx(OwnAssign([1, 1, 1, 8, 8, 2, 2]), size=8)).maps
    assert (each.heads, each.size, each.grid) == (1, (8, 8), (2, 2))
    for layout in ([1, 1], [1, 1, 1, 5, 5, 2, 2], [1, 1, 1, 8, 8, 3, 3], [0, 1, 1, 8, 8, 2, 2]):
        with pytest.raises(GraphError, match=r"does not fit 64 points and 4 centres; wanted \[heads, fold rows"):
            to_onnx(OwnAssign(layout), size=8)


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = ContextClustering(3, 1, 4, (2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixer(self.mixer(x) + x).mean((2, 3))


def test_a_layer_that_clusters_twice_shows_both_maps() -> None:
    torch.manual_seed(0)
    model = Twice().eval()
    proto = to_onnx(model, size=8, maps="all")
    x = image(2, 3, 8, 8)
    with torch.no_grad(), watch_clusters(model) as seen:
        model(torch.from_numpy(x))
    maps = promise_of(proto).maps
    assert [each.layer for each in maps] == list(seen) == ["mixer", "mixer#2"]
    out = run(proto, x)
    for each in maps:
        np.testing.assert_array_equal(out[each.output], as_map(seen[each.layer].index.numpy(), each))


def test_impossible_sizes_and_programs() -> None:
    with pytest.raises(ShapeError, match="wanted a positive number up to 65536"):
        to_onnx(OwnAssign(None), size=10**9)
    with pytest.raises(ShapeError, match="size 0: wanted a positive number"):
        to_onnx(OwnAssign(None), size=0)
    with pytest.raises(GraphError, match="attention was asked for, which ICASC models alone give"):
        to_onnx(OwnAssign(None), size=8, attention=[1])
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(4, 3),))
    with pytest.raises(GraphError, match=r"wanted a program of one image .* its inputs are \[\[4, 3\]\]"):
        to_onnx(program)


def test_what_does_not_fit_is_refused() -> None:
    model = small("coc")
    with pytest.raises(GraphError, match="evidence for 6 classes was asked for; this model has 5"):
        to_onnx(model, evidence=6)
    with pytest.raises(GraphError, match="3 class names were given, the model has 5 classes"):
        to_onnx(model, names=["a", "b", "c"])
    with pytest.raises(GraphError, match="evidence needs logits that are one linear layer of a mean over positions"):
        to_onnx(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2)), size=8, evidence=1)


def test_nothing_of_this_machine_is_in_the_file() -> None:
    text = exported("fec", True).SerializeToString()
    assert b".py" not in text
    assert b"/" + __file__.split("/")[1].encode() + b"/" not in text


def test_class_names_and_arch_travel_along() -> None:
    names = ["a", "ß", "c", "d", "e"]
    promise = promise_of(to_onnx(small("fec"), names=names))
    assert promise.names == tuple(names)
    assert (promise.family, promise.classes, promise.size) == ("fec", 5, (32, 48))
