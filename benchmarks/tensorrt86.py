"""What a GPU machine needs to run whole networks through TensorRT 8.6, in one folder, made without a GPU.

    python -m benchmarks.tensorrt86 OUT examples/shapes/checkpoints/{fec,cluenet,icasc}.pt
    sh OUT/run.sh STAGING/run86 | tee log                        on the GPU machine
    python -m benchmarks.tensorrt86 OUT --log log --json tensorrt86.json   for benchmarks.gpu --beside

For each model the graph in standard operators in fp32, fp16 and int8, inputs of batch 1, 8 and 64 with what the float32
graph gives for them in ONNX Runtime, and run.sh, which builds, compares and times all of them by run_onnx.py: of an
integer output, a map, `equal` is the share of its points in the same cluster. int8 is calibrated on the scenes of
examples/shapes; the rest of it is float32 in the file, since 8.6 takes half precision from its own flag.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import scenes
from cluinfer.calibration import calibrate, to_half, trt_rules
from cluinfer.engines.trt.graph import standard
from cluinfer.export.source import Source, read_source
from cluinfer.export.verify import GraphRun
from cluinfer.graph import INPUT

BATCHES = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder")
    parser.add_argument("models", nargs="*", type=Path, help="checkpoints, or exported graphs")
    parser.add_argument("--images", type=int, default=100, help="to calibrate on (100)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--log", type=Path, help="what run.sh printed, to be turned into --json; makes nothing")
    parser.add_argument("--json", type=Path, help="where to write what the log holds")
    arguments = parser.parse_args()
    if bool(arguments.log) == bool(arguments.models) or bool(arguments.log) != bool(arguments.json):
        parser.error("wanted models, or --log and --json")
    if arguments.log:
        arguments.json.write_text(json.dumps(read_log(arguments.log.read_text()), indent=1))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    commands = []
    for path in arguments.models:
        source = read_source(path)
        write_cases(arguments.out, path.stem, source, arguments.batches)
        for precision, graph in graphs(source, arguments.images):
            name = f"{path.stem}.{precision}.onnx"
            (arguments.out / name).write_bytes(graph)
            commands += [
                f'echo "{name} batch {batch}"; "$1" "$tool" "$here/{name}" --precision {precision} '
                f'--npz "$here/{path.stem}.{batch}.npz"'
                for batch in arguments.batches
            ]
    head = '#!/bin/sh\n# $1: run86, where part_NN were unpacked\nhere=$(cd "$(dirname "$0")" && pwd)\n'
    head += 'tool=$(dirname "$1")/run_onnx.py\n'
    head += 'echo "machine $(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)"\n'
    head += 'echo "date $(date -u +%FT%TZ)"\n'
    (arguments.out / "run.sh").write_text(head + "\n".join(commands) + "\n")
    print(f"{arguments.out}: {len(commands)} runs; sh {arguments.out}/run.sh STAGING/run86")


def graphs(source: Source, images: int) -> Iterator[tuple[str, bytes]]:
    """Each precision's, in standard operators; TensorRT's rules hold for all of them."""
    whole = onnx.load_model_from_string(source.content)
    pictures, _ = scenes.images(images, source.promise.size[0], scenes.TRAINING)
    made = {"fp32": whole, "fp16": to_half(whole), "int8": calibrate(whole, [pictures]).graph}
    for precision, graph in made.items():
        content = standard(graph.SerializeToString())
        trt_rules.demand(onnx.load_model_from_string(content))
        yield precision, content


def read_log(text: str) -> dict[str, Any]:
    """What run.sh printed, in the form that networks.measure gives; a run without a time failed and is left out."""
    found: dict[str, Any] = {"machine": "?", "date": "?", "version": "TensorRT 8.6", "networks": []}
    row: dict[str, Any] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(machine|date) (.+)", line):
            found[match[1]] = match[2]
        elif match := re.fullmatch(r"(.+)\.(fp32|fp16|int8)\.onnx batch (\d+)", line):
            row = {"network": match[1], "batch": int(match[3]), "engine": "TensorRT 8.6", "precision": match[2]}
            row["equal"] = {}
        elif row and (match := re.fullmatch(r"(clusters/\S+): ([\d.]+) equal", line)):
            row["equal"][match[1]] = float(match[2])
        elif row and (match := re.fullmatch(_TIME, line)):
            median, p90, p99 = map(float, match.groups()[1:])
            found["networks"].append({**row, "median_ms": median, "p90_ms": p90, "p99_ms": p99, "runs": int(match[1])})
            row = {}
    return found


_TIME = r"GPU time, (\d+) runs: median ([\d.]+) ms, p90 ([\d.]+), p99 ([\d.]+)"


def write_cases(folder: Path, name: str, source: Source, batches: list[int]) -> None:
    """Inputs, and the float32 graph's outputs for them."""
    run = GraphRun(onnx.load_model_from_string(source.content), name)
    for batch in batches:
        pictures, _ = scenes.images(batch, source.promise.size[0], scenes.HELD_BACK)
        held: dict[str, Any] = {INPUT: pictures, **{f"out/{key}": value for key, value in run(pictures).items()}}
        np.savez(folder / f"{name}.{batch}.npz", **held)


if __name__ == "__main__":
    main()
