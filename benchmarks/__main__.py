"""`python -m benchmarks cpu`: the library against the published formulation, its baselines built in the same run."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    from benchmarks import cpu

    command = commands.add_parser("cpu", help=cpu.__doc__, description=cpu.__doc__)
    cpu.add_arguments(command)
    command.set_defaults(run=cpu.run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
