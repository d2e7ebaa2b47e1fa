"""Train a small model on the scenes, in plain PyTorch on one core; started again, it goes on where it was.

    python examples/shapes/train.py fec          # or cluenet, icasc, icasc_plain: examples/shapes/checkpoints/fec.pt

Nothing of a configuration is stored in a checkpoint: `cluinfer.export.load_model` tells it from names and shapes. What
those do not tell, grids and the split into heads, is therefore what it takes by default: grids 4, 4, 2 for FEC, 7 for
CLUENet, heads of 32 channels.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import CLASSES, SIZE, draw_many
from torch import Tensor, nn
from torch.nn import functional as F

from cluinfer.export.models import Config, build
from cluinfer.export.models.config import ClusterConfig
from cluinfer.export.models.icasc import IcascConfig, icasc_loss
from cluinfer.export.nn import PointMlp
from cluinfer.graph import Preprocess
from cluinfer.preprocess import prepare

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
SEED = 1  # of the training scenes; evaluation draws those of another
BATCH = 64
WARM_UP = 0.05  # of all steps: the rate rises, then falls as a cosine
WEIGHT_DECAY = 0.05
LARGEST_NORM = 1.0  # gradients are cut to it


def _cluster_config(
    family: str, depths: tuple[int, int, int], ratio: int, grid: tuple[int, int, int], **more: bool
) -> ClusterConfig:
    """Three stages, on 16x16, 8x8 and 4x4 points."""
    channels = (32, 64, 96)
    return ClusterConfig(
        family,
        depths=depths,
        channels=channels,
        heads=(1, 2, 3),
        head_dims=(32, 32, 32),
        hidden=tuple(ratio * c for c in channels),
        grid=tuple((g, g) for g in grid),
        fold=((1, 1),) * 3,
        num_classes=len(CLASSES),
        size=(SIZE, SIZE),
        **more,
    )


@dataclass(frozen=True)
class Recipe:
    """What is trained, from what, and for how long; an ICASC model with its attention losses or without."""

    config: Config
    steps: int
    rate: float = 3e-3
    attention_losses: bool = False
    start: str | None = None  # the checkpoint to begin with; its scenes are not seen again


_RESNET = IcascConfig("basic", (1, 1, 1, 1), (16, 32, 64, 96), len(CLASSES), (2 * SIZE, 2 * SIZE))

RECIPES = {
    "fec": Recipe(_cluster_config("fec", (1, 2, 2), 4, grid=(4, 4, 2)), steps=3600),
    # its depthwise convolutions learn outlines soon: with more of them, it leans on its clusters less
    "cluenet": Recipe(
        _cluster_config("cluenet", (1, 1, 2), 2, grid=(7, 7, 7), layer_scale=False, pool_norm=True), steps=1500
    ),
    "icasc_plain": Recipe(_RESNET, steps=1500),
    # from the beginning, the losses are satisfied by maps that are flat or empty: there must be something to separate
    "icasc": Recipe(_RESNET, steps=400, rate=3e-4, attention_losses=True, start="icasc_plain"),
}


def to_input(images: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Pictures uint8 [B, 64, 64, 3] as cluinfer's runtime shows them to a model: enlarged, cropped, normalised."""
    return torch.from_numpy(np.stack([prepare(image, size, Preprocess()) for image in images]))


def fresh(config: Config) -> nn.Module:
    """A model to begin with. Its MLPs and layer scales start large: the published 0.02 and 1e-5 want long training."""
    torch.manual_seed(SEED)
    model = build(config)
    for module in model.modules():
        if isinstance(module, PointMlp):
            for layer in (module.fc1, module.fc2):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            nn.init.ones_(parameter)
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, with weight decay for matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}], weight_decay=WEIGHT_DECAY)


def rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of a step: a straight rise, then half a cosine."""
    rise = WARM_UP * recipe.steps
    if step < rise:
        return recipe.rate * (step + 1) / rise
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (recipe.steps - rise)))


def train(name: str, recipe: Recipe, folder: Path, every: int = 100) -> nn.Module:
    """The trained model. Every so many steps its state goes to `folder`, where the next call finds it and goes on."""
    model = fresh(recipe.config).train()
    seen = 0
    if recipe.start is not None:
        model.load_state_dict(torch.load(CHECKPOINTS / f"{recipe.start}.pt", weights_only=True))
        seen = RECIPES[recipe.start].steps * BATCH
    optimizer = optimizer_of(model)
    kept = folder / f"{name}.state.pt"
    first = 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        print(f"{name}: goes on from step {first}", flush=True)
    losses, hits, since, before = 0.0, 0, time.process_time(), first
    for step in range(first, recipe.steps):
        images, _, labels = draw_many(SEED, range(seen + step * BATCH, seen + (step + 1) * BATCH))
        image, target = to_input(images, recipe.config.size), torch.from_numpy(labels)
        if recipe.attention_losses:
            terms = icasc_loss(model, image, target)
            loss, logits = terms.total, terms.logits
        else:
            logits = model(image)
            loss = F.cross_entropy(logits, target)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        losses += loss.item()
        hits += int((logits.argmax(1) == target).sum())
        done = step + 1
        if done % every == 0 or done == recipe.steps:
            print(
                f"{name}: step {done} of {recipe.steps}, loss {losses / (done - before):.3f}, accuracy "
                f"{hits / (done - before) / BATCH:.1%}, {time.process_time() - since:.0f} s of CPU",
                flush=True,
            )
            save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, kept)
            losses, hits, since, before = 0.0, 0, time.process_time(), done
    return model


def save(what: object, path: Path) -> None:
    """All of it or nothing: a training stopped in between finds the previous state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(what, partial)
    partial.replace(path)


def main() -> None:
    """Train the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--folder", type=Path, default=HERE / "runs", help="where states are kept (default runs)")
    parser.add_argument("--every", type=int, default=100, help="steps between lines and states (default 100)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = train(args.name, RECIPES[args.name], args.folder, args.every)
    finished = CHECKPOINTS / f"{args.name}.pt"
    save(model.state_dict(), finished)
    print(f"{args.name}: {finished}")


if __name__ == "__main__":
    main()
