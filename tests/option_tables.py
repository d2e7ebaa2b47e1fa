"""The tables of docs/commands.md, from the parser itself; test_docs.py checks that they are there as they should be.

    python tests/option_tables.py        writes them, after an option has changed

A table stands between `<!-- options: COMMAND -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cluinfer.cli import _parser

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
TABLE = re.compile(r"(?<=<!-- options: )(?P<command>\w+)(?P<table> -->\n.*?)(?=<!-- end -->)", re.S)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parsers by the command's name, in the order of --help."""
    (choice,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(choice.choices)


def renewed(page: str) -> str:
    """The page with every table as it should be."""
    return TABLE.sub(lambda found: f"{found['command']} -->\n{table(commands()[found['command']])}", page)


def table(parser: argparse.ArgumentParser) -> str:
    """What a command takes, a row each."""
    rows = [
        f"| {_written(action)} | {_explained(action)} |\n"
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    return "".join(["\n| option | what it is |\n|---|---|\n", *rows, "\n"])


def _written(action: argparse.Action) -> str:
    """As it is typed: `-o FILE`, `--output FILE`."""
    value = str(action.metavar or (action.dest.upper() if action.option_strings else action.dest)).replace("|", " or ")
    value += " ..." if action.nargs == "+" else ""
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{option}`" if action.nargs == 0 else f"`{option} {value}`" for option in action.option_strings)


def _explained(action: argparse.Action) -> str:
    """Its help, and what argparse shows elsewhere: its group, what it may be, and whether it must be there."""
    title = getattr(action.container, "title", None)  # type: ignore[attr-defined]
    group = "" if title in (None, "options", "positional arguments") else f"{title}: "
    choices = f"{' or '.join(map(str, action.choices))} " if action.choices else ""
    needed = "; must be given" if action.required and action.option_strings else ""
    return f"{group}{choices}{action.help}{needed}".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
