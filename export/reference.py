"""What a checkpoint gives, in the terms of the graph that was exported from it: the reference for everything after.

`reference_outputs` runs the PyTorch model and names its results as the graph does, with each point's margin beside
each cluster map, so that `cluinfer.fidelity` can tell near ties from real flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cluinfer.errors import GraphError
from cluinfer.export.models.icasc import Icasc
from cluinfer.export.nn.layout import Layout
from cluinfer.export.nn.margins import watch_margins
from cluinfer.export.nn.watch import Assignment, watch_clusters
from cluinfer.graph import (
    ATTENTION,
    ATTENTION_CLASSES,
    EVIDENCE,
    EVIDENCE_CLASSES,
    FEATURES,
    LOGITS,
    ClusterOutput,
    Promise,
)

Array = NDArray[Any]


def reference_outputs(
    model: nn.Module, promise: Promise, images: Array, classes: Mapping[str, Array] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The promised outputs for a batch of images, and the margins of the cluster maps, both by output name.

    Evidence and attention are for the `classes` given, under the names of the graph's outputs; without these they are
    left out.
    """
    classes, image = classes or {}, torch.from_numpy(images)
    final: list[Tensor] = []
    before_head = getattr(model, "layer4" if isinstance(model, Icasc) else "norm", None)
    hook = before_head.register_forward_hook(lambda *given: final.append(given[2])) if before_head else None
    try:
        with torch.no_grad(), watch_clusters(model) as seen, watch_margins() as margins:
            given = model(image)
    finally:
        if hook:
            hook.remove()
    found = {LOGITS: given} if isinstance(given, Tensor) else _features(given)
    held: dict[str, Array] = {}
    for each in promise.maps:
        assignment = _assignment_of(each, seen)
        found[each.output] = _as_map(_ids(assignment), assignment.layout)
        if promise.similarities:
            found[each.similarity] = _as_map(assignment.weight, assignment.layout)
        held[each.output] = _as_map(margins.of(assignment), assignment.layout).numpy()
    if EVIDENCE_CLASSES in classes and final:
        found[EVIDENCE_CLASSES] = torch.from_numpy(classes[EVIDENCE_CLASSES])
        found[EVIDENCE] = _evidence(model, final[-1], found[EVIDENCE_CLASSES])
    if ATTENTION_CLASSES in classes and isinstance(model, Icasc):
        found[ATTENTION_CLASSES] = torch.from_numpy(classes[ATTENTION_CLASSES])
        with torch.no_grad():
            maps = model.attention(image, _within(found[ATTENTION_CLASSES], model))
        found |= dict(zip(ATTENTION, (maps.last, maps.inner), strict=True))
    return {name: found[name].contiguous().numpy() for name in promise.outputs if name in found}, held


def check_classes(model: nn.Module, promise: Promise, reference: str | Path) -> None:
    """Refuse a checkpoint that has not as many classes as the graph."""
    head = _head(model)
    classes = head.out_features if head else None
    if classes != promise.classes:
        raise GraphError(
            f"the graph has {promise.classes or 'no'} classes, {reference} has {classes or 'none'}; give the "
            "checkpoint that the graph was exported from"
        )


def _head(model: nn.Module) -> nn.Linear | None:
    head = getattr(model, "head", getattr(model, "fc", None))
    return head if isinstance(head, nn.Linear) else None


def _features(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{FEATURES}/{i + 1}": each for i, each in enumerate(maps)}


def _evidence(model: nn.Module, last: Tensor, classes: Tensor) -> Tensor:
    """Each position's share of the logits of these classes [B, k]: they are a mean over positions, then linear."""
    head = _head(model)
    assert head is not None  # models with a final norm and no head have no evidence to promise
    weight = head.weight.detach()[_within(classes, model)] / last[0, 0].numel()  # [B, k, C]
    return torch.einsum("bkc,bchw->bkhw", weight, last)


def _within(classes: Tensor, model: nn.Module) -> Tensor:
    """The classes as indices; a graph may be wrong about them."""
    head = _head(model)
    return classes.long().clamp(0, head.out_features - 1 if head else 0)


def _assignment_of(wanted: ClusterOutput, seen: Mapping[str, Assignment]) -> Assignment:
    """The layer's assignment, if it is laid out as the graph says."""
    if wanted.layer not in seen:
        raise GraphError(
            f"the graph shows the clustering layer {wanted.layer}, the reference has none of that name, but "
            f"{', '.join(seen) or 'no clustering'}; give the checkpoint that the graph was exported from"
        )
    layout = seen[wanted.layer].layout
    size = (layout.fold[0] * layout.region[0], layout.fold[1] * layout.region[1])
    for what, theirs, ours in (
        ("heads", wanted.heads, layout.heads),
        ("fold", wanted.fold, layout.fold),
        ("grid", wanted.grid, layout.grid),
        ("size", wanted.size, size),
    ):
        if theirs != ours:
            raise GraphError(
                f"the graph clusters {wanted.layer} with {what} {theirs}, the reference with {ours}; set arch, grid, "
                "fold or heads of the reference as they were at export"
            )
    return seen[wanted.layer]


def _ids(assignment: Assignment) -> Tensor:
    """Ids unique within a head across regions: region * centres + centre."""
    layout = assignment.layout
    regions = layout.fold[0] * layout.fold[1]
    first = torch.arange(regions, dtype=torch.int32) * (layout.grid[0] * layout.grid[1])
    return assignment.index + first.repeat(assignment.index.shape[0] // regions)[:, None]


def _as_map(values: Tensor, layout: Layout) -> Tensor:
    """[G, N] -> [B, heads, rows, columns]."""
    return layout.merge(values[:, None], layout.region)
