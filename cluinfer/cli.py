"""The command line `cluinfer`: its commands are in cluinfer/commands; here they become one program.

Exit codes: 0 done, 1 what was looked at is not as it should be (a difference, a picture that cannot be read), 2 an
error that the message explains, 130 interrupted, 141 the reader of a pipe has gone, 143 terminated.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import cluinfer
from cluinfer.commands import COMMANDS
from cluinfer.commands.terminal import BROKEN_PIPE, DONE, ERROR, INTERRUPTED, TERMINATED
from cluinfer.errors import CluinferError, MissingPackageError, one_line

LONGEST = 2000  # letters of an error: two paths and what is wrong with them

_EXTRA_OF = {
    "matplotlib": "plot",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "polygraphy": "export",
    "pyarrow": "ray",
    "ray": "ray",
    "rich": "export",
    "safetensors": "export",
    "tensorrt": "trt",
    "torch": "export",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but a bug leaves a traceback."""
    _prepare_output()
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            return _fail(f"unrecognized arguments: {' '.join(unknown)}; see cluinfer {arguments.command} --help")
        with _explaining_missing_packages(f"cluinfer {arguments.command}"), _ending_when_terminated():
            code: int | None = arguments.run(arguments)
        sys.stdout.flush()  # here, so that a reader that has gone is noticed while it can be handled
        return DONE if code is None else code
    except SystemExit as ending:  # argparse, after --help, --version or a usage error; a signal
        return ending.code if isinstance(ending.code, int) else DONE
    except CluinferError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("cluinfer: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits, which would complain about the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:  # such as a full disk behind standard output
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"this needs more memory than there is: {error}")


def _fail(message: str) -> int:
    print(f"cluinfer: error: {one_line(message, LONGEST)}", file=sys.stderr)
    return ERROR


def _prepare_output() -> None:
    """A standard stream that is closed swallows what is written; what one cannot encode is written as an escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as it runs
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other error; the usage is one --help away."""
        self.exit(ERROR, f"cluinfer: error: {one_line(message, LONGEST)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cluinfer", description="Deploy vision models that see by clustering.")
    parser.add_argument("--version", action="version", version=f"cluinfer {cluinfer.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.HELP, description=f"{command.HELP[0].upper()}{command.HELP[1:]}.")
        command.declare(one)
        one.set_defaults(run=command.run)
    return parser


@contextmanager
def _ending_when_terminated() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that temporary files go; whoever calls `main` gets his own handler back."""
    if threading.current_thread() is not threading.main_thread():  # signals are set there only
        yield
        return

    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: a handler that Python did not set


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
