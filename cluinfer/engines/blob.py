"""The outside of a compiled graph: a line of JSON that says what made it and for what, then the engine's own bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluinfer.engines.base import Options
from cluinfer.errors import EngineError, one_line

_MAGIC = b"cluinfer %s 1 "


def seal(engine: str, head: Mapping[str, Any], content: bytes) -> bytes:
    """The blob."""
    return _MAGIC % engine.encode() + json.dumps(head, separators=(",", ":")).encode() + b"\n" + content


def unseal(engine: str, blob: bytes, kinds: Mapping[str, type]) -> tuple[dict[str, Any], bytes]:
    """The head, whose fields are of these kinds, and the content; `engine` as in `seal`."""
    line, _, content = blob.partition(b"\n")
    magic = _MAGIC % engine.encode()
    try:
        if not line.startswith(magic):
            raise ValueError("no cluinfer header")
        head = json.loads(line[len(magic) :])
        if not isinstance(head, dict) or not all(isinstance(head.get(name), kind) for name, kind in kinds.items()):
            raise ValueError("fields are missing")
    except (ValueError, RecursionError) as error:
        raise EngineError(f"this is not a graph compiled by the {engine} engine ({error}): compile it again") from error
    return head, content


def check_made_for(head: Mapping[str, Any], options: Options) -> None:
    """Refuse to load what was compiled for another precision or batch."""
    for name in ("precision", "batch"):
        if head[name] != getattr(options, name):
            made, wanted = one_line(str(head[name]), 60), getattr(options, name)
            raise EngineError(f"compiled for {name} {made}, {wanted} is wanted: compile it again")
