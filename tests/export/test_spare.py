"""Our models are translated without a second trace, other programs with one; both give what the program gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cluinfer.export import to_onnx
from cluinfer.export.models import build
from cluinfer.export.models.config import config
from cluinfer.export.spare import spare

DYNAMIC = ({0: torch.export.Dim.DYNAMIC},)
SMALL = {
    "fec": {"fold": (2, 1)},
    "coc": {"fold": (2, 1), "grid": (3, 2)},  # 3 does not divide the map: the pool's windows become constants
    "cluenet": {"fold": (1, 1), "layer_scale": False},
}


def traced(module: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module.eval(), (image,), dynamic_shapes=DYNAMIC, strict=False)


def in_onnx_runtime(program: torch.export.ExportedProgram, image: Tensor) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(to_onnx(program, maps="none").SerializeToString())
    return session.run(["logits"], {"image": image.numpy()})[0]  # type: ignore[no-any-return]


class Spelled(nn.Module):
    """Everything that is spelled differently, the last of it being the output."""

    def forward(self, x: Tensor) -> Tensor:
        x = (1 - x) * torch.tensor([2.0, 3.0, 4.0])[:, None, None]
        return (3 - x.flatten(2).mean(2)).flatten(1)


class TakenApart(nn.Module):
    """What the exporter has no operators for: in place, without gradients, normalised by batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        with torch.no_grad():
            largest = x.amax((2, 3))
        return x.mean((2, 3)).div_(largest.add_(1))


class Empty(nn.Module):
    """A reshape to a size of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(5, 0))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + self.nothing.reshape(0, 3).sum(0)


@pytest.mark.parametrize("family", SMALL)
def test_our_models_are_traced_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(
        family, (1, 1), (8, 12), (2, 1), 4, **{"grid": (2, 2), "ratios": (2, 1), **SMALL[family]}, num_classes=5
    )
    torch.manual_seed(0)
    model, image = build(settings).eval(), torch.rand(3, 3, 32, 48)
    program = traced(model, torch.rand(2, 3, 32, 48))

    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError("traced again")

    with monkeypatch.context() as patch:
        patch.setattr(torch.export.ExportedProgram, "run_decompositions", refuse)
        logits = in_onnx_runtime(program, image)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(image), atol=1e-5)


@pytest.mark.parametrize("module", [Spelled(), TakenApart(), Empty()], ids=lambda module: type(module).__name__)
def test_other_programs_give_the_same(module: nn.Module) -> None:
    program, image = traced(module, torch.rand(2, 3, 8, 8)), torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(in_onnx_runtime(program, image), module(image), atol=1e-6)


def test_other_spellings_compute_the_same() -> None:
    program, image = traced(Spelled(), torch.rand(2, 3, 8, 8)), torch.rand(3, 3, 8, 8)
    found = spare(program)
    assert torch.equal(found.module()(image), program.module()(image))
    left = {str(node.target) for node in found.graph.nodes}
    assert not left & {"aten.detach_.default", "aten.flatten.using_ints", "aten.rsub.Scalar"}
    assert found.run_decompositions({}) is found


def test_what_must_be_taken_apart_is() -> None:
    targets = {
        str(node.target)
        for node in spare(traced(TakenApart(), torch.rand(2, 3, 8, 8))).run_decompositions({}).graph.nodes
    }
    assert "aten.relu.default" in targets
    assert "aten.relu_.default" not in targets


def test_the_program_stays_as_it_was() -> None:
    program = traced(Spelled(), torch.rand(2, 3, 8, 8))
    before = str(program.graph)
    first = to_onnx(program, maps="none").SerializeToString(deterministic=True)
    assert str(program.graph) == before
    assert to_onnx(program, maps="none").SerializeToString(deterministic=True) == first
