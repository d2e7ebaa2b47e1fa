"""`cluinfer archs`: the published architectures and their sizes."""

from __future__ import annotations

import argparse

HELP = "list the published architectures and their sizes"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Print them."""
    from cluinfer.commands.terminal import print_json, print_table
    from cluinfer.export.archs import summaries

    rows = summaries()
    if arguments.json:
        import dataclasses

        print_json([dataclasses.asdict(row) for row in rows])
        return
    cells = [
        (
            row.name,
            row.family,
            "x".join(map(str, row.size)),
            str(row.classes),
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e9:.3f}",
        )
        for row in rows
    ]
    print_table(("arch", "family", "input", "classes", "parameters (M)", "GMACs"), cells, text=(0, 1))
