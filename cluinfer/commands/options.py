"""Options that several commands take, and what is read from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluinfer.errors import ArchError, CluinferError


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What a checkpoint does not hold."""
    parser.add_argument("--arch", help="architecture, if not the one that the checkpoint's shapes tell")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="grid, fold or heads, as trained; repeatable"
    )


def add_graph_options(parser: argparse.ArgumentParser) -> None:
    """What a checkpoint becomes as a graph."""
    add_model_options(parser)
    parser.add_argument("--size", metavar="N|HxW", help="size of the images; default: the architecture's")
    parser.add_argument("--maps", help="cluster maps: none, stages, all, or LAYER,... (stages)")
    parser.add_argument("--similarities", action="store_true", help="show how similar points are to their centres")
    parser.add_argument("--evidence", type=int, metavar="K", help="show positions' shares of K classes (0)")
    parser.add_argument("--attention", metavar="CLASS,...", help="ICASC: classes to show, by number; default: top 2")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes, one a line")


def class_numbers(text: str | None) -> list[int] | None:
    """Class numbers as in "3,17"."""
    if text is None:
        return None
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ArchError(f"--attention {text}: wanted class numbers such as 3,17")
    return [int(part) for part in text.split(",")]


def class_names(path: str | None) -> list[str]:
    """The names in a file, one a line."""
    if path is None:
        return []
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CluinferError(f"--classes {path}: wanted a text file with one name a line, {error}") from error


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """What `--set NAME=VALUE` says of the model, as overrides for `load_model`."""
    given = dict(text.partition("=")[::2] for text in texts)
    known = ("grid", "fold", "heads", "size")
    for name, value in given.items():
        if name not in known or not value:
            raise ArchError(f"--set {name}={value}: wanted {', '.join(known)}, each with a value, such as grid=8,8,4,4")
    return given
