"""The published formulation becomes cluinfer nodes; every spelling of it does; what is not the same stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import golden_cases
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published import build, cluster_layers
from cluinfer.export.passes import Done, run_pass
from cluinfer.export.translate import LAYER, LAYOUT, translate
from cluinfer.ops.functions import functions
from cluinfer.ops.schema import DOMAIN, OPERATORS

NAME = "recognise_clustering"
NAIVE = {"ArgMax", "GatherElements", "GatherND", "OneHot", "ReduceMax", "ScatterElements", "ScatterND", "TopK"}


def exported(module: nn.Module, *inputs: Tensor) -> ir.Model:
    """The plain graph for any batch."""
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    return translate(program, [f"in{i}" for i in range(len(inputs))], ["out"])


def run_model(model: ir.Model, *inputs: Tensor) -> list[np.ndarray[Any, Any]]:
    """The outputs in ONNX Runtime, with the operators' bodies in the file."""
    arity = {node.op_type: len(node.inputs) for node in model.graph if node.domain == DOMAIN}
    proto = ir.to_proto(model)
    proto.functions.extend(functions(arity))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"in{i}": x.numpy() for i, x in enumerate(inputs)})  # type: ignore[no-any-return]


def ours(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.domain == DOMAIN)


def ops(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph if node.domain == ""}


# --- published models

SMALL: dict[str, dict[str, Any]] = {
    "fec_small": {"blocks": (1, 1, 1, 1), "fold": (1, 1, 2, 1)},
    "coc_tiny": {"blocks": (1, 1, 1, 1), "fold": (4, (2, 4), 2, 1)},
    "cluenet_micro": {"blocks": (2, 1, 1, 1), "grid": (4, (2, 4), 2, 2)},
}


@pytest.fixture(scope="module", params=SMALL)
def published(request: pytest.FixtureRequest) -> tuple[nn.Module, ir.Model, Done]:
    module = build(request.param, 10, **SMALL[request.param]).eval()
    golden_cases.fill(module, {"fec": "fec", "coc": "coc", "clu": "clue"}[request.param[:3]])
    model = exported(module, torch.zeros(2, 3, 64, 128))
    return module, model, run_pass(model, NAME)


def _operations(module: nn.Module) -> Counter[str]:
    """The operators that a published model's layers amount to."""
    found: Counter[str] = Counter()
    for layer in cluster_layers(module).values():
        pool = type(layer).__name__ == "ClusterPool"
        clue = hasattr(layer, "assigns")
        found["ClusterAssign"] += not clue or layer.assigns
        found["ClusterScatter"] += not clue
        found["ClusterGather"] += not pool
    return found


def test_published_models_become_cluinfer_nodes(published: tuple[nn.Module, ir.Model, Done]) -> None:
    module, model, done = published
    assert ours(model) == _operations(module)
    assert done.changes == sum(ours(model).values())
    assert done.left == ()
    assert not ops(model) & NAIVE
    for node in model.graph:
        if node.domain == DOMAIN:
            assert node.attributes.keys() == {a.name for a in OPERATORS[node.op_type].attributes}
    assert run_pass(model, NAME).changes == 0


def test_published_models_give_the_same_results(published: tuple[nn.Module, ir.Model, Done]) -> None:
    module, model, _ = published
    layers = {name: layer for name, layer in cluster_layers(module).items() if getattr(layer, "assigns", True)}
    for layer in layers.values():
        layer.keep_index = True
    assigns = {n.metadata_props[LAYER]: n for n in model.graph if n.op_type == "ClusterAssign"}
    assert assigns.keys() == layers.keys()
    kept = list(model.graph.outputs)
    model.graph.outputs.extend(assigns[name].outputs[0] for name in layers)
    for batch in (1, 3):
        image = torch.from_numpy(golden_cases.weights().image(batch, (batch, 3, 64, 128)))
        with torch.no_grad():
            wanted = module(image).numpy()
        logits, *indices = run_model(model, image)
        for (name, layer), index in zip(layers.items(), indices, strict=True):
            assert layer.last_index is not None
            np.testing.assert_array_equal(index, layer.last_index, err_msg=name)
        assert np.abs(logits - wanted).max() <= 1e-5 * wanted.std()
    del model.graph.outputs[len(kept) :]


def test_published_models_keep_their_layout(published: tuple[nn.Module, ir.Model, Done]) -> None:
    """The map is 16x32 after the patches; heads, fold, region and grid are read off the reshapes."""
    module, model, _ = published
    for node in model.graph:
        if node.op_type != "ClusterAssign":
            continue
        name = node.metadata_props[LAYER]
        layer: Any = cluster_layers(module)[name]
        stage = int(name.split(".")[1]) // 2
        fold = getattr(layer, "fold", (1, 1))
        region = [(16 >> stage) // fold[0], (32 >> stage) // fold[1]]
        grid = getattr(layer, "grid", None) or (region[0] // 2, region[1] // 2)
        wanted = [getattr(layer, "heads", 1), *fold, *region, *grid]
        assert node.metadata_props[LAYOUT] == ",".join(map(str, wanted)), name


# --- one layer in many spellings

BATCH, HEADS, D, ROWS, COLUMNS, M = 2, 3, 8, 4, 6, 5
N = ROWS * COLUMNS

Form = Callable[..., Tensor]


class Layer(nn.Module):
    """points, centres, values and base [B, H, ..., D] in one row; the form says how they are clustered."""

    def __init__(self, form: Form, alpha: float = 1.7, beta: float = -0.3) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.tensor([alpha])), nn.Parameter(torch.tensor([beta]))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self, *x.reshape(-1, *x.shape[2:]).split((N, M, N, M), dim=1))


def tensor(batch: int = BATCH) -> Tensor:
    return torch.randn(batch, HEADS, 2 * (N + M), D, generator=torch.Generator().manual_seed(batch))


def rewritten(form: Form) -> tuple[ir.Model, Done]:
    model = exported(Layer(form), tensor())
    return model, run_pass(model, NAME)


def similarity(self: Layer, points: Tensor, centers: Tensor) -> Tensor:
    cosine = F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2)
    return torch.sigmoid(self.beta + self.alpha * cosine)


def scattered(s: Tensor) -> tuple[Tensor, Tensor]:
    index = s.argmax(dim=1)
    return index, torch.zeros_like(s).scatter_(1, index.unsqueeze(1), 1.0)


def mixed(s: Tensor, mask: Tensor, values: Tensor, base: Tensor) -> Tensor:
    """FEC: the mean without weights, the way back with them."""
    mean = (mask @ values + base) / (mask.sum(-1, keepdim=True) + 1)
    return (mask * s).transpose(1, 2) @ mean


def fec(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    return mixed(s, scattered(s)[1], values, base)


def coc(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    share = s * scattered(s)[1]
    mean = ((values[:, None] * share[..., None]).sum(2) + base) / (share.sum(-1, keepdim=True) + 1.0)
    return (mean[:, :, None] * share[..., None]).sum(1)


def largest(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    weight, index = s.max(dim=1, keepdim=True)
    share = torch.zeros_like(s).scatter(1, index, weight)
    return (base[:, :, None] * share[..., None]).sum(1)


def top1(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    weight, index = similarity(self, points, centers).topk(1, dim=1)
    return base.gather(1, index.transpose(1, 2).expand(-1, -1, D)) * weight.transpose(1, 2)


def one_hot(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    return mixed(s, F.one_hot(s.argmax(1), M).permute(0, 2, 1).float(), values, base)


def one_hot_counts(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    mask = F.one_hot(s.argmax(1), M)
    mean = (mask.transpose(1, 2).float() @ values + base) / (1 + mask.sum(1)).unsqueeze(-1)
    return mask.float() @ mean


def counted(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    mask = s.argmax(1, keepdim=True) == torch.arange(M)[:, None]
    share = torch.where(mask, s, 0.0)
    mean = (share @ values + base) / (1 + share.sum(2, keepdim=True))
    return mean.transpose(1, 2) @ mask.float()


def einsum(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    cosine = torch.einsum("gmd,gnd->gnm", F.normalize(centers, dim=-1), F.normalize(points, dim=-1))
    s = torch.sigmoid(cosine * self.alpha + self.beta)
    mask = F.one_hot(s.argmax(-1), M).float()
    mean = (torch.einsum("gnm,gnc->gmc", mask, values) + base) / (mask.sum(1)[..., None] + 1)
    return torch.einsum("gnm,gmc->gnc", mask * s, mean)


def plain(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = F.normalize(points, dim=-1) @ F.normalize(centers, dim=-1).transpose(1, 2)
    index = s.argmax(-1)
    slots = index.unsqueeze(-1).expand(-1, -1, D)
    total = torch.zeros_like(base).scatter_add(1, slots, values)
    count = torch.zeros_like(base[..., 0]).scatter_add(1, index, torch.ones_like(values[..., 0]))
    return (total + base) / (count + 1)[..., None]


def rooted(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    def unit(x: Tensor) -> Tensor:
        return x / (x * x).sum(-1, keepdim=True).sqrt().clamp(min=1e-12)

    s = torch.sigmoid(unit(centers) @ unit(points).mT * 2 - 0.5)
    return mixed(s, scattered(s)[1], values, base)


def clamped(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    def unit(x: Tensor) -> Tensor:
        return x / x.pow(2).sum(-1).clamp(min=1e-24).sqrt()[..., None]

    s = unit(centers) @ unit(points).mT / 0.07
    return mixed(s, scattered(s)[1], values, base)


def channel_first(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    points, centers, values, base = (x.transpose(1, 2).contiguous() for x in (points, centers, values, base))
    s = F.normalize(centers, dim=1).transpose(1, 2) @ F.normalize(points, dim=1)
    weight, index = torch.sigmoid(s * self.alpha + self.beta).max(1)
    slots = index[:, None].expand(-1, D, -1)
    total = base.scatter_add(2, slots, values * weight[:, None])
    mass = torch.ones_like(base[:, 0]).scatter_add(1, index, weight)
    return (total / mass[:, None]).gather(2, slots) * weight[:, None]


def offsets(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    weight, index = similarity(self, points, centers).max(1)
    slots = (index + torch.arange(index.shape[0])[:, None] * M).reshape(-1)
    total = torch.zeros_like(base).reshape(-1, D).index_add(0, slots, values.reshape(-1, D)).reshape(base.shape) + base
    count = torch.zeros(index.shape[0] * M).index_add(0, slots, torch.ones_like(weight).reshape(-1))
    mean = total / (count.reshape(-1, M, 1) + 1)
    return mean.reshape(-1, D)[slots].reshape(values.shape) * weight[..., None]


def put(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    weight, index = similarity(self, points, centers).max(1)
    slots = (torch.arange(index.shape[0])[:, None] * M + index).reshape(-1)
    rows = (values * weight[..., None]).reshape(-1, D)
    total = base.reshape(-1, D).index_put((slots,), rows, accumulate=True)
    mass = torch.ones(index.shape[0] * M).index_put((slots,), weight.reshape(-1), accumulate=True)
    return (total / mass[:, None]).reshape(base.shape)


def four_dimensional(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    points, centers, values, base = (x.reshape(-1, HEADS, *x.shape[1:]) for x in (points, centers, values, base))
    s = torch.sigmoid(F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(-2, -1))
    mask = torch.zeros_like(s).scatter_(2, s.argmax(2, keepdim=True), 1.0)
    mean = (mask @ values + base) / (mask.sum(-1, keepdim=True) + 1)
    return ((mask * s).transpose(-2, -1) @ mean).transpose(1, 2).flatten(2)


def two_values(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    """Blocks that share a masked similarity, as CLUENet's do."""
    s = similarity(self, points, centers)
    share = s * scattered(s)[1]
    return share.transpose(1, 2) @ base + (torch.tanh(centers).unsqueeze(2) * share.unsqueeze(3)).sum(1)


SCATTER_GATHER = {"ClusterAssign": 1, "ClusterScatter": 1, "ClusterGather": 1}
FORMS: dict[Form, dict[str, int]] = {
    fec: SCATTER_GATHER,
    coc: SCATTER_GATHER,
    largest: {"ClusterAssign": 1, "ClusterGather": 1},
    top1: {"ClusterAssign": 1, "ClusterGather": 1},
    one_hot: SCATTER_GATHER,
    one_hot_counts: SCATTER_GATHER,
    counted: SCATTER_GATHER,
    einsum: SCATTER_GATHER,
    plain: {"ClusterAssign": 1, "ClusterScatter": 1},
    rooted: SCATTER_GATHER,
    clamped: SCATTER_GATHER,
    channel_first: SCATTER_GATHER,
    offsets: SCATTER_GATHER,
    put: {"ClusterAssign": 1, "ClusterScatter": 1},
    four_dimensional: SCATTER_GATHER,
    two_values: {"ClusterAssign": 1, "ClusterGather": 2},
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_spelling_is_recognised(form: Form) -> None:
    model, done = rewritten(form)
    assert ours(model) == FORMS[form], done.left
    assert not ops(model) & (NAIVE | {"MatMul", "Einsum", "Equal", "ReduceSum"})
    assert all("without a cluster map" in line for line in done.left)
    for batch in (1, 4):
        x = tensor(batch)
        with torch.no_grad():
            wanted = Layer(form)(x).numpy()
        (found,) = run_model(model, x)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * wanted.std(), rtol=1e-5)


def test_the_mean_is_made_once_for_all_its_readers() -> None:
    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        mask = scattered(similarity(self, points, centers))[1]
        mean = (mask @ values + base) / (mask.sum(-1, keepdim=True) + 1)
        return torch.cat([mean, mask.transpose(1, 2) @ mean, mean.tanh()], dim=1)

    model, _ = rewritten(form)
    assert ours(model) == {"ClusterAssign": 1, "ClusterScatter": 1, "ClusterGather": 1}
    x = tensor()
    with torch.no_grad():
        wanted = Layer(form)(x).numpy()
    np.testing.assert_allclose(run_model(model, x)[0], wanted, atol=1e-4)


def test_an_unknown_average_reads_the_index_of_cluster_assign() -> None:
    """A mean without a base is not ClusterScatter; what reads only the index gains all the same."""

    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        index = similarity(self, points, centers).argmax(1)
        slots = index[..., None].expand(-1, -1, D)
        count = torch.zeros_like(base).scatter_add(1, slots, torch.ones_like(values))
        return torch.zeros_like(base).scatter_add(1, slots, values) / count.clamp(min=1)

    model, _ = rewritten(form)
    assert ours(model) == {"ClusterAssign": 1}
    x = tensor()
    with torch.no_grad():
        wanted = Layer(form)(x).numpy()
    np.testing.assert_allclose(run_model(model, x)[0], wanted, atol=1e-5)


# --- what is not the same


def another_eps(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = F.normalize(centers, dim=-1, eps=1e-6) @ F.normalize(points, dim=-1).transpose(1, 2)
    return mixed(s, scattered(s)[1], values, base)


def no_eps(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (centers, points)]
    s = unit[0] @ unit[1].transpose(1, 2)
    return mixed(s, scattered(s)[1], values, base)


def plus_two(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    mask = scattered(s)[1]
    return mask.transpose(1, 2) @ ((mask @ values + base) / (mask.sum(-1, keepdim=True) + 2))


def no_base(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    mask = scattered(similarity(self, points, centers))[1]
    return (mask @ values) / (mask.sum(-1, keepdim=True) + 1)


def weighed_once(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    mask = scattered(s)[1]
    return ((mask * s) @ values + base) / (mask.sum(-1, keepdim=True) + 1)


def soft(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    share = (F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2)).softmax(dim=1)
    return share.transpose(1, 2) @ ((share @ values + base) / (share.sum(-1, keepdim=True) + 1))


def tied(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    return mixed(s, (s == s.amax(1, keepdim=True)).float(), values, base)


def top2(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    return mixed(s, torch.zeros_like(s).scatter(1, s.topk(2, dim=1)[1], 1.0), values, base)


def over_points(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    mask = torch.zeros_like(s).scatter(2, s.argmax(2, keepdim=True), 1.0)
    return mixed(s, mask, values, base)


def seen(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = similarity(self, points, centers)
    return torch.cat([mixed(s, scattered(s)[1], values, base), s.transpose(1, 2)], dim=-1)


def another_similarity(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    """Assigned by the cosine, handed back by its sigmoid: the weight is not the maximum that was taken."""
    s = F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2)
    return mixed(torch.sigmoid(s * self.alpha), scattered(s)[1], values, base)


def scale_of_each_centre(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
    s = F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2) * torch.arange(1.0, M + 1)[:, None]
    return mixed(s, scattered(s)[1], values, base)


LEFT: dict[Form, str] = {
    another_eps: "norms are bounded at 1e-06, not at 1e-12",
    no_eps: "without its lower bound",
    plus_two: "divides by its mass plus 2, not plus 1",
    no_base: "adds 1 to its mass but no base",
    weighed_once: "weigh the points differently",
    soft: "soft assignment",
    tied: "compares the similarity with its maximum",
    top2: "more than one centre",
    over_points: "summed over the axis of the maximum",
    seen: "similarity is also needed by",
    another_similarity: "is also needed by Mul",
    scale_of_each_centre: "not one number",
}


@pytest.mark.parametrize("form", LEFT, ids=lambda form: form.__name__)
def test_what_is_not_the_same_is_left_with_a_reason(form: Form) -> None:
    model = exported(nn.Sequential(Layer(form)), tensor())
    before = [node.op_type for node in model.graph]
    done = run_pass(model, NAME)
    assert done.changes == 0
    assert [node.op_type for node in model.graph] == before
    assert any(line.startswith("0: left as it is:") and LEFT[form] in line for line in done.left), done.left


def test_a_mask_of_another_tensor_is_not_the_clusterings() -> None:
    """The index is taken from one similarity, the mask from values that are none: both stay."""

    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        s = similarity(self, points, centers)
        other = base @ values.transpose(1, 2)
        return mixed(s, scattered(other)[1], values, base)

    done = rewritten(form)[1]
    assert done.changes == 0
    assert done.left == ()


def test_attention_is_not_an_assignment() -> None:
    """A softmax over the points, as CLUENet's aggregation: neither changed nor remarked on."""

    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        return (F.normalize(centers, dim=-1) @ F.normalize(points, dim=-1).transpose(1, 2)).softmax(-1) @ values

    assert rewritten(form)[1].left == ()


def test_norms_of_another_axis_are_not_cosines() -> None:
    """Eight vectors of eight numbers, divided by the wrong ones of two equally many norms."""

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            unit = x / x.norm(dim=-1)[:, :, None].clamp(min=1e-12)
            s = unit @ unit.transpose(-1, -2)
            return torch.zeros_like(s).scatter(2, s.argmax(2, keepdim=True), 1.0).transpose(-1, -2) @ x

    model = exported(Wrong(), torch.randn(BATCH, HEADS, 8, 8))
    done = run_pass(model, NAME)
    assert (done.changes, done.left) == (0, ())


def test_whole_numbers_are_not_averaged_by_the_operators() -> None:
    """Labels of centres and integer means: the operators hold floats only, so these read the index."""

    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        index = similarity(self, points, centers).argmax(1)
        labels = (base * 100).long()
        return labels.gather(1, index[..., None].expand(-1, -1, D)) // 3

    model, _ = rewritten(form)
    assert ours(model) == {"ClusterAssign": 1}
    x = tensor()
    np.testing.assert_array_equal(run_model(model, x)[0], Layer(form)(x))


def test_outputs_keep_their_names_and_types() -> None:
    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        return similarity(self, points, centers).argmax(1)

    model, done = rewritten(form)
    assert done.changes == 1
    (out,) = model.graph.outputs
    assert (out.name, out.dtype) == ("out", ir.DataType.INT64)
    x = tensor(3)
    np.testing.assert_array_equal(run_model(model, x)[0], Layer(form)(x))


def test_a_broadcast_by_the_other_operand_is_seen() -> None:
    """The mask is chosen against zeros of a higher rank, so that the result has one dimension more."""

    def form(self: Layer, points: Tensor, centers: Tensor, values: Tensor, base: Tensor) -> Tensor:
        s = similarity(self, points, centers)
        share = torch.where(scattered(s)[1] > 0.5, s, torch.zeros(2, 1, 1, 1))
        return (share @ values + base) / (share.sum(-1, keepdim=True) + 1)

    assert rewritten(form)[1].changes == 0
