"""`cluinfer inspect`: what an artifact is, shown to a person."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluinfer.artifact import Artifact

HELP = "show what an artifact is, what it was built for, and what it was measured to be"


def declare(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("model", help="an artifact, a .clu file")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def run(arguments: argparse.Namespace) -> None:
    """Read it, checking all of it, and show it."""
    from cluinfer.artifact import read_artifact
    from cluinfer.commands.terminal import print_json

    artifact = read_artifact(arguments.model)
    if arguments.json:
        print_json(_as_json(artifact))
    else:
        _print(artifact)


def _as_json(artifact: Artifact) -> dict[str, Any]:
    """The manifest as it is, with what the file system and the promise say besides."""
    import json

    manifest = artifact.manifest
    return {
        "path": str(artifact.path),
        "bytes": artifact.path.stat().st_size,
        "outputs": list(manifest.promise.outputs),
        **json.loads(manifest.to_json()),
    }


def _print(artifact: Artifact) -> None:
    from cluinfer.commands.terminal import print_fields, print_table
    from cluinfer.commands.texts import fidelity_line, latency_line, map_name, pairs, promise_fields

    manifest = artifact.manifest
    built, fidelity = manifest.built, manifest.fidelity or {}
    latency, threads = fidelity.get("latency_ms"), fidelity.get("threads")
    fields = [
        ("artifact", f"{artifact.path}, {artifact.path.stat().st_size / 1e6:.1f} MB"),
        *promise_fields(manifest.promise),
        ("engine", f"{built.engine}, {built.precision}, batch {built.batch}, {built.hint}"),
        ("built", f"{built.created} on {', '.join(built.machine.values())}"),
        ("with", ", ".join(f"{name} {version}" for name, version in built.versions.items())),
        ("fidelity", fidelity_line(fidelity)),
    ]
    if fidelity.get("reference") and fidelity.get("pictures"):
        fields.append(("", f"against {fidelity['reference']}, on {fidelity['pictures']}"))
    if isinstance(latency, dict):
        fields.append(("latency", latency_line(latency, built.batch, threads if isinstance(threads, int) else None)))
    fields += [
        ("entries" if i == 0 else "", f"{name}, {entry.bytes / 1e6:.1f} MB, sha256 {entry.sha256[:16]}...")
        for i, (name, entry) in enumerate(manifest.entries.items())
    ]
    print_fields(fields)
    if manifest.promise.maps:
        print()
        rows = [
            (map_name(each), each.layer, pairs(each.size), str(each.heads), pairs(each.grid), pairs(each.fold))
            for each in manifest.promise.maps
        ]
        print_table(("map", "layer", "points", "heads", "centres a region", "regions"), rows, text=(0, 1))
