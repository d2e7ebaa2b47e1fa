"""Programs of users' own models: read back as saved, and every file that is not one refused with what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cluinfer.errors import CheckpointError
from cluinfer.export import to_onnx
from cluinfer.export.nn import ClusterBlock, ClusterPool, ContextClustering, MapGroupNorm, PointEmbed, PointMlp
from cluinfer.export.program import read_program

DYNAMIC = ({0: torch.export.Dim.DYNAMIC},)


class Own(nn.Module):
    """A user's model: our blocks, and what such models have around them."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = PointEmbed(8)
        self.block = ClusterBlock(
            MapGroupNorm(8), ContextClustering(8, 2, 4, (2, 2)), MapGroupNorm(8), PointMlp(8, 16), scale=8
        )
        self.pool = ClusterPool(8, 12)
        self.norm = nn.BatchNorm2d(12)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(12, 5)
        self.register_buffer("scale", torch.linspace(0.5, 2, 5), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.norm(self.pool(self.block(self.embed(image)))))
        with torch.no_grad():
            largest = x.amax((2, 3)).clamp_min(1)
        return self.head(self.drop(x.mean((2, 3)) / largest)) * self.scale + torch.tensor([1.0])


def save(model: nn.Module, path: Path, *inputs: Tensor, shapes: Any = DYNAMIC, **options: Any) -> Path:
    inputs = inputs or (torch.rand(2, 3, 32, 32),)
    torch.export.save(torch.export.export(model, inputs, dynamic_shapes=shapes, **options), path)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = Own().eval()
    return model, save(model, tmp_path_factory.mktemp("own") / "own.pt2")


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_program(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("batch", [1, 5])
def test_the_same_outputs(own: tuple[nn.Module, Path], batch: int) -> None:
    model, path = own
    image = torch.rand(batch, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(read_program(path).module()(image), model(image))


def test_the_same_outputs_through_onnx(own: tuple[nn.Module, Path]) -> None:
    model, path = own
    proto = to_onnx(read_program(path), maps="all")
    image = torch.rand(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    assert {output.name for output in session.get_outputs()} == {
        "logits",
        "clusters/block.token_mixer",
        "clusters/pool",
    }
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(image), atol=1e-5)


class Odd(nn.Module):
    """What else programs hold: strided, shared and empty weights, half precision, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, 8)
        self.conv.weight = nn.Parameter(self.conv.weight.detach().to(memory_format=torch.channels_last))
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        self.k.weight = self.q.weight
        self.small = nn.Parameter(torch.rand(8).half())
        self.empty = nn.Parameter(torch.zeros(0, 8))
        whole = torch.rand(4, 8)
        self.register_buffer("first", whole[0])
        self.register_buffer("turned", whole[1:, :4].t())

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.conv(x).flatten(2).transpose(1, 2) * self.small.float() + self.get_buffer("first")
        q, k = self.q(x), self.k(x)
        x = nn.functional.scaled_dot_product_attention(q, k, x)
        x = torch.cat([x, self.empty.expand(x.shape[0], 0, 8)], 1)
        best = torch.einsum("bnc,bmc->bnm", q, k).argmax(-1)
        return {"logits": x.mean(1), "count": 3, "more": (best, x[..., :4] @ self.get_buffer("turned"))}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_odd_programs(tmp_path: Path, strict: bool, decomposed: bool) -> None:
    model = Odd().eval()
    program = torch.export.export(model, (torch.rand(2, 3, 32, 32),), dynamic_shapes=DYNAMIC, strict=strict)
    program = program.run_decompositions() if decomposed else program
    torch.export.save(program, tmp_path / "odd.pt2")
    image = torch.rand(3, 3, 32, 32)
    read, expected = read_program(tmp_path / "odd.pt2").module()(image), program.module()(image)
    assert torch.equal(read["logits"], expected["logits"])
    assert read["count"] == 3
    assert all(torch.equal(a, b) for a, b in zip(read["more"], expected["more"], strict=True))


class Net(nn.Module):
    """The smallest network, its image and logits bent by a test."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.Dropout()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Any:
        x = self.drop(self.norm(self.conv(self.before(x) if self.before else x))).mean((2, 3))
        return self.after(x) if self.after else x


class Two(nn.Module):
    """Takes two tensors."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x * mask).mean((2, 3))


IMAGE = torch.rand(2, 3, 32, 32)
ADVICE = "torch.export.export(model.eval(), (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"


@pytest.mark.parametrize(
    ("model", "inputs", "shapes", "message"),
    [
        (Net().eval(), (IMAGE,), None, f"takes batches of 2 only; make the batch dynamic, export it with {ADVICE}"),
        (Two(), (IMAGE, IMAGE), DYNAMIC * 2, f"takes 2 inputs (x, mask), wanted one image as model(image); {ADVICE}"),
        (Net(before=lambda x: x[:, None].expand(-1, 3, 32, 32)).eval(), (IMAGE[:, 0],), DYNAMIC, "[?, 32, 32]"),
        (Net(before=lambda x: x[:, :3]).eval(), (torch.rand(2, 4, 32, 32),), DYNAMIC, "float32 [?, 4, 32, 32], wanted"),
        (Net(before=lambda x: x / 255).eval(), (torch.ones(2, 3, 32, 32).byte(),), DYNAMIC, "wanted a float32 image"),
        (Net().eval(), (IMAGE,), ({2: torch.export.Dim.DYNAMIC, 0: torch.export.Dim.DYNAMIC},), "images of any size"),
        (Net(after=lambda x: x.mean(0)).eval(), (IMAGE,), DYNAMIC, "first gives a tensor of float32 [4], wanted float"),
        (Net(after=lambda x: x.argmax(1)).eval(), (IMAGE,), DYNAMIC, "wanted float32 logits [batch, classes]"),
        (Net(after=lambda x: x.half()).eval(), (IMAGE,), DYNAMIC, "first gives a tensor of another type [?, 4]"),
        (Net(after=lambda x: x.t()).eval(), (IMAGE,), DYNAMIC, "first gives a tensor of float32 [4, ?]"),
        (Net(after=lambda x: (3, x)).eval(), (IMAGE,), DYNAMIC, "first gives what is no tensor, wanted logits"),
        (Net(), (IMAGE,), DYNAMIC, "call model.eval() before exporting"),
        (nn.Sequential(Net().eval(), nn.BatchNorm1d(4)), (IMAGE,), DYNAMIC, "call model.eval() before exporting"),
        (nn.Sequential(Net().eval(), nn.Dropout()), (IMAGE,), DYNAMIC, "(dropout); call model.eval() before exporting"),
        (Net(after=lambda x: x + torch.rand_like(x)).eval(), (IMAGE,), DYNAMIC, "calls 'torch.ops.aten.rand_like."),
        (Net(after=lambda x: x.nonzero()[:, :1] + x.sum()).eval(), (IMAGE,), DYNAMIC, "what is in the picture"),
    ],
    ids=[
        "static batch",
        "two inputs",
        "no image",
        "four channels",
        "bytes",
        "any size",
        "no batch",
        "integers",
        "half",
        "turned",
        "a constant first",
        "training",
        "batch norm in training",
        "dropout in training",
        "chance",
        "shape from content",
    ],
)
def test_models_that_cannot_be_deployed(
    tmp_path: Path, model: nn.Module, inputs: tuple[Tensor, ...], shapes: Any, message: str
) -> None:
    found = refused(save(model, tmp_path / "model.pt2", *inputs, shapes=shapes))
    for part in message.split("; "):
        assert part in found


def test_what_is_not_a_program(tmp_path: Path, own: tuple[nn.Module, Path]) -> None:
    assert "wanted a .pt2 file, found nothing" in refused(tmp_path / "none.pt2")
    assert "wanted a .pt2 file, found a folder" in refused(tmp_path)
    path = tmp_path / "file.pt2"
    path.touch()
    assert "the file is empty" in refused(path)
    path.write_text("hello")
    assert "not a torch.export program (no zip file)" in refused(path)
    path.write_bytes(b"PK" + bytes(100))
    assert "truncated or damaged" in refused(path)
    torch.save(own[0].state_dict(), path)
    assert "a PyTorch checkpoint, not a torch.export program; give it the ending .pt" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("script/code/__torch__.py", "")
        file.writestr("script/data.pkl", b"")
    assert "a TorchScript program, wanted one of torch.export" in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "a zip file, but not a torch.export program" in refused(path)
    with zipfile.ZipFile(path, "w") as file:  # as torch 2.7 laid it out
        file.writestr("version", "8.8")
        file.writestr("serialized_exported_program.json", "{}")
    assert "saved by an older version of torch, with pickles in it; export it again with torch 2.10" in refused(path)


def test_an_old_torch_is_named(own: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.8.1+cpu")
    assert refused(own[1]) == "torch 2.8.1+cpu cannot load programs without pickles; install a later version"


def test_extra_files_are_ignored(tmp_path: Path) -> None:
    program = torch.export.export(Net().eval(), (IMAGE,), dynamic_shapes=DYNAMIC)
    torch.export.save(program, tmp_path / "net.pt2", extra_files={"classes.txt": "cat\ndog"})
    assert read_program(tmp_path / "net.pt2").module()(IMAGE).shape == (2, 4)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, own: tuple[nn.Module, Path], share: float) -> None:
    data = own[1].read_bytes()
    (tmp_path / "short.pt2").write_bytes(data[: int(len(data) * share)])
    assert "truncated or damaged" in refused(tmp_path / "short.pt2")


def test_damaged_bytes_never_escape_as_other_errors(tmp_path: Path, own: tuple[nn.Module, Path]) -> None:
    whole = own[1].read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "broken.pt2"
    messages = []
    for _ in range(60):
        broken = bytearray(whole)
        for position in random.integers(0, len(whole), 4):
            broken[position] ^= int(random.integers(1, 256))
        path.write_bytes(broken)
        try:
            read_program(path)  # the damage may have missed everything that counts
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) >= 30
    assert [message for message in messages if "\n" in message] == []
