"""A checkpoint file in, the model in evaluation mode out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cluinfer.errors import ArchError, CheckpointError, CluinferWarning
from cluinfer.export.checkpoint import read_state_dict
from cluinfer.export.models import Config, build, family_of, published
from cluinfer.export.models.config import ClusterConfig, override
from cluinfer.export.recognise import recognise

SHOWN = 3  # how many offending keys an error names


class AssumptionWarning(CluinferWarning):
    """Something that a checkpoint does not hold was taken from the published defaults."""


def load_model(path: str | Path, arch: str | None = None, **overrides: object) -> nn.Module:
    """The model of a checkpoint, in evaluation mode; calling it with images gives logits.

    Without `arch`, it is told from the parameters' names and shapes; the number of classes always is. `overrides`
    set what a checkpoint does not hold: `grid`, `fold`, `heads`, `size` (see `models.config.override`).
    """
    state = read_state_dict(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        if arch is None:
            found = recognise(shapes)
            config, name, note = found.config, found.arch, found.note(overrides)
        else:
            config, name, note = _with_head_of(published(arch), shapes), arch, None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if overrides:
        if not isinstance(config, ClusterConfig):
            raise ArchError(f"{name or 'this model'} has no grid, fold or heads to set; got {', '.join(overrides)}")
        config = override(config, **overrides)
    with torch.device("meta"):  # shapes are compared before memory is asked for
        model = build(config)
    _compare(path, model, state, name, told=arch is not None)
    if note:
        warnings.warn(f"{path}: {note}", AssumptionWarning, stacklevel=2)
    model.load_state_dict(state, strict=True, assign=True)
    setattr(model, "arch", name or f"{family_of(config)}_custom")  # noqa: B010 - torch types attributes as modules
    setattr(model, "size_assumed", name is None and "size" not in overrides)  # noqa: B010
    return model.eval()


def _with_head_of(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> Config:
    """The published configuration with as many classes as the checkpoint has, or none for a backbone."""
    head = shapes.get("head.weight" if isinstance(config, ClusterConfig) else "fc.weight")
    if head and head[0] < 1:
        raise CheckpointError("its head has no classes")
    if head:
        return replace(config, num_classes=head[0])
    return (
        replace(config, num_classes=None) if isinstance(config, ClusterConfig) and "norm0.weight" in shapes else config
    )


def _compare(path: str | Path, model: nn.Module, state: Mapping[str, Tensor], name: str | None, told: bool) -> None:
    """Refuse missing or surplus parameters and wrong shapes, each with its own message."""
    wanted = {key: list(value.shape) for key, value in model.state_dict().items()}
    given = {key: list(value.shape) for key, value in state.items()}
    missing = [key for key in wanted if key not in given]
    surplus = [key for key in given if key not in wanted]
    wrong = [
        f"{key} is {given[key]}, wanted {shape}" for key, shape in wanted.items() if given.get(key, shape) != shape
    ]
    label = name or "a model of its kind"
    whole = [
        f"{key} is {state[key].dtype}"
        for key, value in model.state_dict().items()
        if key in state and value.is_floating_point() and not state[key].is_floating_point()
    ]
    kinds = {
        "wrong shapes": wrong,
        "whole numbers where floats are wanted": whole,
        "parameters missing": missing,
        "surplus parameters": surplus,
    }
    for what, problems in kinds.items():
        if problems:
            more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            hint = _hint(given) if told else ""
            raise CheckpointError(f"{path} does not fit {label}: {what}: {', '.join(problems[:SHOWN])}{more}{hint}")


def _hint(given: Mapping[str, list[int]]) -> str:
    """What the checkpoint looks like instead, if that can be told."""
    try:
        names = recognise({key: tuple(shape) for key, shape in given.items()}).names
    except CheckpointError:
        return ""
    return f"; its shapes are those of {' or '.join(names)}" if names else ""
