"""The command line `cluinfer`: one thin function a command, errors as one line.

Exit codes: 0 done, 2 an error that the message explains, 130 interrupted, 141 the reader of a pipe has gone.
Whatever a command needs is imported inside its function, so that `cluinfer --version` stays instant.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import cluinfer
from cluinfer.errors import CluinferError, MissingPackageError

DONE, ERROR, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141

_EXTRA_OF = {
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "rich": "export",
    "safetensors": "export",
    "tensorrt": "trt",
    "torch": "export",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but a bug leaves a traceback."""
    try:
        arguments = _parser().parse_args(argv)
        with _explaining_missing_packages(f"cluinfer {arguments.command}"):
            arguments.run(arguments)
        sys.stdout.flush()  # here, so that a reader that has gone is noticed while it can be handled
        return DONE
    except SystemExit as ending:  # argparse, after --help, --version or a usage error
        return ending.code if isinstance(ending.code, int) else DONE
    except CluinferError as error:
        print(f"cluinfer: error: {' '.join(str(error).split())}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits, which would complain about the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other error; the usage is one --help away."""
        self.exit(ERROR, f"cluinfer: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cluinfer", description="Deploy vision models that see by clustering.")
    parser.add_argument("--version", action="version", version=f"cluinfer {cluinfer.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    archs = commands.add_parser("archs", help="list the published architectures and their sizes")
    archs.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    archs.set_defaults(run=_archs)
    return parser


def _archs(arguments: argparse.Namespace) -> None:
    from cluinfer.export.archs import summaries

    rows = summaries()
    if arguments.json:
        import dataclasses

        _print_json([dataclasses.asdict(row) for row in rows])
        return
    header = ("arch", "family", "input", "classes", "parameters (M)", "GMACs")
    _print_table(
        header,
        [
            (
                row.name,
                row.family,
                "x".join(map(str, row.size)),
                str(row.classes),
                f"{row.parameters / 1e6:.2f}",
                f"{row.macs / 1e9:.3f}",
            )
            for row in rows
        ],
        left=2,
    )


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """Columns as wide as their widest cell; the first `left` of them aligned left, as text, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


@contextmanager
def _explaining_missing_packages(command: str) -> Iterator[None]:
    """A package that is not installed becomes an error that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise  # not a user's choice of extras but a bug, and its traceback is wanted
        raise MissingPackageError(
            f"{command} needs {package}, which is not installed: pip install 'cluinfer[{_EXTRA_OF[package]}]'"
        ) from error
