"""`cluinfer verify`: an exported graph or an artifact against the checkpoint it came from."""

from __future__ import annotations

import argparse

from cluinfer.commands.options import add_model_options, settings

HELP = "compare a graph or an artifact with the checkpoint it came from"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="an exported graph (.onnx) or an artifact (.clu)")
    parser.add_argument("--reference", required=True, metavar="CHECKPOINT", help="what it was exported from")
    add_model_options(parser)
    on = parser.add_mutually_exclusive_group()
    on.add_argument("--pictures", nargs="+", default=[], metavar="DIR", help="real pictures; default: smooth noise")
    on.add_argument("--images", metavar="FILE", help=".npy or .npz of float32 [N, 3, H, W], as the graph takes them")
    parser.add_argument(
        "--min-agreement", type=float, default=0.998, metavar="SHARE", help="points agreeing, in every layer (0.998)"
    )
    parser.add_argument(
        "--max-logit-error", type=float, default=2e-3, metavar="E", help="in standard deviations; of all numbers (2e-3)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Compare, and say whether they are the same."""
    from cluinfer.commands.terminal import DONE, FAULTY, print_json, progress, warnings_as_lines
    from cluinfer.export.images import read_images
    from cluinfer.export.verify import verify
    from cluinfer.picture_files import find_pictures

    images = None if arguments.images is None else read_images(arguments.images)
    with progress(keep=False) as step, warnings_as_lines():
        step(f"comparing {arguments.model} with {arguments.reference}")
        found = verify(
            arguments.model,
            arguments.reference,
            images,
            arch=arguments.arch,
            min_agreement=arguments.min_agreement,
            max_error=arguments.max_logit_error,
            pictures=find_pictures(arguments.pictures),
            **settings(arguments.set),
        )
    if arguments.json:
        print_json(found.to_dict())
    else:
        print(found.table())
    return FAULTY if found.failures else DONE
