"""ICASC: a ResNet whose class attention separates classes and agrees across layers ("Sharpen Focus").

The keys are those of the usual ResNets: `conv1, bn1, layer1..4.N.{conv1, bn1, ..., downsample.0/1}, fc`.

`Icasc.attention` gives, beside the logits, the attention A_c(F) of `cluinfer.export.nn.attention` at the output of
`layer4` ("last") and of `layer3` ("inner"), without autograd, so that it can be exported:

- at `layer4`, dy_c/dF is `fc.weight[c] / positions`, the same at every position;
- at `layer3`, it is that gradient led back through `layer4` by the adjoint of each step, in reverse: a ReLU becomes
  the mask of its positive outputs, a BatchNorm in eval mode its scale, a convolution a transposed convolution.

`icasc_loss` is for training: there the same maps come from autograd, in whatever mode the model is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cluinfer.errors import ArchError, ShapeError
from cluinfer.export.nn.attention import IcascLoss, IcascTerms, attention_map, channel_weights
from cluinfer.export.nn.layout import Pair

Block = Literal["basic", "bottleneck"]

EXPANSION: dict[str, int] = {"basic": 1, "bottleneck": 4}
STAGES = 4


@dataclass(frozen=True)
class IcascConfig:
    """A ResNet: the kind of its blocks, and for each of the 4 stages their number and width.

    The stem has the width of the first stage; a stage of bottlenecks puts out 4 times its width. `size` is
    the height and width of the images that it was trained on; the model takes any.
    """

    block: Block
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    num_classes: int = 1000
    size: Pair = (224, 224)

    def __post_init__(self) -> None:
        if self.block not in EXPANSION:
            raise ArchError(f"icasc: wanted block 'basic' or 'bottleneck', got {self.block!r}")
        for name, values in (("depths", self.depths), ("widths", self.widths)):
            if len(values) != STAGES or min(values) < 1:
                raise ArchError(f"icasc: wanted {STAGES} {name} of at least 1, got {values}")
        if self.num_classes < 1 or min(self.size) < 1:
            raise ArchError(f"icasc: wanted num_classes and size of at least 1, got {self.num_classes} and {self.size}")

    def outputs(self, stage: int) -> int:
        """Channels that the stage (0 to 3) puts out; -1 is the stem."""
        return self.widths[stage] * EXPANSION[self.block] if stage >= 0 else self.widths[0]


ARCHS: dict[str, IcascConfig] = {
    "icasc_resnet18": IcascConfig("basic", (2, 2, 2, 2)),
    "icasc_resnet34": IcascConfig("basic", (3, 4, 6, 3)),
    "icasc_resnet50": IcascConfig("bottleneck", (3, 4, 6, 3)),
    "icasc_resnet101": IcascConfig("bottleneck", (3, 4, 23, 3)),
}


class AttentionMaps(NamedTuple):
    """Logits [B, classes]; classes int64 [B, k]; their attention at layer4 [B, k, h, w] and layer3 [B, k, h', w']."""

    logits: Tensor
    classes: Tensor
    last: Tensor
    inner: Tensor


class Residual(nn.Module):
    """ReLU(branch(x) + shortcut(x)): the branch is convolutions with BatchNorm and a ReLU between each two.

    The shortcut is x itself, or where the shape changes a 1x1 convolution with BatchNorm.
    """

    def __init__(self, block: Block, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION[block]
        self.steps = range(1, len(_branch(block, inputs, width)) + 1)
        for step, (out, in_, kernel, _) in zip(self.steps, _branch(block, inputs, width), strict=True):
            # the stride is on the 3x3 convolution, the first one of a basic block and the only one of a bottleneck
            strided = stride if step == (1 if block == "basic" else 2) else 1
            self.add_module(f"conv{step}", nn.Conv2d(in_, out, kernel, strided, kernel // 2, bias=False))
            self.add_module(f"bn{step}", nn.BatchNorm2d(out))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """The branch, in order."""
        return [_pair(self.get_submodule(f"conv{step}"), self.get_submodule(f"bn{step}")) for step in self.steps]

    def activations(self, x: Tensor) -> list[Tensor]:
        """x, then the output of every ReLU; the block's own output is the last."""
        *before, (last_conv, last_norm) = self.layers()
        found = [x]
        for conv, norm in before:
            found.append(F.relu(norm(conv(found[-1]))))
        shortcut = x if self.downsample is None else self.downsample(x)
        found.append(F.relu(last_norm(last_conv(found[-1])) + shortcut))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D', h', w']."""
        return self.activations(x)[-1]

    def adjoint(self, gradient: Tensor, activations: Sequence[Tensor]) -> Tensor:
        """From dy/d(output) [B, k, D', h', w'] to dy/d(input) [B, k, D, h, w], in eval mode."""
        x, *_, output = activations
        gradient = through = _mask(gradient, output)
        for step, (conv, norm) in reversed(list(enumerate(self.layers()))):
            through = _convolution_adjoint(through, conv, norm, activations[step])
            if step > 0:  # the block's input is not a ReLU of its own
                through = _mask(through, activations[step])
        if self.downsample is not None:
            gradient = _convolution_adjoint(gradient, *_pair(*self.downsample), x)
        return through + gradient


class Stage(nn.Sequential):
    """Residual blocks, the first of which may halve height and width."""

    def __init__(self, block: Block, inputs: int, width: int, depth: int, stride: int) -> None:
        rest = [Residual(block, width * EXPANSION[block], width, 1) for _ in range(depth - 1)]
        super().__init__(Residual(block, inputs, width, stride), *rest)

    def blocks(self) -> Iterator[Residual]:
        """The blocks, in order."""
        return iter(cast("list[Residual]", list(self)))


class Icasc(nn.Module):
    """The classifier: call it with images [B, 3, H, W] for logits; see `attention` for the maps."""

    def __init__(self, config: IcascConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            Stage(config.block, config.outputs(i - 1), config.widths[i], config.depths[i], 2 if i else 1)
            for i in range(STAGES)
        )
        self.fc = nn.Linear(config.outputs(STAGES - 1), config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.classify(self.layer4(self.features(image)))

    def features(self, image: Tensor) -> Tensor:
        """The inner feature map, the output of `layer3`."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ShapeError(f"icasc: wanted images [B, 3, H, W], got {list(image.shape)}")
        stem = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        inner: Tensor = self.layer3(self.layer2(self.layer1(stem)))
        return inner

    def classify(self, last: Tensor) -> Tensor:
        """Logits from the output of `layer4`."""
        logits: Tensor = self.fc(last.mean((2, 3)))
        return logits

    def attention(self, image: Tensor, classes: Sequence[int] | Tensor | None = None) -> AttentionMaps:
        """Logits, and the attention of the top-1 and top-2 class, or of the classes given, without autograd.

        `classes` is a list of class numbers for every image, or one list an image as an int tensor [B, k]. The model
        must be in eval mode; torch.export keeps the batch dynamic, the image size fixed.
        """
        if any(module.training for module in self.modules()):
            raise RuntimeError("Icasc.attention wants eval mode, got training: call eval(), or use icasc_loss to train")
        inner = self.features(image)
        trace, last = [], inner
        for block in self.layer4.blocks():
            trace.append((block, block.activations(last)))
            last = trace[-1][1][-1]
        logits = self.classify(last)
        classes = self._classes(classes, logits)
        of_mean = F.embedding(classes, self.fc.weight)  # dy_c / d(mean over positions), [B, k, D]
        of_last = of_mean / (last.shape[2] * last.shape[3])
        gradient = of_last[..., None, None]
        for block, activations in reversed(trace):
            gradient = block.adjoint(gradient, activations)
        return AttentionMaps(
            logits, classes, attention_map(F.relu(of_last), last), attention_map(channel_weights(gradient), inner)
        )

    def _classes(self, classes: Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
        """The classes as int64 [B, k]."""
        if classes is None:
            if self.config.num_classes < 2:
                raise ArchError("icasc: top-1 and top-2 want 2 classes or more, got 1: name the classes instead")
            return logits.topk(2, dim=1).indices
        if isinstance(classes, Tensor):
            if classes.ndim != 2 or classes.shape[0] != logits.shape[0] or classes.is_floating_point():
                wanted = f"icasc: wanted classes as an int tensor [{logits.shape[0]}, k]"
                raise ShapeError(f"{wanted}, got {classes.dtype} {list(classes.shape)}")
            return classes.long()
        outside = [c for c in classes if not 0 <= c < self.config.num_classes]
        if outside or not classes:
            limit = self.config.num_classes - 1
            raise ArchError(f"icasc: wanted one class or more from 0 to {limit}, got {list(classes)}")
        return torch.tensor(list(classes), device=logits.device).expand(logits.shape[0], -1)


class IcascAttention(nn.Module):
    """`Icasc.attention` as a module's call, for torch.export; `classes` are fixed, None for top-1 and top-2."""

    def __init__(self, model: Icasc, classes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.classes = None if classes is None else list(classes)
        self.training = model.training

    def forward(self, image: Tensor) -> AttentionMaps:
        """Images [B, 3, H, W] -> logits, classes and maps."""
        return self.model.attention(image, self.classes)


def icasc_loss(model: Icasc, image: Tensor, target: Tensor, loss: IcascLoss | None = None) -> IcascTerms:
    """The training loss of a batch; `icasc_loss(model, image, target).total.backward()` is all that a step needs.

    The layers up to `layer3` may be frozen. `loss` sets other constants than the published ones.
    """
    with torch.enable_grad():
        inner = model.features(image)
        if not inner.requires_grad:  # all before it frozen: attention still needs the gradient at this place
            inner.requires_grad_()
        last = model.layer4(inner)
        terms: IcascTerms = (loss or IcascLoss())(model.classify(last), inner, last, target)
    return terms


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> IcascConfig | None:
    """The config that a state dict's keys and shapes speak of, or None if they are not of such a ResNet.

    Decided by the stem, the convolutions of each stage's first block and `fc`, which is where other ResNets differ
    (grouped or widened convolutions, another stem). What else is missing, surplus or misshapen is left to strict
    loading, which names it.
    """
    block: Block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    found = {key: tuple(shapes.get(key, ())) for key in ("conv1.weight", "fc.weight")}
    firsts = [tuple(shapes.get(f"layer{i}.0.conv1.weight", ())) for i in range(1, STAGES + 1)]
    if len(found["fc.weight"]) != 2 or any(len(shape) != 4 for shape in (*firsts, found["conv1.weight"])):
        return None
    depths = tuple(_depth(shapes, stage) for stage in range(1, STAGES + 1))
    widths = tuple(shape[0] for shape in firsts)
    if min(widths) < 1 or found["fc.weight"][0] < 1:
        return None
    config = IcascConfig(block, _four(depths), _four(widths), found["fc.weight"][0])
    wanted = {"conv1.weight": (widths[0], 3, 7, 7), "fc.weight": (config.num_classes, config.outputs(STAGES - 1))}
    for i in range(STAGES):
        for step, shape in enumerate(_branch(block, config.outputs(i - 1), widths[i]), start=1):
            wanted[f"layer{i + 1}.0.conv{step}.weight"] = shape
        if i > 0 or config.outputs(0) != config.outputs(-1):
            wanted[f"layer{i + 1}.0.downsample.0.weight"] = (config.outputs(i), config.outputs(i - 1), 1, 1)
    return config if all(tuple(shapes.get(key, ())) == shape for key, shape in wanted.items()) else None


def _branch(block: Block, inputs: int, width: int) -> list[tuple[int, int, int, int]]:
    """The weight shapes of a block's convolutions."""
    if block == "basic":
        return [(width, inputs, 3, 3), (width, width, 3, 3)]
    return [(width, inputs, 1, 1), (width, width, 3, 3), (width * EXPANSION[block], width, 1, 1)]


def _depth(shapes: Mapping[str, tuple[int, ...]], stage: int) -> int:
    depth = 1
    while f"layer{stage}.{depth}.conv1.weight" in shapes:
        depth += 1
    return depth


def _four(values: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = values
    return a, b, c, d


def _pair(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return cast("nn.Conv2d", conv), cast("nn.BatchNorm2d", norm)


def _mask(gradient: Tensor, output: Tensor) -> Tensor:
    """The adjoint of a ReLU with this output [B, D, h, w], on a gradient [B, k, D, h, w]."""
    return torch.where(output.unsqueeze(1) > 0, gradient, 0)


def _convolution_adjoint(gradient: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The adjoint of norm(conv(x)), on a gradient [B, k, D', h', w'] -> [B, k, D, h, w], h and w those of x."""
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    scaled = gradient.flatten(0, 1) * scale[:, None, None]  # beside the convolution, where a graph pass can fold it
    # rows and columns that the stride left over at the end: several input sizes give the same output size
    rest = [
        x.shape[axis] + 2 * pad - kernel - (scaled.shape[axis] - 1) * stride
        for axis, pad, kernel, stride in zip((2, 3), _two(conv.padding), conv.kernel_size, conv.stride, strict=True)
    ]
    back = F.conv_transpose2d(scaled, conv.weight, None, conv.stride, _two(conv.padding), rest)
    return back.reshape(*gradient.shape[:2], *back.shape[1:])


def _two(padding: str | tuple[int, ...]) -> tuple[int, int]:
    return cast("tuple[int, int]", padding)
