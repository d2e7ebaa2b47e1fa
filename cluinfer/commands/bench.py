"""`cluinfer bench`: how fast a model is here, alone or against others."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cluinfer.errors import CluinferError

if TYPE_CHECKING:
    from cluinfer.bench import Bench

HELP = "measure latency, throughput, cold start and memory, alone or in turns with other models"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="an artifact (.clu) or an ONNX file (.onnx)")
    parser.add_argument("--against", nargs="+", default=[], metavar="OTHER", help="measured in turns with the model")
    parser.add_argument("--batch", metavar="N,...", help="images a call; default: what the model was built for")
    parser.add_argument("--streams", default="1", metavar="N,...", help="callers at once (1)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: the engine's choice")
    parser.add_argument("--engine", help="for ONNX files; default: the model's, or the first that works here")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="S", help="seconds before anything counts (1)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="to measure, or until --runs (10)")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="to measure, or until --seconds (200)")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="fresh processes for the cold start (3)")
    parser.add_argument("--plot", metavar="FILE", help="draw it too: .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print the whole record as JSON instead of tables")


def run(arguments: argparse.Namespace) -> None:
    """Measure, and show it."""
    from cluinfer.bench import bench
    from cluinfer.commands.terminal import print_json, progress, warnings_as_lines
    from cluinfer.timing import Plan

    if arguments.plot:
        from cluinfer.plot import check_format

        check_format(arguments.plot)
    with progress() as step, warnings_as_lines():
        measured = bench(
            arguments.model,
            arguments.against,
            batches=_numbers("--batch", arguments.batch) if arguments.batch else (),
            streams=_numbers("--streams", arguments.streams),
            threads=arguments.threads,
            engine=arguments.engine,
            plan=Plan(arguments.warm_up, arguments.seconds, arguments.runs),
            starts=arguments.starts,
            progress=step,
        )
    if arguments.plot:
        _plot(measured, arguments.plot)
    if arguments.json:
        print_json(measured.to_dict())
    else:
        _print(measured)
    for warning in measured.warnings:
        print(f"cluinfer: warning: {warning}", file=sys.stderr)


def _numbers(option: str, text: str) -> list[int]:
    """Positive numbers as in 1,2,4."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise CluinferError(f"{option} {text}: wanted positive numbers such as 1,2,4")
    return [int(part) for part in parts]


def _print(measured: Bench) -> None:
    from cluinfer.commands.terminal import print_fields, print_table

    times = ("min", "mean", "median", "p90", "p95", "p99")
    header = ("ms", "batch", "streams", "runs", *times, "varies", "images/s", "ratio")
    rows = []
    for each in measured.results:
        held = each.latency
        numbers = (each.batch, each.streams, held.runs)
        taken = (getattr(held, name) * 1e3 for name in times)
        ratio = held.median / measured.beside(each).latency.median
        rows.append(
            (
                *(each.model, *map(str, numbers), *(f"{time:.2f}" for time in taken)),
                *(f"{held.variation:.1%}", f"{each.images_per_second:.1f}", f"{ratio:.2f}"),
            )
        )
    print_table(header, rows)
    staged = [each for each in measured.results if each.stages]
    if staged:
        print()
        print_table(
            ("of one run alone, median", "setting", "stage", "ms"),
            [
                (each.model, each.setting, stage, f"{seconds * 1e3:.3f}")
                for each in staged
                for stage, seconds in each.stages.items()
            ],
            text=(0, 1, 2),
        )
    if measured.starts:
        print()
        print_table(
            ("fresh process, ms", "cold start", "load", "first run", "peak MiB"),
            [(name, *_start(measured, name)) for name in measured.starts],
        )
    print()
    print_fields(_conditions(measured))


def _start(measured: Bench, name: str) -> list[str]:
    """The medians over the processes."""
    from statistics import median

    starts = measured.starts[name]
    times = [f"{median(values) * 1e3:.0f}" for values in zip(*((s.cold, s.load, s.first) for s in starts), strict=True)]
    peaks = [start.peak_mib for start in starts if start.peak_mib is not None]
    return [*times, f"{median(peaks):.0f}" if peaks else "not known"]


def _conditions(measured: Bench) -> list[tuple[str, str]]:
    held = measured.conditions
    cpu, load = held["machine"].get("cpu", ""), held["load_average"]
    before, after = (f"{value:.2f}" if value is not None else "?" for value in (load["before"], load["after"]))
    threads = held["threads"] or "as the engine chooses"
    kinds = (f"{name}: {each['engine']} {each['precision']}" for name, each in measured.models.items())
    return [
        ("machine", f"{cpu}, {held['cores']} cores to use, load {before} before and {after} after"),
        ("threads", str(threads)),
        ("engines", "; ".join(kinds)),
        ("versions", ", ".join(f"{name} {version}" for name, version in held["versions"].items())),
        *_notes(measured),
        ("ratio", f"the median over that of {measured.first} in the same setting"),
    ]


def _notes(measured: Bench) -> list[tuple[str, str]]:
    return [
        (f"{each.model}, {each.setting}", ", ".join(f"{name} {text}" for name, text in each.notes.items()))
        for each in measured.results
        if each.notes
    ]


def _plot(measured: Bench, path: str) -> None:
    from cluinfer.commands.texts import count
    from cluinfer.plot import Bar, Panel, draw_bars

    sweep = len({(each.batch, each.streams) for each in measured.results}) > 1
    latency, rate = [], []
    for each in measured.results:
        held, images = each.latency, each.batch * each.streams
        label = f"{each.model}\n{each.setting}" if sweep else each.model
        latency.append(Bar(label, held.median * 1e3, held.min * 1e3, held.p95 * 1e3))
        rate.append(Bar(label, each.images_per_second, images / held.p95, images / held.min))
    spread = "fastest run to 95 % of them"
    panels = [Panel("latency, median", "ms a call", spread, latency), Panel("throughput", "images/s", spread, rate)]
    conditions = measured.conditions
    threads = f", {count(conditions['threads'], 'thread')}" if conditions["threads"] else ""
    draw_bars(path, panels, f"{conditions['machine'].get('cpu', '')}{threads}")
