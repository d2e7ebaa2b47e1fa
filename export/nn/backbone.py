"""The frame that CoC, FEC and CLUENet share: points from an image, stages, then a head or one feature map a stage."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cluinfer.errors import ShapeError
from cluinfer.export.nn.layout import Pair

SEARCH = 512  # how far from an impossible size the nearest possible one is looked for, in pixels


class ClusterNet(nn.Module):
    """A clustering network: call it with images [B, 3, H, W].

    With `num_classes` it gives logits [B, classes]; without, a list of one feature map a stage, for dense prediction.
    A subclass sets `patch_embed`, `network` (stage, reduction, stage, ...) and, if it has one, `pos_embed`, then
    calls `finish`.
    """

    patch_embed: nn.Module
    pos_embed: nn.Module
    network: nn.ModuleList

    def finish(self, norms: Sequence[nn.Module], channels: int, num_classes: int | None) -> None:
        """Set the head, or with no classes the norms of the feature maps; `norms` are one a stage."""
        self.has_head = num_classes is not None
        if num_classes is None:
            for stage, norm in enumerate(norms):
                self.add_module(f"norm{2 * stage}", norm)
        else:
            self.norm = norms[-1]
            self.head = nn.Linear(channels, num_classes)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def stage_maps(self, image: Tensor) -> list[Tensor]:
        """The map after each stage, before any norm."""
        self.check_size(image.shape[2], image.shape[3])
        x = self.patch_embed(image)
        if hasattr(self, "pos_embed"):
            x = self.pos_embed(x)
        maps = []
        for position, layer in enumerate(self.network):
            x = layer(x)
            if position % 2 == 0:
                maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits, or the normalised feature maps of all stages."""
        maps = self.stage_maps(image)
        if self.has_head:
            return self.head(self.norm(maps[-1]).mean((2, 3)))
        return [self.get_submodule(f"norm{2 * stage}")(x) for stage, x in enumerate(maps)]

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image size that the patches, folds or pools do not allow, naming the nearest ones that work."""
        problem = self.axis_problem(height, 0) or self.axis_problem(width, 1)
        if problem:
            near = [self._near(height, 0), self._near(width, 1)]
            sizes = [f"{h}x{w}" for h in near[0] for w in near[1]]
            advice = f"nearest sizes that work: {', '.join(sizes)}" if sizes else "no size near it works"
            raise ShapeError(f"images of {height}x{width} do not fit this model: {problem}; {advice}")

    def axis_problem(self, length: int, axis: int) -> str | None:
        """Why an image of this many rows (axis 0) or columns (axis 1) cannot be run; None where it can."""
        return None

    def _near(self, length: int, axis: int) -> list[int]:
        """The length itself if it works, else the nearest below and above that do."""
        if self.axis_problem(length, axis) is None:
            return [length]
        below = (n for n in range(length - 1, max(length - SEARCH, 0), -1) if self.axis_problem(n, axis) is None)
        above = (n for n in range(length + 1, length + SEARCH) if self.axis_problem(n, axis) is None)
        return [n for n in (next(below, None), next(above, None)) if n is not None]


def patch_length(length: int, kernel: int, stride: int, padding: int) -> int:
    """How many patches a convolution cuts from so many pixels."""
    return (length + 2 * padding - kernel) // stride + 1


def fold_of(fold: Pair, axis: int) -> int:
    """The number of regions along an axis; a fold counts only if both its parts exceed 1."""
    return fold[axis] if min(fold) > 1 else 1
