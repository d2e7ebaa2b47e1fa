"""`cluinfer doctor`: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import argparse

HELP = "say what is installed, what of it works here, and what to install for the rest"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Look, and say; not as it should be where no engine works."""
    import platform

    import cluinfer
    from cluinfer.commands.terminal import DONE, FAULTY, print_json, print_table
    from cluinfer.doctor import examine, some_engine_works
    from cluinfer.engines.hardware import cores, cpu

    parts = examine()
    works = some_engine_works(parts)
    if arguments.json:
        from dataclasses import asdict

        print_json(
            {
                "works": works,
                "cluinfer": cluinfer.__version__,
                "python": platform.python_version(),
                "machine": {**cpu(), "cores": cores()},
                "parts": [asdict(part) for part in parts],
            }
        )
    else:
        print(f"cluinfer {cluinfer.__version__}, Python {platform.python_version()}, {cpu()['cpu']}, {cores()} cores\n")
        rows = [(each.kind, each.name, _state(each.works), _what(each.what, each.advice)) for each in parts]
        print_table(("kind", "part", "works", "what"), rows, text=(0, 1, 2, 3))
        if not works:
            print("\nno engine works here: pip install 'cluinfer[openvino]'")
    return DONE if works else FAULTY


def _state(works: bool) -> str:
    return "yes" if works else "no"


def _what(what: str, advice: str) -> str:
    return f"{what}: {advice}" if advice and advice not in what else what
