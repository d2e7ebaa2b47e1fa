"""Measure the trained models on scenes that training has not seen: accuracy, and whether they see the objects.

    python examples/shapes/evaluate.py                                # every checkpoint here, 2000 scenes
    python examples/shapes/evaluate.py my.pt --count 500 --seed 9

Accuracy first. Then, for each clustering, how its clusters agree with the objects' true masks, means over scenes and
heads, in percent (see `agreement`), beside the same numbers for a regular grid of as many cells.
For ICASC, the separability of the true class's attention from the strongest other's, and how much of the true class's
attention lies on the object; beside it, how many scenes have an empty map (which counts as separate, and as off the
object), and the object's share of the picture, which a flat map would reach.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import SIZE, draw_many
from torch import Tensor, nn
from torch.nn import functional as F
from train import CHECKPOINTS, RECIPES, SEED, to_input

from cluinfer.export import load_model
from cluinfer.export.load import AssumptionWarning
from cluinfer.export.models.icasc import Icasc
from cluinfer.export.nn import Assignment, separability, watch_clusters
from cluinfer.graph import Preprocess
from cluinfer.preprocess import shown

BATCH = 100
HELD_BACK = SEED + 1  # the seed of the scenes


class Agreement(NamedTuple):
    """What the clusters of a map have to do with the object, one value an image and head."""

    purity: NDArray[np.float64]
    joined: NDArray[np.float64]
    single: NDArray[np.float64]


def agreement(ids: NDArray[np.int64], masks: NDArray[np.bool_]) -> Agreement:
    """Compare cluster maps [B, heads, h, w] with masks [B, H, W], H and W being multiples of h and w.

    purity: the share of pixels on the side, object or ground, that most of their cluster's pixels are on.
    joined: the IoU of the object and all clusters of which it holds the most, taken together.
    single: the IoU of the object and the one cluster that fits it best.
    """
    batch, heads, rows, columns = ids.shape
    cell = masks.shape[1] // rows, masks.shape[2] // columns
    covered = masks.reshape(batch, 1, rows, cell[0], columns, cell[1]).sum((3, 5))
    count = int(ids.max()) + 1
    slots = ids + count * np.arange(batch * heads).reshape(batch, heads, 1, 1)
    weights = np.broadcast_to(covered, ids.shape)
    shape = (batch, heads, count)
    inside = np.bincount(slots.ravel(), weights.ravel(), minlength=batch * heads * count).reshape(shape)
    total = np.bincount(slots.ravel(), minlength=batch * heads * count).reshape(shape) * (cell[0] * cell[1])
    thing = masks.sum((1, 2))[:, None]
    mine = 2 * inside > total
    shared = (inside * mine).sum(2)
    return Agreement(
        purity=np.maximum(inside, total - inside).sum(2) / (masks.shape[1] * masks.shape[2]),
        joined=shared / ((total * mine).sum(2) + thing - shared),
        single=(inside / (total + thing[..., None] - inside)).max(2),
    )


def ids_of(assignment: Assignment) -> NDArray[np.int64]:
    """The map of cluster ids [B, heads, h, w] of a layer without a fold."""
    layout = assignment.layout
    return assignment.index.reshape(-1, layout.heads, *layout.region).numpy().astype(np.int64)


def segments_of(pools: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Which final point each first point belongs to, by way of all pools: [B, 1, h, w]."""
    chain = pools[0]
    for pool in pools[1:]:
        final = pool.reshape(len(pool), -1)
        chain = np.take_along_axis(final, chain.reshape(len(chain), -1), 1).reshape(chain.shape)
    return chain


def seen_masks(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The part of the masks [B, 64, 64] that a model of this size sees."""
    how = Preprocess(interpolation="bilinear")
    grey = [shown(np.uint8(255) * mask, size, how).convert("L") for mask in masks]
    return np.stack([np.asarray(mask) >= 128 for mask in grey])


def cells(rows: int, columns: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """A map [1, 1, rows, columns] that numbers the cells of a regular grid."""
    row, column = (np.arange(n) * g // n for n, g in zip((rows, columns), grid, strict=True))
    return (row[:, None] * grid[1] + column)[None, None]


def batches(seed: int, count: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]]:
    """The first scenes of a seed, some at a time."""
    for start in range(0, count, BATCH):
        yield draw_many(seed, range(start, min(start + BATCH, count)))


def load(path: Path) -> tuple[nn.Module, tuple[int, int]]:
    """The model of a checkpoint, and the size of its images: the recipe's, which no checkpoint tells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # what it assumes is what train.py builds
        model = load_model(path)
    return model, RECIPES["icasc" if isinstance(model, Icasc) else "fec"].config.size


@torch.no_grad()
def accuracy(model: nn.Module, size: tuple[int, int], seed: int, count: int) -> float:
    """The share of scenes whose kind is told."""
    hits = 0
    for images, _, labels in batches(seed, count):
        hits += int((model(to_input(images, size)).argmax(1).numpy() == labels).sum())
    return hits / count


@torch.no_grad()
def clusterings(model: nn.Module, size: tuple[int, int], seed: int, count: int) -> dict[str, list[float]]:
    """By layer: purity, joined and single, of its clusters and of a regular grid."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for images, masks, _ in batches(seed, count):
        with watch_clusters(model) as seen:
            model(to_input(images, size))
        maps = {name: (ids_of(each), each.layout.grid) for name, each in seen.items()}
        pools = [maps[name] for name in maps if not name.endswith("token_mixer")]
        maps["segments, all pools"] = segments_of([ids for ids, _ in pools]), pools[-1][1]
        masks = seen_masks(masks, size)
        for name, (ids, grid) in maps.items():
            regular = np.broadcast_to(cells(ids.shape[2], ids.shape[3], grid), (len(ids), 1, *ids.shape[2:]))
            measured = [*agreement(ids, masks), *agreement(regular, masks)]
            found.setdefault(name, []).append(np.stack([each.mean(1) for each in measured], axis=1))
    return {name: list(np.concatenate(rows).mean(0)) for name, rows in found.items()}


@torch.no_grad()
def attentions(model: Icasc, size: tuple[int, int], seed: int, count: int) -> list[float]:
    """Last and inner separability, last and inner share of attention on the object, then what to judge these by: the
    share of scenes of which a map at the last layer is empty, and the object's share of the picture."""
    found = []
    for images, masks, labels in batches(seed, count):
        image, target = to_input(images, size), torch.from_numpy(labels)
        rival = model(image).scatter(1, target[:, None], float("-inf")).argmax(1)
        maps = model.attention(image, torch.stack([target, rival], 1))
        both = (maps.last, maps.inner)
        rows = [separability(a[:, 0], a[:, 1]) for a in both]
        seen = seen_masks(masks, size)
        rows += [_on_object(a[:, 0], seen) for a in both]
        rows += [(maps.last.amax((2, 3)) == 0).any(1).float(), torch.from_numpy(seen).float().mean((1, 2))]
        found.append(torch.stack(rows, 1))
    return torch.cat(found).mean(0).tolist()


def _on_object(attention: Tensor, masks: NDArray[np.bool_]) -> Tensor:
    """The share of each map [B, h, w] that lies on the mask, the map enlarged to it."""
    wide = F.interpolate(attention[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (wide * torch.from_numpy(masks)).sum((1, 2)) / wide.sum((1, 2)).clamp_min(1e-12)


def main() -> None:
    """Print the tables of the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="*", help="default: all in checkpoints/")
    parser.add_argument("--count", type=int, default=2000, help="scenes (default 2000)")
    parser.add_argument("--seed", type=int, default=HELD_BACK, help=f"of the scenes (default {HELD_BACK})")
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = args.checkpoints or sorted(CHECKPOINTS.glob("*.pt"))
    models = {path.stem: load(path) for path in paths}

    print(f"{args.count} scenes of {SIZE}x{SIZE}, seed {args.seed}\n")
    print("| checkpoint | parameters | accuracy |\n|---|---|---|")
    for name, (model, size) in models.items():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"| {name} | {parameters:,} | {accuracy(model, size, args.seed, args.count):.2%} |", flush=True)

    print(
        "\n| checkpoint | clustering | purity (grid) | joined IoU (grid) | single IoU (grid) |\n|---|---|---|---|---|"
    )
    for name, (model, size) in models.items():
        if not isinstance(model, Icasc):
            for layer, values in clusterings(model, size, args.seed, args.count).items():
                cellwise = [f"{100 * values[i]:.1f} ({100 * values[i + 3]:.1f})" for i in range(3)]
                print(f"| {name} | {layer} | {' | '.join(cellwise)} |", flush=True)

    print("\n| checkpoint | separability, last | inner | attention on the object, last | inner | empty | object |")
    print("|---|---|---|---|---|---|---|")
    for name, (model, size) in models.items():
        if isinstance(model, Icasc):
            values = attentions(model, size, args.seed, args.count)
            print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
