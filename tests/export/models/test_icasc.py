"""ICASC: the published result, the adjoint against autograd, export, recognition, and training."""

import dataclasses

import golden_cases
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cluinfer.errors import ArchError, ShapeError
from cluinfer.export.models.icasc import (
    ARCHS,
    AttentionMaps,
    Block,
    Icasc,
    IcascAttention,
    IcascConfig,
    icasc_loss,
    recognise,
)
from cluinfer.export.nn.attention import IcascLoss, class_attention, separability

PARAMETERS = {  # with 1000 classes, as published for these ResNets
    "icasc_resnet18": 11_689_512,
    "icasc_resnet34": 21_797_672,
    "icasc_resnet50": 25_557_032,
    "icasc_resnet101": 44_549_160,
}


def small(block: Block = "basic", **changes: object) -> IcascConfig:
    config = IcascConfig(block, (1, 1, 2, 2), (8, 8, 12, 16), num_classes=5, size=(64, 64))
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def random_model(config: IcascConfig) -> Icasc:
    """A model in eval mode whose BatchNorms are no identities."""
    torch.manual_seed(3)
    model = Icasc(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            module.weight.data[0] *= -1
    return model


def shapes_of(config: IcascConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in Icasc(config).state_dict().items()}


def by_autograd(model: Icasc, image: Tensor, classes: Tensor) -> AttentionMaps:
    inner = model.features(image)
    last = model.layer4(inner)
    logits = model.classify(last)
    in_maps, last_maps = class_attention(logits, [inner, last], classes)
    return AttentionMaps(logits, classes, last_maps, in_maps)


@pytest.mark.parametrize("name", golden_cases.cases("icasc"))
def test_golden_case(name: str) -> None:
    case = golden_cases.load(name)
    config = recognise(case.shapes)
    assert config is not None
    model = Icasc(config).eval()
    model.load_state_dict(golden_cases.state_dict(case.shapes, case.kind), strict=True)
    with torch.no_grad():
        found = model.attention(torch.from_numpy(case.input))
    case.assert_logits(found.logits.numpy())
    assert np.array_equal(found.classes.numpy(), case.raw["classes"])
    for key, result in (("attention/last", found.last), ("attention/inner", found.inner)):
        golden = case.raw[key]
        assert result.shape == golden.shape
        assert np.abs(result.numpy() - golden).max() <= golden_cases.LOGITS_TOLERANCE * golden.std(), key


@pytest.mark.parametrize("name", ARCHS)
def test_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Icasc(ARCHS[name]).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("height,width", [(64, 64), (71, 97), (33, 130), (1, 5)])
def test_the_adjoint_is_the_gradient(block: Block, height: int, width: int) -> None:
    model = random_model(small(block)).double()
    image = torch.randn(3, 3, height, width, dtype=torch.float64)
    classes = torch.tensor([[0, 4, 2], [1, 1, 3], [4, 0, 2]])
    found, wanted = model.attention(image, classes), by_autograd(model, image, classes)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.inner.count_nonzero() > 0
    torch.testing.assert_close(found.logits, model(image))


@pytest.mark.parametrize("size,stride", [((7, 8), 2), ((9, 6), 2), ((1, 2), 2), ((5, 4), 1)])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_adjoint_of_one_block(block: Block, size: tuple[int, int], stride: int) -> None:
    config = small(block, depths=(1, 1, 1, 1))
    (residual,) = random_model(config).double().layer4.blocks()
    if stride == 1:
        for module in residual.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    x = torch.randn(2, config.outputs(2), *size, dtype=torch.float64, requires_grad=True)
    trace = residual.activations(x)
    gradients = torch.randn(2, 3, *trace[-1].shape[1:], dtype=torch.float64)
    found = residual.adjoint(gradients, trace)
    for i in range(3):
        (wanted,) = torch.autograd.grad(trace[-1], x, gradients[:, i], retain_graph=True)
        torch.testing.assert_close(found[:, i], wanted)


def test_the_blocks_of_deeper_stages_have_an_identity_shortcut() -> None:
    first, second = random_model(small("bottleneck")).layer4.blocks()
    assert first.downsample is not None and second.downsample is None
    assert [conv.stride for conv, _ in first.layers()] == [(1, 1), (2, 2), (1, 1)]


def test_top_two_and_given_classes() -> None:
    model = random_model(small())
    image = torch.randn(3, 3, 64, 64)
    top = model.attention(image)
    order = model(image).argsort(1, descending=True)
    assert torch.equal(top.classes, order[:, :2])
    assert (top.classes.dtype, top.last.shape, top.inner.shape) == (torch.int64, (3, 2, 2, 2), (3, 2, 4, 4))
    given = model.attention(image, [4, 0, 1, 2, 3])
    assert given.classes.tolist() == [[4, 0, 1, 2, 3]] * 3
    place = torch.stack([(given.classes[i][:, None] == top.classes[i]).int().argmax(0) for i in range(3)])
    for name in ("last", "inner"):
        picked = torch.stack([getattr(given, name)[i, place[i]] for i in range(3)])
        torch.testing.assert_close(picked, getattr(top, name))
    per_image = model.attention(image, top.classes.int())
    torch.testing.assert_close(per_image, top)


@pytest.mark.parametrize("classes", [[5], [-1, 0], []])
def test_classes_that_the_model_does_not_have(classes: list[int]) -> None:
    with pytest.raises(ArchError, match=r"wanted one class or more from 0 to 4, got \["):
        random_model(small()).attention(torch.randn(1, 3, 32, 32), classes)


@pytest.mark.parametrize("classes", [torch.tensor([0, 1]), torch.tensor([[0, 1]]), torch.tensor([[0.0], [1.0]])])
def test_class_tensors_that_do_not_fit(classes: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"int tensor \[2, k\], got torch"):
        random_model(small()).attention(torch.randn(2, 3, 32, 32), classes)


def test_one_class_has_no_top_two() -> None:
    model = random_model(small(num_classes=1))
    image = torch.randn(1, 3, 32, 32)
    with pytest.raises(ArchError, match="2 classes or more, got 1"):
        model.attention(image)
    assert model.attention(image, [0]).classes.tolist() == [[0]]


def test_attention_in_training_mode_is_refused() -> None:
    model = random_model(small()).train()
    before = model.bn1.running_mean.clone()  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="wants eval mode"):
        model.attention(torch.randn(2, 3, 32, 32))
    assert torch.equal(before, model.bn1.running_mean)  # type: ignore[arg-type]


def test_an_image_that_is_none() -> None:
    with pytest.raises(ShapeError, match=r"wanted images \[B, 3, H, W\], got \[1, 4, 32, 32\]"):
        random_model(small())(torch.randn(1, 4, 32, 32))


@pytest.mark.parametrize("block,classes", [("basic", None), ("bottleneck", None), ("basic", [3, 1, 2])])
def test_exported_attention_equals_eager_for_any_batch(block: Block, classes: list[int] | None) -> None:
    model = IcascAttention(random_model(small(block)), classes)
    assert not model.training
    batch = {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (torch.randn(2, 3, 71, 64),), dynamic_shapes=batch)
    exported = program.run_decompositions().module()
    for size in (1, 3):
        image = torch.randn(size, 3, 71, 64)
        found, wanted = exported(image), model(image)
        assert torch.equal(found[1], wanted.classes)
        torch.testing.assert_close(list(found), list(wanted))
        assert found[3].shape == (size, len(classes or "12"), 5, 4)


@pytest.mark.parametrize("name", ARCHS)
def test_recognises_every_arch_at_any_class_count(name: str) -> None:
    config = dataclasses.replace(ARCHS[name], num_classes=37)
    assert recognise(shapes_of(config)) == config


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_recognises_models_beyond_the_tables(block: Block) -> None:
    config = IcascConfig(block, (1, 3, 2, 5), (8, 8, 20, 12), num_classes=1)
    assert recognise(shapes_of(config)) == config


def test_what_strict_loading_will_name_is_still_recognised() -> None:
    shapes = shapes_of(small())
    del shapes["bn1.running_var"]
    shapes["layer4.1.conv2.weight"] = (1,)
    shapes["surplus"] = (3,)
    assert recognise(shapes) == small(size=(224, 224))


@pytest.mark.parametrize(
    "change",
    [
        {"fc.weight": None},
        {"fc.weight": (5, 17)},
        {"fc.weight": ()},
        {"fc.weight": (0, 16)},
        {"conv1.weight": (8, 3, 3, 3)},  # a CIFAR stem
        {"conv1.weight": (9, 3, 7, 7)},
        {"layer2.0.conv1.weight": None},
        {"layer2.0.conv1.weight": (0, 8, 3, 3)},
        {"layer2.0.conv2.weight": (8, 4, 3, 3)},  # grouped
        {"layer3.0.downsample.0.weight": None},
        {"layer1.0.conv3.weight": (32, 8, 1, 1)},
    ],
)
def test_other_networks_are_not_recognised(change: dict[str, tuple[int, ...] | None]) -> None:
    shapes = {key: shape for key, shape in {**shapes_of(small()), **change}.items() if shape is not None}
    assert recognise(shapes) is None


def test_clustering_models_are_not_recognised() -> None:
    for name in golden_cases.cases("fec", "coc", "clue"):
        assert recognise(golden_cases.load(name).shapes) is None
    assert recognise({}) is None


@pytest.mark.parametrize(
    "change,message",
    [
        ({"block": "dense"}, "block 'basic' or 'bottleneck', got 'dense'"),
        ({"depths": (2, 2, 2)}, r"4 depths of at least 1, got \(2, 2, 2\)"),
        ({"widths": (8, 0, 8, 8)}, r"4 widths of at least 1, got \(8, 0, 8, 8\)"),
        ({"num_classes": 0}, r"at least 1, got 0 and \(64, 64\)"),
    ],
)
def test_configs_that_are_no_resnet(change: dict[str, object], message: str) -> None:
    with pytest.raises(ArchError, match=message):
        small(**change)


def test_training_lowers_the_loss_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = Icasc(IcascConfig("basic", (1, 1, 1, 1), (8, 8, 8, 8), num_classes=3)).train()
    image, target = torch.randn(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        terms = icasc_loss(model, image, target)
        optimiser.zero_grad()
        terms.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimiser.step()
        totals.append(terms.total.item())
    assert totals[-1] < totals[0] - 0.3, totals
    torch.testing.assert_close(terms.total, torch.stack(terms[1:5]).sum())


def test_training_on_attention_alone_separates_the_maps() -> None:
    torch.manual_seed(1)
    model = random_model(small(num_classes=3))  # eval mode: the maps are those of `attention`
    image, target = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])

    def result() -> tuple[float, float]:
        terms = icasc_loss(model, image, target)
        maps = model.attention(image, classes_of(terms.logits))
        return terms.separation_last.item(), separability(maps.last[:, 0], maps.last[:, 1]).mean().item()

    def classes_of(logits: Tensor) -> Tensor:
        rival = logits.detach().scatter(1, target[:, None], float("-inf")).argmax(1)
        return torch.stack([target, rival], 1)

    loss_before, separability_before = result()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(15):
        optimiser.zero_grad()
        icasc_loss(model, image, target).separation_last.backward()
        optimiser.step()
    loss_after, separability_after = result()
    assert loss_after < loss_before / 2
    assert separability_after > separability_before


def test_training_with_the_backbone_frozen() -> None:
    model = random_model(small(num_classes=3))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("layer4", "fc")))
    image, target = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    frozen = icasc_loss(model, image, target)
    frozen.total.backward()
    assert model.conv1.weight.grad is None
    assert model.fc.weight.grad is not None and model.fc.weight.grad.abs().sum() > 0
    model.requires_grad_()
    torch.testing.assert_close(icasc_loss(model, image, target).total, frozen.total)


def test_the_loss_can_be_read_where_gradients_are_off_and_with_other_constants() -> None:
    model = random_model(small(num_classes=3))
    image, target = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    with torch.no_grad():
        terms, other = icasc_loss(model, image, target), icasc_loss(model, image, target, IcascLoss(theta=0.5))
    assert other.consistency.item() == pytest.approx(terms.consistency.item() - 0.3, abs=1e-6)
