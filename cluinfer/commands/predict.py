"""`cluinfer predict`: what an artifact sees in pictures."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluinfer.commands import predict_ray
from cluinfer.errors import CluinferError

if TYPE_CHECKING:
    from cluinfer.engines import Array
    from cluinfer.fidelity import Fidelity
    from cluinfer.prediction import Prediction
    from cluinfer.runtime import Runtime

HELP = "say what is in pictures, and show what the model put together to see it"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="an artifact, a .clu file")
    parser.add_argument("pictures", nargs="+", help="files, folders, or patterns such as 'photos/**/*.jpg'")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to name (5)")
    parser.add_argument("--report", metavar="FILE", help="write an HTML report with the cluster maps")
    parser.add_argument("--overlay", metavar="DIR", help="write each picture with a map painted over it, as .png")
    parser.add_argument(
        "--show", metavar="MAP", help="which map: stage3, segments, evidence ...; default: the last one"
    )
    parser.add_argument("--against", metavar="OTHER", help="another artifact, to compare with")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="pictures at once; default: what the model was built for"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: the engine's choice")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")
    predict_ray.declare(parser)


@dataclass(frozen=True)
class _Seen:
    """One picture: what each model says of it, or why it cannot be served."""

    path: Path
    predictions: tuple[Prediction, ...] = ()
    error: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Predict; a picture that cannot be served is reported in its place, and by the exit code."""
    if arguments.ray is not None:
        return predict_ray.run(arguments)
    for name in ("output", "columns", "rows", "gpus"):
        if getattr(arguments, name):
            raise CluinferError(f"--{name} goes with --ray: give that too")
    from cluinfer.commands.terminal import DONE, FAULTY, print_json, warnings_as_lines
    from cluinfer.picture_files import find_pictures
    from cluinfer.runtime import Runtime

    pictures = find_pictures(arguments.pictures)
    report = _report_path(arguments.report)
    if arguments.show and not arguments.overlay:
        raise CluinferError(f"--show {arguments.show} says which map --overlay DIR paints; give a folder to paint into")
    overlays = _Overlays(_folder(arguments.overlay), arguments.show) if arguments.overlay else None
    models = [arguments.model, *([arguments.against] if arguments.against else [])]
    kept: list[_Seen] = []
    rows: list[dict[str, Any]] = []
    failed, total = 0, None
    with ExitStack() as opened, warnings_as_lines():
        runtimes = [opened.enter_context(Runtime(model, threads=arguments.threads)) for model in models]
        _check_comparable(runtimes)
        for seen in _look(runtimes, pictures, arguments.batch):
            failed += bool(seen.error)
            found = None if seen.error or len(runtimes) == 1 else _compare(runtimes, seen.predictions)
            total = total + found if total and found else total or found
            if overlays and not seen.error:
                overlays.write(seen)
            if report and not seen.error:
                kept.append(seen)
            if arguments.json:
                rows.append(_as_json(seen, found, arguments.top))
            else:
                print(_line(seen, found, arguments.top))
        if report and kept:
            _write_report(report, kept, runtimes, models)
    if arguments.json:
        print_json({"model": arguments.model, "against": arguments.against, "failed": failed, "pictures": rows})
    else:
        _print_end(len(pictures), failed, total, arguments.against)
    if report and not kept:
        print(f"cluinfer: warning: {report}: not written, since no picture could be served", file=sys.stderr)
    return FAULTY if failed else DONE


def _check_comparable(runtimes: Sequence[Runtime]) -> None:
    """Two models say something of each other where they know the same classes."""
    classes = [runtime.promise.classes or "no" for runtime in runtimes]
    if len(set(classes)) > 1:
        raise CluinferError(f"--against: a model of {classes[1]} classes cannot be compared with one of {classes[0]}")


def _report_path(text: str | None) -> Path | None:
    """Where the report goes, found out before anything is predicted."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix != ".html" or path.is_dir() or not path.parent.is_dir():
        raise CluinferError(f"--report {path}: wanted a name ending in .html, in a folder that exists")
    return path


def _folder(text: str) -> Path:
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CluinferError(f"--overlay {text}: wanted a folder to write to: {error.strerror}") from error
    return Path(text)


def _look(runtimes: Sequence[Runtime], pictures: Sequence[Path], batch: int | None) -> Iterator[_Seen]:
    from cluinfer.runtime import Failure

    streams = [runtime.stream(pictures, batch) for runtime in runtimes]
    for path, *found in zip(pictures, *streams, strict=True):
        failures = [each for each in found if isinstance(each, Failure)]
        if failures:
            said, name = str(failures[0].error), str(path)
            yield _Seen(path, error=said if said.startswith(name) else f"{name}: {said}")
        else:
            yield _Seen(path, tuple(found))


def _compare(runtimes: Sequence[Runtime], predictions: Sequence[Prediction]) -> Fidelity:
    """The second against the first, in the classes and in the maps that both show."""
    from cluinfer.fidelity import compare

    first, second = ({(m.layer, m.heads, m.size) for m in runtime.promise.maps} for runtime in runtimes)
    layers = sorted(layer for layer, _, _ in first & second)
    wanted, got = (_outputs(each, layers) for each in predictions)
    return compare(wanted, got)


def _outputs(prediction: Prediction, layers: Sequence[str]) -> dict[str, Array]:
    held: dict[str, Array] = {f"clusters/{layer}": prediction.clusters[layer].ids[None] for layer in layers}
    return held if prediction.logits is None else {**held, "logits": prediction.logits[None]}


def _line(seen: _Seen, found: Fidelity | None, top: int) -> str:
    """What is seen, and what another model says of it."""
    from cluinfer.commands.texts import fidelity_line, plain

    if seen.error:
        return plain(seen.error)
    said = [_classes(each, top) for each in seen.predictions]
    lines = [f"{plain(str(seen.path))}: {said[0]}"]
    if found is not None:
        lines.append(f"    the other: {said[1]}; {fidelity_line(found.to_dict())}")
    return "\n".join(lines)


def _classes(prediction: Prediction, top: int) -> str:
    from cluinfer.commands.texts import plain

    if prediction.logits is None:
        return f"features {', '.join('x'.join(map(str, each.shape)) for each in prediction.features)}"
    return ", ".join(f"{plain(score.name)} {score.probability * 100:.1f} %" for score in prediction.top(top))


def _as_json(seen: _Seen, found: Fidelity | None, top: int) -> dict[str, Any]:
    if seen.error:
        return {"picture": str(seen.path), "error": seen.error}
    first, *others = (each.to_dict(k=top) for each in seen.predictions)
    more: Mapping[str, Any] = {} if found is None else {"against": others[0], "agreement": found.to_dict()}
    return {"picture": str(seen.path), **first, **more}


class _Overlays:
    """Writes <picture>.<map>.png, numbered where pictures of several folders have one name."""

    def __init__(self, folder: Path, show: str | None) -> None:
        self.folder, self.show = folder, show
        self.used: Counter[str] = Counter()

    def write(self, seen: _Seen) -> None:
        """Those of an earlier run are replaced."""
        name = f"{seen.path.stem}.{(self.show or 'map').replace('/', '-')}"
        self.used[name] += 1
        number = f"-{self.used[name]}" if self.used[name] > 1 else ""
        path = self.folder / f"{name}{number}.png"
        try:
            seen.predictions[0].overlay(self.show, seen.path).save(path)
        except OSError as error:
            raise CluinferError(f"{path}: cannot write a picture there: {error.strerror}") from error


def _write_report(path: Path, kept: Sequence[_Seen], runtimes: Sequence[Runtime], models: Sequence[str]) -> None:
    from cluinfer.report import write_report

    names = short_names([seen.path for seen in kept])
    first, *others = (
        [(name, seen.predictions[i]) for name, seen in zip(names, kept, strict=True)] for i in range(len(runtimes))
    )
    if others:
        write_report(path, first, runtimes[0].promise, others[0], engines=(models[0], models[1]))
    else:
        write_report(path, first, runtimes[0].promise)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Pictures from their common folder on: a report tells nobody where its maker's files lie."""
    whole = [Path(os.path.normpath(path.absolute())) for path in paths]  # links keep their own names
    common = os.path.commonpath([path.parent for path in whole])
    return [path.relative_to(common).as_posix() for path in whole]


def _print_end(pictures: int, failed: int, total: Fidelity | None, against: str | None) -> None:
    from cluinfer.commands.texts import count, fidelity_line

    if failed or pictures > 1:
        print(f"{count(pictures, 'picture')}{f', {failed} not served' if failed else ''}")
    if total is not None:
        print(f"{against}: {fidelity_line(total.to_dict())}")
