"""`cluinfer calibrate`: a float32 graph becomes one in int8 or fp16, for every engine, that keeps the clusters."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cluinfer.errors import CalibrationError

if TYPE_CHECKING:
    from cluinfer.calibration import Calibrated, Frontier

HELP = "put an exported graph into int8, calibrated on pictures, or into fp16"
METHODS = ("error", "minmax", "percentile", "entropy")
Field = tuple[str, str]


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="a graph in float32, an .onnx that cluinfer export wrote")
    parser.add_argument("images", nargs="*", help="pictures like those to come: folders, files; .npy, .npz of tensors")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; default: beside the graph, as .int8.onnx")
    parser.add_argument("--precision", choices=("int8", "fp16"), default="int8", help="fp16 wants no images (int8)")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="how ranges are chosen (error)")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="images to calibrate on, at most (300)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which images, and which are held back (0)")
    parser.add_argument("--no-balance", action="store_true", help="leave the channels of what layers read as they are")
    parser.add_argument(
        "--float", nargs="+", default=[], metavar="LAYER", help="layers, or patterns, to leave in float"
    )
    _add_bounds(parser)
    parser.add_argument("--engine", metavar="ENGINE", help="to time what the search finds in: auto, openvino, ort")
    parser.add_argument("--threads", type=int, metavar="N", help="to time with; default: the engine's choice")
    parser.add_argument("--plot", metavar="FILE", help="draw what the search found: .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def add_calibration_options(parser: argparse.ArgumentParser) -> None:
    """What `cluinfer build` takes for int8."""
    parser.add_argument("--calibration", nargs="+", default=[], metavar="DIR", help="pictures to calibrate int8 on")
    _add_bounds(parser)


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-agreement", type=float, metavar="SHARE", help="search: int8 where this share of the points is kept"
    )
    parser.add_argument(
        "--max-top1-drop", type=float, metavar="SHARE", help="search: and top-1 should drop by no more than this"
    )
    parser.add_argument("--explain", action="store_true", help="list what becomes of each layer, and why")


def run(arguments: argparse.Namespace) -> None:
    """Calibrate, write, say what came out."""
    if arguments.precision == "fp16":
        _run_half(arguments)
        return
    from pathlib import Path

    from cluinfer.build_graphs import Calibration
    from cluinfer.calibration import Settings, calibrate
    from cluinfer.commands.terminal import print_fields, print_json, progress, warnings_as_lines
    from cluinfer.engines import Options, choose_engine, get_engine
    from cluinfer.export.onnx_file import read_onnx, write_onnx
    from cluinfer.export.source import output_path
    from cluinfer.plot import check_format

    target = output_path(arguments.model, arguments.output, ".int8.onnx")
    given = Calibration(arguments.images, arguments.min_agreement, arguments.max_top1_drop)
    _check(arguments, given)
    if arguments.plot:
        check_format(arguments.plot)
    settings = Settings(
        arguments.method, arguments.count, arguments.seed, not arguments.no_balance, tuple(arguments.float)
    )
    engine = None
    if arguments.engine:
        engine = get_engine(choose_engine().name if arguments.engine == "auto" else arguments.engine)
        engine.check()
    with progress() as step, warnings_as_lines():
        step(f"reading {arguments.model}")
        made = calibrate(
            read_onnx(arguments.model),
            given.images,
            settings,
            bounds=given.bounds(),
            engine=engine,
            options=Options(threads=arguments.threads),
            saved=Path(f"{target}.calibration"),
            progress=step,
        )
        write_onnx(made.graph, target)
    if arguments.plot and made.frontier:
        made.frontier.plot(arguments.plot)
    if arguments.json:
        choices = [choice.to_dict() for choice in made.choices]
        print_json({"path": str(target), "bytes": target.stat().st_size, **made.to_dict(), "choices": choices})
        return
    if arguments.explain:
        print_choices(made)
    _print_agreement(made)
    if made.frontier:
        _print_frontier(made.frontier)
    print_fields([("wrote", f"{target}, {target.stat().st_size / 1e6:.1f} MB"), *calibration_fields(made)])


def _check(arguments: argparse.Namespace, given: object) -> None:
    from cluinfer.build_graphs import Calibration

    assert isinstance(given, Calibration)
    if not given.images:
        raise CalibrationError("int8 wants images to calibrate on: cluinfer calibrate model.onnx FOLDER")
    given.check("int8")
    searched = given.bounds() is not None
    for option in ("plot", "engine"):
        if getattr(arguments, option) and not searched:
            raise CalibrationError(f"--{option} is for a search: give --min-agreement or --max-top1-drop")


def _run_half(arguments: argparse.Namespace) -> None:
    from cluinfer.calibration import to_half
    from cluinfer.commands.terminal import print_fields, print_json
    from cluinfer.export.onnx_file import read_onnx, write_onnx
    from cluinfer.export.source import output_path

    if arguments.images:
        raise CalibrationError("fp16 wants no images: nothing is calibrated for it")
    target = output_path(arguments.model, arguments.output, ".fp16.onnx")
    write_onnx(to_half(read_onnx(arguments.model)), target)
    if arguments.json:
        print_json({"path": str(target), "bytes": target.stat().st_size, "precision": "fp16"})
    else:
        print_fields([("wrote", f"{target}, {target.stat().st_size / 1e6:.1f} MB")])


def calibration_fields(made: Calibrated | None) -> list[Field]:
    """What was done and what is left, in a few lines."""
    if made is None:
        return []
    from cluinfer.fidelity import percent

    overall, int8 = made.kept.fidelity.overall, sum(choice.int8 for choice in made.choices)
    share = percent(made.int8_share)
    fields = [
        ("int8", f"{int8} of {len(made.choices)} layers, {share} of the work; calibrated on {made.calibrating} images")
    ]
    if made.kept.fidelity.maps:
        clear = overall.clear_agreement
        kept = f"{percent(overall.agreement)} of all points in the same cluster"
        kept += f", {percent(clear)} of those that were clear" if clear is not None else ""
        fields.append(("keeps", f"{kept}; {made.measured_on}"))
    if made.kept.top1_drop is not None:
        same, images = made.kept.fidelity.top1_same, made.kept.fidelity.images
        fields.append(
            ("", f"the likeliest class of {same} of {images}; top-1 should drop by {100 * made.kept.top1_drop:.2f} %")
        )
    if made.frontier and made.frontier.verdict():
        fields.append(("speed", made.frontier.verdict()))
    return fields


def print_choices(made: Calibrated) -> None:
    """Every layer, and what stays in float in any case."""
    from cluinfer.commands.terminal import print_table

    rows = [
        (
            each.layer.name,
            each.layer.role,
            f"{each.layer.macs / 1e6:.1f}",
            "int8" if each.int8 else "float",
            each.reason,
        )
        for each in made.choices
    ]
    print_table(("layer", "role", "million MACs", "", "why"), rows, text=(0, 1, 3, 4))
    print("cluster operators, norms, activations and sums stay in float: nothing is rounded twice\n")


def _print_agreement(made: Calibrated) -> None:
    from cluinfer.calibration.agreement import agreement_lines

    print("\n".join(agreement_lines(made.kept)), end="\n\n")


def _print_frontier(frontier: Frontier) -> None:
    from cluinfer.commands.terminal import print_table

    print_table(*frontier.table(), text=(0, 6))
    print()
