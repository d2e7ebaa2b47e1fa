"""Tell a checkpoint's architecture from the names and shapes of its parameters alone.

A checkpoint of a published size is matched to the tables; any other size is read off its shapes. Grids and folds (and
for CoC and FEC the split into heads) leave no trace in a checkpoint: they are the published ones, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from cluinfer.errors import CheckpointError
from cluinfer.export.models import ARCHS, Config, icasc
from cluinfer.export.models.config import ClusterConfig
from cluinfer.export.nn.layout import Pair

Shapes = Mapping[str, tuple[int, ...]]

_PUBLISHED = {name: config for name, config in ARCHS.items() if isinstance(config, ClusterConfig)}

HEAD_DIMS = (32, 24, 16, 64, 48, 8)  # tried in this order where no published model of the same widths tells


@dataclass(frozen=True)
class Recognised:
    """A configuration, the published names it may go by (the first was taken), and what a checkpoint does not say."""

    config: Config
    names: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # on grid and fold of a published size
    assumed: tuple[tuple[str, str], ...] = ()  # of a size of the user's own: settings and their values

    @property
    def arch(self) -> str | None:
        """The published name, or None for a size of the user's own."""
        return self.names[0] if self.names else None

    def note(self, given: Collection[str] = ()) -> str | None:
        """What a user should know of what neither the file nor he, with the `given` settings, has said."""
        if self.remarks and not {"grid", "fold"} & set(given):
            return "; ".join((*self.remarks, "set arch, grid or fold to choose"))
        if assumed := [f"{name}={value}" for name, value in self.assumed if name not in given]:
            return f"not a published size, so it was assumed: {', '.join(assumed)}; set what was otherwise in training"
        return None


def recognise(shapes: Shapes) -> Recognised:
    """The architecture of a state dict with these names and shapes."""
    if "network.0.blocks.0.token_mixer.k.weight" in shapes or "network.0.0.token_mixer.f.weight" in shapes:
        return _cluster(shapes)
    config = icasc.recognise(shapes)
    if config is None:
        some = ", ".join(list(shapes)[:3])
        raise CheckpointError(
            f"not a model of a known family (CoC, FEC, CLUENet, ICASC): its parameters begin with {some}; "
            "a model of your own is exported from its module, or from a torch.export .pt2 file"
        )
    names = [name for name, known in icasc.ARCHS.items() if replace(known, num_classes=config.num_classes) == config]
    return Recognised(config, tuple(names))


def _cluster(shapes: Shapes) -> Recognised:
    """Read a CoC, FEC or CLUENet off its shapes, then complete it from the tables."""
    shared = "network.0.blocks.0.token_mixer.k.weight" in shapes
    family = "cluenet" if shared else "fec" if "network.1.conv_f.weight" in shapes else "coc"
    inner, features = ("blocks.", "k") if shared else ("", "f")

    def block(stage: int, number: int) -> str:
        return f"network.{2 * stage}.{inner}{number}"

    stages = _count(shapes, lambda i: f"{block(i, 0)}.norm1.weight")
    if not stages:
        raise CheckpointError(f"parameter {block(0, 0)}.norm1.weight is missing; is this the whole state dict?")
    first = [block(stage, 0) for stage in range(stages)]
    widths = tuple(_length(shapes, f"{name}.token_mixer.{features}.weight", 0) for name in first)
    kernel = _length(shapes, "patch_embed.proj.weight", 2)
    config = ClusterConfig(
        family,
        depths=tuple(_count(shapes, lambda i, s=s: f"{block(s, i)}.norm1.weight") for s in range(stages)),  # type: ignore[misc]
        channels=tuple(_length(shapes, f"{name}.norm1.weight", 0) for name in first),
        heads=(1,) * stages,
        head_dims=widths,
        hidden=tuple(_length(shapes, f"{name}.mlp.fc1.weight", 0) for name in first),
        grid=((1, 1),) * stages,
        fold=((1, 1),) * stages,
        num_classes=None if "norm0.weight" in shapes else _length(shapes, "head.weight", 0),
        patch=(3, 1, 1) if kernel == 3 else (kernel, kernel, 0),
        layer_scale=f"{first[0]}.layer_scale_1" in shapes,
        pool_norm=shared and "network.1.norm2.weight" in shapes,
    )
    names = [name for name, known in _PUBLISHED.items() if _same(known, config)]
    if names:
        remarks = []
        if len(names) > 1:
            remarks.append(f"its shapes fit {', '.join(names)}, which differ in grid and fold; {names[0]} was taken")
        if config.num_classes is None:
            remarks.append("without a head, grid and fold are often larger than the published classifier's")
        return Recognised(replace(_PUBLISHED[names[0]], num_classes=config.num_classes), tuple(names), tuple(remarks))
    return _unpublished(config, widths, shapes, first)


def _same(known: ClusterConfig, found: ClusterConfig) -> bool:
    """Whether two configurations give the same parameters, but for the number of classes."""

    def trace(c: ClusterConfig) -> tuple[object, ...]:
        return c.family, c.depths, c.channels, _widths(c), c.hidden, c.patch, c.layer_scale, c.pool_norm

    return trace(known) == trace(found)


def _unpublished(config: ClusterConfig, widths: tuple[int, ...], shapes: Shapes, first: list[str]) -> Recognised:
    """Complete a size of the user's own: heads from the gates (CLUENet) or by custom, grid and fold by custom."""
    stages = len(widths)
    family = [c for c in _PUBLISHED.values() if c.family == config.family]
    near = next((c for c in family if _widths(c) == widths), None)
    default = near or next((c for c in family if c.patch == config.patch), family[-1])
    assumed = []
    if config.family == "cluenet":
        heads = tuple(_length(shapes, f"{name}.token_mixer.gate.fc1.weight", 0) for name in first)
    else:
        heads = near.heads if near else tuple(_heads(width) for width in widths)
        assumed.append(("heads", ",".join(map(str, heads))))
    if any(width % count for width, count in zip(widths, heads, strict=True)):
        raise CheckpointError(f"head widths {list(widths)} do not divide into {list(heads)} heads")
    grid, fold = _fit(default.grid, stages), _fit(default.fold, stages)
    assumed += [("grid", _text(grid)), ("fold", _text(fold))]
    head_dims = tuple(width // count for width, count in zip(widths, heads, strict=True))
    complete = replace(config, heads=heads, head_dims=head_dims, grid=grid, fold=fold, size=default.size)
    return Recognised(complete, (), assumed=tuple(assumed))


def _widths(config: ClusterConfig) -> tuple[int, ...]:
    """The width of each stage's token mixers, all heads together: what a checkpoint tells of them."""
    return tuple(h * d for h, d in zip(config.heads, config.head_dims, strict=True))


def _heads(width: int) -> int:
    return width // next((d for d in HEAD_DIMS if width % d == 0), width)


def _fit(pairs: tuple[Pair, ...], stages: int) -> tuple[Pair, ...]:
    """The published pairs for as many stages as there are, the last one repeated."""
    return (pairs + pairs[-1:] * stages)[:stages]


def _text(pairs: tuple[Pair, ...]) -> str:
    return ",".join(str(a) if a == b else f"{a}x{b}" for a, b in pairs)


def _count(shapes: Shapes, key: Callable[[int], str]) -> int:
    """How many of key(0), key(1), ... are there without a gap."""
    count = 0
    while key(count) in shapes:
        count += 1
    return count


def _length(shapes: Shapes, key: str, axis: int) -> int:
    """One dimension of a parameter that must be there, of that rank, and not empty."""
    shape = shapes.get(key)
    if shape is None:
        raise CheckpointError(f"parameter {key} is missing; is this the whole state dict?")
    if len(shape) <= axis or shape[axis] < 1:
        raise CheckpointError(f"parameter {key} has shape {list(shape)}, which no model of this family has")
    return shape[axis]
