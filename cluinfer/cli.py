"""The command line `cluinfer`: one thin function a command, errors as one line.

Exit codes: 0 done, 1 what was compared is not the same, 2 an error that the message explains, 130 interrupted, 141 the
reader of a pipe has gone.
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
from cluinfer.errors import ArchError, CluinferError, MissingPackageError

DONE, DIFFERENT, ERROR, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

_EXTRA_OF = {
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "polygraphy": "export",
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
            code: int | None = arguments.run(arguments)
        sys.stdout.flush()  # here, so that a reader that has gone is noticed while it can be handled
        return DONE if code is None else code
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
    except OSError as error:  # such as a full disk behind standard output
        print(f"cluinfer: error: {error}", file=sys.stderr)
        return ERROR


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

    export = commands.add_parser("export", help="write a checkpoint as a clustering-aware ONNX graph")
    export.add_argument("model", help="a checkpoint (.pt, .pth, .safetensors) or a torch.export program (.pt2)")
    export.add_argument("-o", "--output", metavar="FILE", help="where to; default: beside the checkpoint, as .onnx")
    export.add_argument("--arch", help="architecture, if not the one that the checkpoint's shapes tell")
    export.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="grid, fold or heads, as trained; repeatable"
    )
    export.add_argument("--size", metavar="N|HxW", help="size of the images; default: the architecture's")
    export.add_argument("--maps", default="stages", help="cluster maps: none, stages, all, or LAYER,... (stages)")
    export.add_argument("--evidence", type=int, default=0, metavar="K", help="show positions' shares of K classes (0)")
    export.add_argument("--attention", metavar="CLASS,...", help="ICASC: classes to show, by number; default: top 2")
    export.add_argument("--classes", metavar="FILE", help="names of the classes, one a line")
    export.add_argument("--no-optimize", action="store_true", help="leave out the graph passes")
    export.add_argument(
        "--explain", action="store_true", help="list each pass, what it changed, nodes before and after"
    )
    export.set_defaults(run=_export)

    verify = commands.add_parser("verify", help="compare an exported graph with the checkpoint it came from")
    verify.add_argument("model", help="the exported graph, an .onnx file")
    verify.add_argument("--reference", required=True, metavar="CHECKPOINT", help="what it was exported from")
    verify.add_argument("--arch", help="architecture of the checkpoint, if not the one that the graph names")
    verify.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="grid, fold or heads, as at export; repeatable"
    )
    verify.add_argument("--images", metavar="FILE", help=".npy or .npz of float32 [N, 3, H, W]; default: smooth noise")
    verify.add_argument(
        "--min-agreement", type=float, default=0.998, metavar="SHARE", help="points agreeing, in every layer (0.998)"
    )
    verify.add_argument(
        "--max-logit-error", type=float, default=2e-3, metavar="E", help="in standard deviations; of all numbers (2e-3)"
    )
    verify.add_argument("--json", action="store_true", help="print a JSON object instead of tables")
    verify.set_defaults(run=_verify)
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
        text=(0, 1),
    )


def _export(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from cluinfer.export import load_model, to_onnx
    from cluinfer.export.onnx_file import write_onnx
    from cluinfer.export.program import read_program

    source = Path(arguments.model)
    if not source.is_file():
        raise CluinferError(f"{source}: wanted a checkpoint file, found {'a folder' if source.is_dir() else 'nothing'}")
    target = Path(arguments.output or source.with_suffix(".onnx"))
    if target.is_dir() or not target.parent.is_dir() or target.resolve() == source.resolve():
        raise CluinferError(f"-o {target}: wanted the name of a file to write, in a folder that exists, not {source}")
    explained: list[Any] = []
    with _progress() as progress, _warnings_as_lines():
        progress(f"reading {source}")
        if source.suffix == ".pt2":
            if arguments.arch or arguments.set:
                raise ArchError("--arch and --set are for checkpoints; a .pt2 program has its architecture in it")
            module: Any = read_program(source)
        else:
            module = load_model(source, arguments.arch, **_settings(arguments.set))
        proto = to_onnx(
            module,
            arguments.size,
            arguments.maps,
            arguments.evidence,
            not arguments.no_optimize,
            attention=_numbers(arguments.attention),
            names=_lines(arguments.classes),
            explain=explained.append,
            progress=progress,
        )
        write_onnx(proto, target)
    if arguments.explain:
        _print_explanation(explained[0])
    nodes = f"{explained[0].nodes_after} nodes" + (
        "" if arguments.no_optimize else f", {explained[0].nodes_before} before"
    )
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {nodes}")
    print(f"outputs: {', '.join(output.name for output in proto.graph.output)}")


def _print_explanation(explained: Any) -> None:
    rows = [
        (done.name, str(done.changes), str(done.nodes_before), str(done.nodes_after), done.meaning)
        for done in explained.passes
    ]
    _print_table(("pass", "changes", "nodes before", "after", "what it does"), rows, text=(0, 4))
    for done in explained.passes:
        for remark in done.left:
            print(f"{done.name}: left alone: {remark}")
    print("passes are run in turn until none changes anything more; changes are of all rounds\n")


def _verify(arguments: argparse.Namespace) -> int:
    from cluinfer.export.verify import read_images, verify

    images = None if arguments.images is None else read_images(arguments.images)
    with _progress(lines=False) as progress, _warnings_as_lines():
        progress(f"comparing {arguments.model} with {arguments.reference}")
        found = verify(
            arguments.model,
            arguments.reference,
            images,
            arch=arguments.arch,
            min_agreement=arguments.min_agreement,
            max_error=arguments.max_logit_error,
            **_settings(arguments.set),
        )
    if arguments.json:
        _print_json(found.to_dict())
    else:
        print(found.table())
    return DIFFERENT if found.failures else DONE


@contextmanager
def _progress(lines: bool = True) -> Iterator[Any]:
    """Shows on standard error what is being done: a spinner on a terminal, elsewhere a line a step or nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: print(f"{step} ...", file=sys.stderr, flush=True) if lines else None
        return
    with console.status("starting") as status:
        yield lambda step: status.update(f"{step} ...")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Our own warnings as one line each, others not at all: the exporters' are about their own packages."""
    import warnings

    from cluinfer.export.load import AssumptionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:  # what was assumed may be why it failed
            for warning in caught:
                if issubclass(warning.category, AssumptionWarning):
                    print(f"cluinfer: warning: {warning.message}", file=sys.stderr)


def _numbers(text: str | None) -> list[int] | None:
    """Class numbers as in "3,17"."""
    if text is None:
        return None
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ArchError(f"--attention {text}: wanted class numbers such as 3,17")
    return [int(part) for part in text.split(",")]


def _lines(path: str | None) -> list[str]:
    """The names in a file, one a line."""
    from pathlib import Path

    if path is None:
        return []
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CluinferError(f"--classes {path}: wanted a text file with one name a line, {error}") from error


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """What `--set NAME=VALUE` says of the model, as overrides for `load_model`."""
    settings = dict(text.partition("=")[::2] for text in texts)
    known = ("grid", "fold", "heads", "size")
    for name, value in settings.items():
        if name not in known or not value:
            raise ArchError(f"--set {name}={value}: wanted {', '.join(known)}, each with a value, such as grid=8,8,4,4")
    return settings


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int]) -> None:
    """Columns as wide as their widest cell; those in `text` aligned left, the others, numbers, right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if i in text else cell.rjust(width)
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
