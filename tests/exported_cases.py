"""Small models exported and run in ONNX Runtime, with what PyTorch says of the same images.

An export costs seconds: only the FEC, whose pools fold, is exported for this; the CLUENet is that of engine_cases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import engine_cases
import golden_cases
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from cluinfer.export import to_onnx
from cluinfer.export.models import build
from cluinfer.export.models.config import config
from cluinfer.export.nn import watch_clusters
from cluinfer.export.nn.layout import Layout
from cluinfer.graph import KEY, Promise

BATCH = 2
FEC = replace(  # maps of 16x24, 8x12 and 4x6; the pools fold as the stages after them, 2x3 and 2x2
    config("fec", (1, 1, 1), (16, 16, 16), (2, 1, 2), 8, (2, 2, 2), (2, 2, 2), (2, 2, 2), num_classes=5, size=(64, 96)),
    fold=((2, 2), (2, 3), (2, 2)),
)


@dataclass(frozen=True)
class Clustering:
    """Outputs and promise of the exported file; the rest as PyTorch computes it."""

    outputs: dict[str, np.ndarray]
    promise: Promise
    logits: np.ndarray
    maps: dict[str, np.ndarray]  # by layer, [B, heads, rows, columns]
    segments: np.ndarray  # [B, height, width]
    bias: np.ndarray


@cache
def clustering(family: str) -> Clustering:
    what = FEC if family == "fec" else engine_cases.SMALL[family]
    model = build(what).eval()
    golden_cases.fill(model, "fec" if family == "fec" else "clue")
    image = golden_cases.weights().image(4, (BATCH, 3, *what.size))
    with torch.no_grad(), watch_clusters(model) as seen:
        logits = model(torch.from_numpy(image)).numpy()
    maps, token = {}, None
    for layer, assignment in seen.items():
        layout = assignment.layout
        region = torch.arange(layout.fold[0] * layout.fold[1]).repeat(BATCH * layout.heads)
        unique = assignment.index + region[:, None] * (layout.grid[0] * layout.grid[1])
        size = (layout.fold[0] * layout.region[0], layout.fold[1] * layout.region[1])
        maps[layer] = layout.merge(unique[:, None], layout.region).reshape(BATCH, layout.heads, *size).numpy()
        if layer.count(".") == 1:  # network.1, network.3: a pool
            place = _places(layout)[torch.from_numpy(maps[layer])].reshape(BATCH, -1)
            token = place.reshape(BATCH, *size) if token is None else place.gather(1, token.reshape(BATCH, -1))
    assert token is not None
    patches = token.reshape(BATCH, what.size[0] // 4, what.size[1] // 4)
    segments = patches.repeat_interleave(4, 1).repeat_interleave(4, 2).numpy()
    graph = to_onnx(model, evidence=3) if family == "fec" else onnx.load_from_string(engine_cases.small(family))
    outputs, promise = _run(graph, image)
    return Clustering(outputs, promise, logits, maps, segments, model.head.bias.detach().numpy())


def _places(layout: Layout) -> Tensor:
    """Where the model itself puts the centre of each id on the map that a pool makes: by its own merge of the ids."""
    regions, centers = layout.fold[0] * layout.fold[1], layout.grid[0] * layout.grid[1]
    merged = layout.merge(torch.arange(regions * centers).reshape(regions, 1, centers), layout.grid)
    return merged.flatten().argsort()


def _run(graph: onnx.ModelProto, image: np.ndarray) -> tuple[dict[str, np.ndarray], Promise]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": image}), strict=True))
    return outputs, Promise.from_json({entry.key: entry.value for entry in graph.metadata_props}[KEY])
