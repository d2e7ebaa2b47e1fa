"""`cluinfer build`: a checkpoint becomes an artifact that a runtime takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cluinfer.commands.calibrate import add_calibration_options, calibration_fields, print_choices
from cluinfer.commands.options import add_graph_options, class_names, class_numbers, settings
from cluinfer.commands.tensorrt import add_tensorrt_options, check_options, run_emit, run_emitted

if TYPE_CHECKING:
    from cluinfer.build import Summary, Tried

HELP = "compile a checkpoint into an artifact, and say how fast and how faithful it is"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "model",
        help="a checkpoint (.pt, .safetensors), a program (.pt2), an .onnx, an artifact, or a folder that was emitted",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; default: beside the model, as .clu")
    parser.add_argument("--engine", default="auto", help="auto, trt, openvino or ort (auto: the first that works here)")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, bf16, fp16, int8, or auto: the fastest that keeps the clusters (fp32)",
    )
    parser.add_argument(
        "--batch", default="1", metavar="N", help="images a call that it is compiled for (1); trt: also MIN:OPT:MAX"
    )
    parser.add_argument("--hint", choices=("latency", "throughput"), default="latency", help="(latency)")
    parser.add_argument("--threads", type=int, metavar="N", help="to measure with; default: the engine's choice")
    parser.add_argument("--pictures", nargs="+", default=[], metavar="DIR", help="real pictures to compare on")
    add_calibration_options(parser)
    add_graph_options(parser)
    add_tensorrt_options(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a summary")


def run(arguments: argparse.Namespace) -> None:
    """Build, and say what came out."""
    from cluinfer.build import build
    from cluinfer.commands.terminal import print_json, progress, warnings_as_lines
    from cluinfer.emit import DESCRIPTION
    from cluinfer.engines.trt.settings import Settings, parse_batch
    from cluinfer.picture_files import find_pictures

    if (Path(arguments.model) / DESCRIPTION).is_file():
        run_emitted(arguments)
        return
    check_options(arguments)
    if arguments.emit_only:
        source_options = {
            "arch": arguments.arch,
            "overrides": settings(arguments.set),
            "size": arguments.size,
            "maps": arguments.maps,
            "evidence": arguments.evidence,
            "attention": class_numbers(arguments.attention),
            "names": class_names(arguments.classes),
            "similarities": arguments.similarities,
        }
        run_emit(arguments, source_options)
        return
    batch, profile = parse_batch(arguments.batch)
    with progress() as step, warnings_as_lines():
        own = Settings(
            profile=profile,
            plugins=False if arguments.no_plugins else None,
            workspace=arguments.workspace,
            version_compatible=arguments.version_compatible,
            hardware_compatible=arguments.hardware_compatible,
            progress=step,
        )
        summary = build(
            arguments.model,
            arguments.output,
            engine=arguments.engine,
            precision=arguments.precision,
            arch=arguments.arch,
            settings=settings(arguments.set),
            size=arguments.size,
            maps=arguments.maps,
            evidence=arguments.evidence,
            attention=class_numbers(arguments.attention),
            classes=class_names(arguments.classes),
            similarities=arguments.similarities,
            pictures=find_pictures(arguments.pictures),
            calibration=arguments.calibration,
            min_agreement=arguments.min_agreement,
            max_top1_drop=arguments.max_top1_drop,
            batch=batch,
            hint=arguments.hint,
            threads=arguments.threads,
            own=own,
            progress=step,
        )
    if arguments.json:
        print_json(summary.to_dict())
    else:
        if arguments.explain and summary.calibrated:
            print_choices(summary.calibrated)
        _print_summary(summary, arguments.precision)


def _print_summary(summary: Summary, asked: str) -> None:
    from cluinfer.commands.terminal import print_fields, print_table
    from cluinfer.commands.texts import fidelity_line, latency_line, promise_fields

    built, taken = summary.built, summary.taken
    if len(summary.tried) > 1:
        rows = [_row(each, each is taken) for each in summary.tried]
        print_table(("precision", "median ms", "top-1 same", "points same", ""), rows, text=(0, 4))
        print()
    assert taken.latency is not None and taken.fidelity is not None
    print_fields(
        [
            ("wrote", f"{summary.path}, {summary.path.stat().st_size / 1e6:.1f} MB"),
            *promise_fields(summary.promise),
            ("engine", f"{built.engine} ({summary.why})"),
            ("precision", f"{built.precision} ({_why(asked)})"),
            ("built for", f"batch {built.batch}, {built.hint}"),
            ("latency", latency_line(taken.latency.to_dict(), built.batch, summary.threads)),
            ("fidelity", fidelity_line(taken.fidelity.to_dict())),
            ("", f"against {summary.reference}, on {summary.images}"),
            *(calibration_fields(summary.calibrated) if taken.made and taken.made.calibrated else []),
            *(("warning", failure) for failure in summary.failures),
        ]
    )


def _why(asked: str) -> str:
    from cluinfer.build import AGREEMENT
    from cluinfer.build_graphs import AUTO
    from cluinfer.fidelity import percent

    if asked != AUTO:
        return "as asked for"
    return f"the fastest that keeps every picture's likeliest class and {percent(AGREEMENT)} of the points"


def _row(each: Tried, taken: bool) -> tuple[str, str, str, str, str]:
    from cluinfer.fidelity import percent

    median = f"{each.latency.median * 1e3:.2f}" if each.latency else ""
    top1 = same = ""
    if each.fidelity:
        top1 = "" if each.fidelity.top1_same is None else f"{each.fidelity.top1_same} of {each.fidelity.images}"
        same = percent(each.fidelity.overall.agreement) if each.fidelity.maps else ""
    return each.precision, median, top1, same, "taken" if taken else each.reason
