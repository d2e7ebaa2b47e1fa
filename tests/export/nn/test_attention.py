"""Attention maps and the ICASC losses, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from cluinfer.errors import ShapeError
from cluinfer.export.nn.attention import (
    THETA,
    AttentionConsistency,
    AttentionSeparation,
    IcascLoss,
    attention_map,
    channel_weights,
    class_attention,
    separability,
    strongest_other,
)


def maps(*rows: list[float]) -> Tensor:
    """One map of one row per argument: [B, 1, w]."""
    return torch.tensor(rows).unsqueeze(1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_map_is_the_positive_part_of_the_weighted_channels() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -5.0]]]])  # two channels of one row
    found = attention_map(torch.tensor([[[1.0, 1.0], [0.5, 0.0]]]), features)
    assert found.tolist() == [[[[4.0, 0.0]], [[0.5, 1.0]]]]


def test_a_channels_weight_is_the_mean_of_its_positive_gradient() -> None:
    gradient = torch.tensor([[[2.0, -4.0], [0.0, 6.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    assert channel_weights(gradient).tolist() == [2.0, 0.0]


def test_class_attention_of_a_linear_head() -> None:
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]], requires_grad=True)
    weight = torch.tensor([[4.0, -2.0], [-1.0, 6.0]])  # the negative ones take no part
    logits = features.mean((2, 3)) @ weight.T
    (found,) = class_attention(logits, [features], torch.tensor([[0, 1]]))
    # dy_0/dF = 4/2 on channel 0; dy_1/dF = 6/2 on channel 1
    assert found.tolist() == [[[[2.0, 6.0]], [[6.0, 0.0]]]]


@pytest.mark.parametrize("classes", [torch.tensor([0, 1]), torch.tensor([[0], [1], [0]])])
def test_classes_that_are_not_a_list_an_image_are_refused(classes: Tensor) -> None:
    features = torch.ones(2, 3, 1, 1, requires_grad=True)
    with pytest.raises(ShapeError, match=r"wanted classes \[2, k\], got"):
        class_attention(features.mean((2, 3)), [features], classes)


def test_class_attention_can_be_trained_through() -> None:
    torch.manual_seed(0)
    features = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    first, second = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def total(first: Tensor, second: Tensor) -> Tensor:
        logits = torch.tanh(features.mean((2, 3)) @ first) @ second
        (found,) = class_attention(logits, [features], torch.tensor([[0, 1], [2, 0]]))
        return found.square().sum()

    assert torch.autograd.gradcheck(total, (first, second))


def test_class_attention_without_a_graph_to_train_through() -> None:
    features, weight = torch.rand(1, 2, 2, 2, requires_grad=True), torch.rand(2, 2, requires_grad=True)
    logits = features.mean((2, 3)) @ weight
    (trainable,) = class_attention(logits, [features], torch.tensor([[1]]))
    (fixed,) = class_attention(logits, [features], torch.tensor([[1]]), create_graph=False)
    assert torch.equal(trainable, fixed)
    assert torch.autograd.grad(fixed.sum(), weight, allow_unused=True) == (None,)


def test_the_strongest_other_class() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0], [5.0, 1.0, 2.0], [-9.0, -8.0, -7.0]])
    assert strongest_other(logits, torch.tensor([0, 1, 2])).tolist() == [2, 0, 1]


def test_one_class_has_no_other() -> None:
    with pytest.raises(ShapeError, match="2 classes or more, got 1"):
        strongest_other(torch.zeros(2, 1), torch.tensor([0, 0]))


def test_separation_of_one_image_by_hand() -> None:
    a_t, a_c = maps([1.0, 0.5, 0.0]), maps([0.25, 2.0, 0.25])
    # sigma = 0.55: the mask is ~1 at 1.0, sigmoid(-5) at 0.5, ~0 at 0.0
    expected = 2 * (0.25 * sigmoid(45) + 0.5 * sigmoid(-5) + 0.0) / (1.5 + 2.5)
    assert AttentionSeparation()(a_t, a_c).item() == pytest.approx(expected, rel=1e-6)


def test_separation_is_the_mean_over_images() -> None:
    same = maps([1.0, 0.0])
    # the same map: 2 * 1 / 2 = 1 (the mask is 1 at the peak); nothing shared: 0
    loss = AttentionSeparation()(torch.cat([same, same]), torch.cat([same, maps([0.0, 1.0])]))
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_separation_takes_other_constants() -> None:
    a_t, a_c = maps([1.0, 0.5]), maps([0.5, 0.5])
    expected = 2 * (0.5 * sigmoid(2 * 0.75) + 0.5 * sigmoid(2 * 0.25)) / 2.5
    assert AttentionSeparation(omega=2, sigma=0.25)(a_t, a_c).item() == pytest.approx(expected, rel=1e-6)


def test_consistency_by_hand_with_the_mask_resized() -> None:
    inner, last = maps([1.0, 2.0, 3.0, 4.0]), maps([1.0, 0.5])
    peak, low = sigmoid(45), sigmoid(-5)
    mask = [peak, 0.75 * peak + 0.25 * low, 0.25 * peak + 0.75 * low, low]  # bilinear, 2 -> 4
    expected = 0.8 - sum((i + 1) * m for i, m in enumerate(mask)) / 10
    assert AttentionConsistency()(inner, last).item() == pytest.approx(expected, rel=1e-5)


def test_consistency_is_theta_less_one_when_the_inner_map_is_within_the_last() -> None:
    inner = maps([5.0, 0.0], [5.0, 0.0])
    last = maps([3.0, 0.0], [0.0, 3.0])
    # the first image agrees wholly, the second not at all
    assert AttentionConsistency()(inner, last).item() == pytest.approx(0.8 - 0.5, abs=1e-6)


def test_separability_by_hand() -> None:
    a_t = maps([2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 3.0, 0.0])
    a_c = maps([0.0, 8.0, 4.0], [0.0, 1.0, 1.0], [2.0, 6.0, 0.0])
    # first: [1, .5, 0] and [0, 1, .5] share .5 of 3; second: nothing; third: the same at twice the scale
    found = separability(a_t, a_c)
    assert found.tolist() == pytest.approx([1 - 2 * 0.5 / 3, 1.0, 0.0], abs=1e-6)


def test_separability_of_empty_maps() -> None:
    zero, some = [0.0, 0.0], [1.0, 0.5]
    found = separability(maps(zero, some, zero), maps(zero, zero, some))
    assert found.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4)])
def test_maps_that_do_not_fit_together_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="two \\[B, h, w\\], got \\[2, 1, 3\\]"):
        AttentionSeparation()(torch.ones(2, 1, 3), torch.ones(shape))
    with pytest.raises(ShapeError, match="two \\[B, h, w\\]"):
        separability(torch.ones(2, 1, 3), torch.ones(shape))


def test_inner_and_last_of_other_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="same images, got \\[2, 4, 4\\] and \\[3, 2, 2\\]"):
        AttentionConsistency()(torch.ones(2, 4, 4), torch.ones(3, 2, 2))


def test_empty_maps_give_defined_losses_and_no_gradient() -> None:
    a, b = torch.zeros(2, 2, 2, requires_grad=True), torch.zeros(2, 2, 2, requires_grad=True)
    separation, consistency = AttentionSeparation()(a, b), AttentionConsistency()(a, b)
    assert separation.item() == 0.0
    assert consistency.item() == pytest.approx(THETA)
    for gradient in torch.autograd.grad(separation + consistency, (a, b)):
        assert torch.equal(gradient, torch.zeros(2, 2, 2))


def test_one_empty_image_leaves_the_gradient_of_the_others_alone() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 3), torch.rand(2, 3, 3)
    a[1] = b[1] = 0
    alone = torch.autograd.functional.jacobian(lambda x: AttentionSeparation()(x, b[:1]), a[:1])
    both = torch.autograd.functional.jacobian(lambda x: AttentionSeparation()(x, b), a)
    torch.testing.assert_close(both[:1], alone / 2)
    assert both[1].count_nonzero() == 0


class Head(nn.Module):
    """Any user's classifier: two feature maps and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner = self.first(image).relu()
        last = self.second(inner).relu()
        return self.fc(last.mean((2, 3))), inner, last


def test_the_loss_is_the_sum_of_its_terms_on_the_two_maps() -> None:
    torch.manual_seed(0)
    image, target = torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 0])
    logits, inner, last = Head()(image)
    terms = IcascLoss()(logits, inner, last, target)
    classes = torch.stack([target, strongest_other(logits, target)], 1)
    in_maps, last_maps = class_attention(logits, [inner, last], classes)
    separate, agree = AttentionSeparation(), AttentionConsistency()
    expected = [
        nn.functional.cross_entropy(logits, target),
        separate(in_maps[:, 0], in_maps[:, 1]),
        separate(last_maps[:, 0], last_maps[:, 1]),
        agree(in_maps[:, 0], last_maps[:, 0]),
    ]
    torch.testing.assert_close(list(terms[1:5]), expected)
    torch.testing.assert_close(terms.total, torch.stack(expected).sum())
    assert torch.equal(terms.logits, logits)
    assert terms.separation_last.item() > 0  # the terms are there at all


def test_the_loss_of_dead_features_has_finite_gradients() -> None:
    model = Head()
    nn.init.zeros_(model.second.weight)
    nn.init.constant_(model.second.bias, -1.0)  # every output of the last ReLU is 0: both maps are empty
    terms = IcascLoss()(*model(torch.randn(2, 3, 6, 6)), torch.tensor([0, 1]))
    terms.total.backward()
    assert (terms.separation_inner.item(), terms.separation_last.item()) == (0.0, 0.0)
    assert terms.consistency.item() == pytest.approx(THETA)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert model.fc.bias.grad is not None and model.fc.bias.grad.abs().sum() > 0  # the cross-entropy still teaches


def test_a_target_of_another_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"target of shape \[2\], got \[3\]"):
        IcascLoss()(*Head()(torch.randn(2, 3, 6, 6)), torch.tensor([0, 1, 2]))
