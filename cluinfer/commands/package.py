"""`cluinfer package`: an artifact as what a server takes."""

from __future__ import annotations

import argparse

HELP = "make a model repository for Triton Inference Server"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("server", choices=("triton",), help="the server to package for")
    parser.add_argument("model", help="an artifact (.clu)")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="the model repository")
    parser.add_argument("--name", help="of the model; default: the artifact's, without .clu")
    parser.add_argument("--maps", metavar="LIST", help="cluster maps to serve: all, none, or LAYER,... (all)")
    parser.add_argument("--pictures", action="store_true", help="take files of pictures, too, as the input picture")
    parser.add_argument(
        "--max-batch", type=int, metavar="N", help="images a batch at most (8, or what it is built for)"
    )
    parser.add_argument("--delay", type=int, default=0, metavar="US", help="microseconds to wait for a batch (0)")
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="of the model, side by side (1)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of an instance's engine; default: the engine's choice"
    )
    parser.add_argument("--storage", metavar="URI", help="KServe: where the repository will lie (pvc://models)")
    parser.add_argument("--image", help="KServe: a server with cluinfer in it (cluinfer-triton)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a summary")


def run(arguments: argparse.Namespace) -> None:
    """Write it, and say what it takes and gives."""
    from cluinfer.commands.terminal import print_json
    from cluinfer.triton import Serving, package
    from cluinfer.triton.write import IMAGE, STORAGE

    asked = arguments.maps or "all"
    maps = None if asked == "all" else () if asked == "none" else tuple(filter(None, asked.split(",")))
    serving = Serving(
        maps, arguments.pictures, arguments.max_batch, arguments.delay, arguments.instances, arguments.threads
    )
    made = package(
        arguments.model,
        arguments.output,
        arguments.name,
        serving,
        storage=arguments.storage or STORAGE,
        image=arguments.image or IMAGE,
    )
    if arguments.json:
        print_json(
            {
                "folder": str(made.folder),
                "platform": made.platform,
                "max_batch": made.max_batch,
                "outputs": list(made.outputs),
                "kserve": str(made.manifest),
            }
        )
        return
    print(f"{made.folder}: {made.platform}, up to {made.max_batch} images a batch; {made.manifest} for KServe")
    print(f"outputs: {', '.join(made.outputs)}")
