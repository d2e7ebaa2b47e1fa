"""The commands of `cluinfer`, one a module, listed in the order of --help.

A command says what it takes in `declare` and does it in `run`, which gives the exit code, None for done. Whatever it
needs is imported inside `run`, so that `cluinfer --version` stays instant. Adding one: a module here, and a line below.
"""

from __future__ import annotations

import argparse
from typing import Protocol

from cluinfer.commands import archs, bench, build, calibrate, doctor, export, inspect, package, predict, verify


class Command(Protocol):
    """What a command's module holds."""

    HELP: str

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments."""

    def run(self, arguments: argparse.Namespace) -> int | None:
        """Do it; what is wrong with what the user gave is raised as a CluinferError."""


COMMANDS: dict[str, Command] = {
    "build": build,
    "predict": predict,
    "bench": bench,
    "inspect": inspect,
    "verify": verify,
    "export": export,
    "calibrate": calibrate,
    "package": package,
    "archs": archs,
    "doctor": doctor,
}
