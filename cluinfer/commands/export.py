"""`cluinfer export`: a checkpoint as a clustering-aware ONNX graph."""

from __future__ import annotations

import argparse
from typing import Any

from cluinfer.commands.options import add_graph_options, class_names, class_numbers, settings

HELP = "write a checkpoint as a clustering-aware ONNX graph"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="a checkpoint (.pt, .pth, .safetensors) or a torch.export program (.pt2)")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; default: beside the checkpoint, as .onnx")
    add_graph_options(parser)
    parser.add_argument("--no-optimize", action="store_true", help="leave out the graph passes")
    parser.add_argument(
        "--explain", action="store_true", help="list each pass, what it changed, nodes before and after"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read, translate, write, say what came out."""
    from cluinfer.commands.terminal import progress, warnings_as_lines
    from cluinfer.export import to_onnx
    from cluinfer.export.onnx_file import write_onnx
    from cluinfer.export.source import output_path, read_model

    target = output_path(arguments.model, arguments.output, ".onnx")
    explained: list[Any] = []
    with progress() as step, warnings_as_lines():
        step(f"reading {arguments.model}")
        proto = to_onnx(
            read_model(arguments.model, arguments.arch, **settings(arguments.set)),
            arguments.size,
            arguments.maps or "stages",
            arguments.evidence or 0,
            not arguments.no_optimize,
            attention=class_numbers(arguments.attention),
            names=class_names(arguments.classes),
            similarities=arguments.similarities,
            explain=explained.append,
            progress=step,
        )
        write_onnx(proto, target)
    if arguments.explain:
        _print_explanation(explained[0])
    nodes = f"{explained[0].nodes_after} nodes" + (
        "" if arguments.no_optimize else f", {explained[0].nodes_before} before"
    )
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {nodes}")
    print(f"outputs: {', '.join(output.name for output in proto.graph.output)}")


def _print_explanation(explained: Any) -> None:
    from cluinfer.commands.terminal import print_table

    rows = [
        (done.name, str(done.changes), str(done.nodes_before), str(done.nodes_after), done.meaning)
        for done in explained.passes
    ]
    print_table(("pass", "changes", "nodes before", "after", "what it does"), rows, text=(0, 4))
    for done in explained.passes:
        for remark in done.left:
            print(f"{done.name}: left alone: {remark}")
    print("passes are run in turn until none changes anything more; changes are of all rounds\n")
