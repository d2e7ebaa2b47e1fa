"""All passes together on whole models: the same logits, nothing left to change, and far fewer nodes.

A clustering is not continuous: where two centres are equally near, rounding may move a point, and the logits with it.
The models and images here are small and their seeds fixed, so that the nearest two centres differ by far more than
rounding; `indices` would show a point that moved.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from pass_cases import assert_close, ops, run

from cluinfer.export.models import build, published
from cluinfer.export.models.config import ClusterConfig, config
from cluinfer.export.models.icasc import Icasc, IcascAttention, IcascConfig
from cluinfer.export.passes import ORDER, count_nodes, run_passes
from cluinfer.export.translate import LAYER, LAYOUT, translate

SMALL: dict[str, ClusterConfig] = {
    family: config(
        family.split("_")[0],
        (2, 1, 1, 1),
        (8, 12, 16, 20),
        (2, 2, 2, 2),
        6,
        grid,
        ratios=(2, 2, 2, 2),
        num_classes=5,
        size=(64, 64),
        **more,
    )
    for family, grid, more in (
        ("fec", (4, 4, 2, 1), {}),
        ("fec_padded", (4, 4, 2, 1), {"patch": (3, 1, 1)}),
        ("coc", (2, 2, 2, 2), {"fold": (4, 2, 1, 1)}),
        ("cluenet", (4, 4, 2, 2), {"pool_norm": True}),
    )
}


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Away from ones and zeros, which would hide an affine that was folded wrongly."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.is_floating_point() and value.ndim < 2:
                value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    return module.eval()


def plain(module: torch.nn.Module, size: tuple[int, int], outputs: list[str]) -> ir.Model:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (torch.zeros(2, 3, *size),), dynamic_shapes=({0: batch},), strict=False)
    return translate(program, ["image"], outputs)


@cache
def exported(name: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    if name == "icasc":
        model = Icasc(IcascConfig("basic", (1, 1, 1, 2), (8, 8, 12, 16), 5))
        return ir.to_proto(plain(IcascAttention(randomise(model)), (64, 64), ["logits", "classes", "last", "inner"]))
    wanted = SMALL[name]
    if name == "fec_padded":
        wanted = replace(wanted, size=(32, 32))
    return ir.to_proto(plain(randomise(build(wanted)), wanted.size, ["logits"]))


def indices(model: ir.Model) -> list[str]:
    """Make every assignment an output, so that a point that moved is seen."""
    nodes = [node for node in model.graph if node.op_type == "ClusterAssign"]
    model.graph.outputs.extend(node.outputs[0] for node in nodes)
    return [str(node.outputs[0].name) for node in nodes]


@pytest.mark.parametrize("name", [*SMALL, "icasc"])
def test_optimized_is_the_same_function(name: str) -> None:
    model = ir.from_proto(exported(name))
    indices(model)
    names = [value.name for value in model.graph.outputs]
    size = [dim for dim in model.graph.inputs[0].shape or () if isinstance(dim, int)]
    feeds = {"image": np.random.default_rng(2).standard_normal((3, *size)).astype(np.float32)}
    before, nodes = run(model, feeds), count_nodes(model)
    run_passes(model)
    assert [value.name for value in model.graph.outputs] == names
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for wanted, got in zip(before, run(model, feeds), strict=True):
        assert_close(wanted, got)
    assert count_nodes(model) < nodes
    assert sum(done.changes for done in run_passes(model)) == 0


@pytest.mark.parametrize("name", SMALL)
def test_clusterings_keep_their_layer_and_layout(name: str) -> None:
    model = ir.from_proto(exported(name))

    def notes() -> list[tuple[str, str | None, str | None]]:
        ours = [node for node in model.graph if node.domain == "cluinfer"]
        return [(node.op_type, node.metadata_props.get(LAYER), node.metadata_props.get(LAYOUT)) for node in ours]

    before = notes()
    run_passes(model)
    assert sorted(notes(), key=str) == sorted(before, key=str) and all(layer for _, layer, _ in before)


def test_what_is_left_of_a_fec() -> None:
    model = ir.from_proto(exported("fec"))
    run_passes(model)
    counts, mixers, pools = ops(model), 5, 3
    assert counts["ClusterAssign"] == mixers + pools
    assert counts["Conv"] == 1 + 4 * mixers + 2 * pools  # stem; f|v, proj and two of an MLP; f|v and skip
    assert not counts.keys() & {"Transpose", "CastLike", "Shape", "Expand", "Concat", "InstanceNormalization"}
    assert counts["LayerNormalization"] == 2 * mixers + pools + 1


def test_a_pass_that_is_not_asked_for_does_not_run() -> None:
    model = ir.from_proto(exported("fec"))
    done = run_passes(model, tuple(name for name in ORDER if name != "linear_to_conv"))
    assert "linear_to_conv" not in [each.name for each in done] and ops(model)["MatMul"] >= 10


def test_fec_small_has_at_most_sixty_per_cent_of_its_nodes() -> None:
    model = plain(build(published("fec_small")).eval(), published("fec_small").size, ["logits"])
    before = count_nodes(model)
    run_passes(model)
    assert count_nodes(model) <= 0.6 * before
