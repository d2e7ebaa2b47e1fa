"""From a checkpoint file to a model: recognised by shape alone, refused with the reason where it does not fit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import golden_cases
import pytest
import torch

from cluinfer.errors import ArchError, CheckpointError
from cluinfer.export import load_model
from cluinfer.export.load import AssumptionWarning
from cluinfer.export.models import ARCHS, build
from cluinfer.export.models.config import ClusterConfig, config
from cluinfer.export.models.icasc import IcascConfig
from cluinfer.export.recognise import Recognised, recognise


def shapes_of(settings: ClusterConfig | IcascConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build(settings).state_dict().items()}


def saved(folder: Path, settings: ClusterConfig | IcascConfig) -> Path:
    torch.save(build(settings).state_dict(), folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize("classes", [1, 10, 1000])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_is_recognised_from_its_shapes(arch: str, classes: int) -> None:
    found = recognise(shapes_of(replace(ARCHS[arch], num_classes=classes)))
    assert arch in found.names
    expected = "coc_tiny" if arch.startswith("coc_tiny") else arch
    assert found.arch == expected
    assert found.config == replace(ARCHS[expected], num_classes=classes)


def test_an_ambiguous_one_says_what_it_may_be() -> None:
    found = recognise(shapes_of(ARCHS["coc_tiny_plain"]))
    assert found.names == ("coc_tiny", "coc_tiny2", "coc_tiny_plain")
    assert found.note() == (
        "its shapes fit coc_tiny, coc_tiny2, coc_tiny_plain, which differ in grid and fold; coc_tiny was taken; "
        "set arch, grid or fold to choose"
    )
    assert found.note({"grid": "2"}) is None
    assert recognise(shapes_of(ARCHS["fec_small"])).note() is None


@pytest.mark.parametrize("arch", ["fec_base", "coc_small", "cluenet_tiny"])
def test_backbones_are_recognised(arch: str) -> None:
    settings = ARCHS[arch]
    assert isinstance(settings, ClusterConfig)
    found = recognise(shapes_of(replace(settings, num_classes=None)))
    assert found.config == replace(settings, num_classes=None)
    assert "without a head" in (found.note() or "")


OWN = {
    "fec": config("fec", (1, 2, 1), (16, 24, 40), (2, 2, 4), 16, (4, 4, 2), (1, 1, 1), (4, 4, 4), num_classes=5),
    "coc": config("coc", (1, 1, 1, 3), (32, 64, 196, 320), (4, 4, 8, 8), 24, (2, 2, 2, 2), (8, 4, 2, 1), (2, 3, 4, 1)),
    "cluenet": config(
        "cluenet", (1, 2, 1), (16, 24, 40), (1, 2, 4), 20, (4, 4, 4), (1, 1, 1), (4, 4, 4),
        patch=(3, 1, 1), layer_scale=False, size=(32, 32), num_classes=10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", OWN)
def test_sizes_beyond_the_tables_are_read_off_the_shapes(family: str) -> None:
    own = OWN[family]
    found = recognise(shapes_of(own))
    assert found.names == ()
    if family == "fec":  # widths of 32 and 64 are taken as heads of 32 unless told otherwise
        assert found.config == replace(own, heads=(1, 1, 2), head_dims=(32, 32, 32))
        assert found.note() == (
            "not a published size, so it was assumed: heads=1,1,2, grid=4,4,2, fold=1,1,1; "
            "set what was otherwise in training"
        )
        assert found.note(("grid", "heads")) == (
            "not a published size, so it was assumed: fold=1,1,1; set what was otherwise in training"
        )
    else:
        assert found.config == own
    assert "not a published size" in (found.note() or "")
    assert found.note(("heads", "grid", "fold")) is None


def test_icasc_beyond_the_tables() -> None:
    own = replace(ARCHS["icasc_resnet18"], depths=(1, 2, 1, 1), widths=(8, 16, 24, 32), num_classes=6)
    assert recognise(shapes_of(own)) == Recognised(own, ())


def test_a_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    case = golden_cases.load("cluenet_cifar")
    torch.save({"model": golden_cases.state_dict(case.shapes, case.kind)}, tmp_path / "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(tmp_path / "m.pt")
    assert not model.training
    assert model.arch == "cluenet_cifar"
    with torch.no_grad():
        case.assert_logits(model(torch.from_numpy(case.input)).numpy())


def test_arch_and_overrides_win(tmp_path: Path) -> None:
    path = saved(tmp_path, replace(ARCHS["coc_tiny"], num_classes=4))
    with pytest.warns(
        AssumptionWarning, match="which differ in grid and fold; coc_tiny was taken; set arch, grid or fold"
    ):
        assert load_model(path).config.fold[0] == (8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(path, arch="coc_tiny_plain").config.grid[0] == (4, 4)
        model = load_model(path, grid="10,10,5,5", fold="2,2,1,1", heads=(2, 2, 4, 4), size="256x128")
    assert model.config.grid == ((10, 10), (10, 10), (5, 5), (5, 5))
    assert model.config.fold == ((2, 2), (2, 2), (1, 1), (1, 1))
    assert model.config.head_dims == (48, 48, 48, 48)
    assert model.config.size == (256, 128)
    assert model.network[0][0].token_mixer.grid == (10, 10)
    assert model(torch.zeros(1, 3, 256, 128)).shape == (1, 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gird": 3}, "unknown override 'gird': wanted grid, fold, heads or size"),
        ({"grid": "2,2"}, "grid=2,2: wanted one value or 4, from 1 to 8192"),
        ({"grid": "a"}, "grid=a: wanted one value or 4, from 1 to 8192"),
        ({"fold": 0}, "fold=0: wanted one value or 4, from 1 to 8192"),
        ({"heads": 5}, "heads=5 does not divide the widths [96, 96, 192, 192] of the token mixers"),
        ({"size": "10x"}, "size=10x: wanted one size such as 224 or 320x480, from 1 to 8192"),
    ],
)
def test_overrides_that_do_not_fit(tmp_path: Path, overrides: dict[str, object], message: str) -> None:
    path = saved(tmp_path, ARCHS["fec_small"])
    with pytest.raises(ArchError) as error:
        load_model(path, **overrides)
    assert str(error.value) == message


def refused(path: Path, arch: str | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(path, arch)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


def test_missing_surplus_and_wrong_parameters(tmp_path: Path) -> None:
    path = saved(tmp_path, ARCHS["fec_small"])
    state = torch.load(path, weights_only=True)
    torch.save({**state, "extra": torch.zeros(1)}, path)
    assert refused(path) == " does not fit fec_small: surplus parameters: extra"
    less = {key: value for key, value in state.items() if "network.2.1.norm1" not in key}
    torch.save({key: value for key, value in state.items() if key != "network.2.1.mlp.fc2.bias"}, path)
    assert refused(path) == " does not fit fec_small: parameters missing: network.2.1.mlp.fc2.bias"
    torch.save(less, path)
    assert "surplus parameters: network.2.1.token_mixer" in refused(path) or "does not fit" in refused(path)
    torch.save({**state, "norm.weight": torch.zeros(3)}, path)
    assert refused(path) == " does not fit fec_small: wrong shapes: norm.weight is [3], wanted [320]"
    torch.save({key: value for key, value in state.items() if not key.startswith("head")}, path)
    assert refused(path) == ": parameter head.weight is missing; is this the whole state dict?"


def test_missing_first_block_and_whole_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path, ARCHS["fec_small"])
    state = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "network.0.0.norm1.weight"}, path)
    assert refused(path) == ": parameter network.0.0.norm1.weight is missing; is this the whole state dict?"
    assert "parameters missing: network.0.0.norm1.weight" in refused(path, "fec_small")
    torch.save({**state, "head.weight": state["head.weight"].int()}, path)
    assert refused(path).endswith("whole numbers where floats are wanted: head.weight is torch.int32")
    torch.save({**state, "head.weight": torch.zeros(0, 320), "head.bias": torch.zeros(0)}, path)
    assert refused(path, "fec_small") == ": its head has no classes"


def test_the_wrong_arch_is_told_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, ARCHS["fec_base"])
    message = refused(path, "fec_small")
    assert message.startswith(
        " does not fit fec_small: wrong shapes: patch_embed.proj.weight is [64, 5, 4, 4], wanted [32"
    )
    assert message.endswith("more; its shapes are those of fec_base")
    with pytest.raises(ArchError, match="unknown arch 'fec_huge': wanted one of coc_tiny, "):
        load_model(path, "fec_huge")


def test_an_unknown_family(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2), "b": torch.zeros(1)}, tmp_path / "m.pt")
    message = refused(tmp_path / "m.pt")
    assert (
        "not a model of a known family (CoC, FEC, CLUENet, ICASC): its parameters begin with layer.weight, b" in message
    )


def test_shapes_that_would_ask_for_terabytes_are_refused_first(tmp_path: Path) -> None:
    """Each tensor is small, but a model of these widths would not be: nothing of that size is allocated."""
    path = saved(tmp_path, ARCHS["fec_small"])
    state = torch.load(path, weights_only=True)
    state["network.0.0.norm1.weight"] = torch.zeros(3_000_000)
    state["network.0.0.token_mixer.f.weight"] = torch.zeros(3_000_000, 1)
    torch.save(state, path)
    assert "wrong shapes" in refused(path)


@pytest.mark.parametrize("shape", [(), (0,), (32,)])
def test_parameters_of_impossible_rank(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path, ARCHS["fec_small"])
    state = torch.load(path, weights_only=True)
    for key in ("patch_embed.proj.weight", "network.0.0.mlp.fc1.weight", "head.weight"):
        torch.save({**state, key: torch.zeros(shape)}, path)
        assert key in refused(path)
