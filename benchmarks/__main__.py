"""Measurements that can be repeated: cpu, int8, overhead, report, scale, soak, triton; see their --help."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    from benchmarks import cpu, int8, overhead, report, scale, soak, triton

    for module in (cpu, int8, overhead, report, scale, soak, triton):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
