"""What `cluinfer build` takes for TensorRT alone, and what it does with --emit-only."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cluinfer.errors import EngineError


def add_tensorrt_options(parser: argparse.ArgumentParser) -> None:
    """Options that only --engine trt takes."""
    group = parser.add_argument_group("TensorRT")
    group.add_argument("--emit-only", action="store_true", help="prepare a folder to build from on another machine")
    group.add_argument("--target", metavar="sm_NN", help="with --emit-only: the GPU to prepare for, such as sm_90")
    group.add_argument("--no-plugins", action="store_true", help="standard operators instead of our kernels; slower")
    group.add_argument("--workspace", type=int, metavar="MIB", help="memory that a layer may use (the GPU's)")
    group.add_argument("--version-compatible", action="store_true", help="an engine for later TensorRTs, too")
    group.add_argument("--hardware-compatible", action="store_true", help="an engine for later GPUs, too")


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("emit_only", "target", "no_plugins", "workspace", "version_compatible", "hardware_compatible")
        if getattr(arguments, name)
    ]
    if given and arguments.engine != "trt":
        raise EngineError(f"{given[0]} is for --engine trt, got --engine {arguments.engine:.60}")
    if ":" in arguments.batch and arguments.engine != "trt":
        raise EngineError(f"--batch {arguments.batch:.60} is for --engine trt; other engines take one number")
    if arguments.emit_only and not (arguments.target and arguments.output):
        raise EngineError("--emit-only needs --target, such as sm_90, and -o FOLDER")
    if arguments.target and not arguments.emit_only:
        raise EngineError("--target is for --emit-only; without it, the engine is built for the GPU that is here")


def run_emit(arguments: argparse.Namespace, source_options: dict[str, Any]) -> None:
    """Write the folder, and say what is in it and what to do with it."""
    from cluinfer.build_graphs import Calibration
    from cluinfer.commands.calibrate import calibration_fields, print_choices
    from cluinfer.commands.terminal import print_fields, print_json, progress, warnings_as_lines
    from cluinfer.commands.texts import fidelity_line
    from cluinfer.emit import COMMAND, emit
    from cluinfer.engines.trt.settings import parse_batch

    batch, profile = parse_batch(arguments.batch)
    saved = Path(f"{arguments.output}.calibration")
    calibration = Calibration(arguments.calibration, arguments.min_agreement, arguments.max_top1_drop, saved)
    with progress() as step, warnings_as_lines():
        emitted = emit(
            arguments.model,
            arguments.output,
            target=arguments.target,
            precision=arguments.precision,
            plugins=not arguments.no_plugins,
            profile=profile or (1, batch, batch),
            source_options=source_options,
            calibration=calibration,
            progress=step,
        )
    command = f"cluinfer build {emitted.path.name} -o model.clu"
    if arguments.json:
        fields = ("target", "precision", "plugins", "profile", "files")
        held = {name: getattr(emitted, name) for name in fields}
        kept = {name: getattr(emitted, name) for name in ("calibrated", "fidelity")}
        told = {name: each and each.to_dict() for name, each in kept.items()}
        print_json({"path": str(emitted.path), **held, **told, "command": command})
        return
    if arguments.explain and emitted.calibrated:
        print_choices(emitted.calibrated)
    how = f"{len(emitted.kernels)} kernels, TensorRT 10.9 or later" if emitted.plugins else "TensorRT 8.6 or later"
    print_fields(
        [
            ("wrote", str(emitted.path)),
            ("for", f"{emitted.target}, {emitted.precision}, batch {':'.join(map(str, emitted.profile))}"),
            ("operators", f"{'plugins' if emitted.plugins else 'standard'}: {how}"),
            *calibration_fields(emitted.calibrated),
            *([("fidelity", fidelity_line(emitted.fidelity.to_dict()))] if emitted.fidelity else []),
            ("on the target", f"{command}  (also in {COMMAND})"),
        ]
    )


def run_emitted(arguments: argparse.Namespace) -> None:
    """Build from a folder, and say what came out."""
    from cluinfer.build_emitted import build_emitted
    from cluinfer.commands.terminal import print_fields, print_json, progress, warnings_as_lines
    from cluinfer.commands.texts import latency_line

    if arguments.engine not in ("auto", "trt") or arguments.emit_only:
        raise EngineError(f"{arguments.model}: a folder is built into an artifact by --engine trt, and by nothing else")
    with progress() as step, warnings_as_lines():
        made = build_emitted(
            arguments.model,
            arguments.output,
            workspace=arguments.workspace,
            version_compatible=arguments.version_compatible,
            hardware_compatible=arguments.hardware_compatible,
            hint=arguments.hint,
            progress=step,
        )
    if arguments.json:
        print_json(made)
        return
    print_fields(
        [
            ("wrote", f"{made['path']}, {made['bytes'] / 1e6:.1f} MB"),
            ("engine", f"trt {made['precision']}, {'plugins' if made['plugins'] else 'standard operators'}"),
            ("built for", f"batch {':'.join(map(str, made['profile']))}"),
            ("latency", latency_line(made["latency_ms"], made["batch"], None)),
            ("fidelity", "not measured: cluinfer verify, where the checkpoint is"),
        ]
    )
