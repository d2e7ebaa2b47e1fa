"""The picture at the top of README: three scenes, and what a trained model put together in them, stage by stage.

    python examples/shapes/scenes.py --out scenes --seed 20 --count 20
    cluinfer build examples/shapes/checkpoints/fec.pt --size 64 --classes examples/shapes/classes.txt --evidence 2 \\
        -o shapes.clu
    python examples/shapes/showcase.py shapes.clu scenes/0000* scenes/0007* scenes/0009* -o clusters.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cluinfer import Runtime
from cluinfer.draw import grid

MAPS = ("stage1", "stage2", "stage3", "segments")
TITLES = ("", "stage 1", "stage 2, head 1", "stage 3, head 1", "segments")
SIDE, GAP = 192, 8


def row(runtime: Runtime, path: Path) -> list[Image.Image]:
    """One picture and its maps."""
    prediction = runtime(path)
    under = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    one_head = {name: {} if name == "segments" else {"head": 0} for name in MAPS}
    return [under, *(prediction.overlay(name, picture=under, **one_head[name]).resize((SIDE, SIDE)) for name in MAPS)]


def stacked(cells: Sequence[Image.Image]) -> Image.Image:
    """Those of one column, under one another."""
    made = Image.new("RGB", (SIDE, len(cells) * (SIDE + GAP) - GAP), "white")
    for place, cell in enumerate(cells):
        made.paste(cell, (0, place * (SIDE + GAP)))
    return made


def main() -> None:
    """A row for each picture, a column for each map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the artifact")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("-o", "--output", default="clusters.png")
    arguments = parser.parse_args()
    with Runtime(arguments.model) as runtime:
        rows = [row(runtime, path) for path in arguments.pictures]
    columns = [stacked(cells) for cells in zip(*rows, strict=True)]
    grid(columns, TITLES, columns=len(columns)).quantize(128).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
