"""What several commands tell a person of a model: what it shows, how faithful and how fast it was found to be.

Fidelity and latency come from an artifact's manifest, where any JSON may stand: what is not there is not told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluinfer.fidelity import percent
from cluinfer.graph import ClusterOutput, Promise

Field = tuple[str, str]


def promise_fields(promise: Promise) -> list[Field]:
    """What goes in and what comes out."""
    height, width = promise.size
    classes = "a backbone" if promise.classes is None else f"{promise.classes} classes"
    similarities = "; with similarities" if promise.similarities else ""
    fields = [
        ("model", f"{promise.arch}, {classes}{', named' if promise.names else ''}"),
        (
            "pictures",
            f"{width}x{height}, {promise.preprocess.interpolation}, the middle {percent(promise.preprocess.crop)}",
        ),
        ("maps", (", ".join(map_name(each) for each in promise.maps) or "none") + similarities),
    ]
    if promise.evidence:
        fields.append(("evidence", f"for the {count(promise.evidence, 'likeliest class', 'likeliest classes')}"))
    if promise.attention:
        fields.append(("attention", f"for {count(promise.attention, 'class', 'classes')}"))
    return fields


def map_name(each: ClusterOutput) -> str:
    """The short name, or the layer's where it has none."""
    return each.alias or each.layer


def fidelity_line(found: Mapping[str, Any]) -> str:
    """The comparison in a line."""
    parts = []
    images, top1 = found.get("images"), found.get("top1_same")
    if isinstance(images, int) and isinstance(top1, int):
        parts.append(f"likeliest class the same for {top1} of {images}")
    overall = found.get("overall")
    if isinstance(overall, Mapping) and overall.get("points") and isinstance(overall.get("agreement"), float):
        parts.append(f"{percent(overall['agreement'])} of the points in the same cluster")
    logits = (found.get("numbers") or {}).get("logits") if isinstance(found.get("numbers"), Mapping) else None
    if isinstance(logits, Mapping) and isinstance(logits.get("max_error"), float):
        parts.append(f"logits off by at most {logits['max_error']:.1e} of their deviation")
    return "; ".join(parts) or "not known"


def latency_line(latency: Mapping[str, Any], batch: int, threads: int | None) -> str:
    """A short measurement, and that it is one."""
    values = [latency.get(name) for name in ("median", "p95", "runs")]
    if not all(isinstance(value, int | float) for value in values):
        return "not known"
    median, p95, runs = values
    each = "" if batch == 1 else f" for {batch} pictures"
    setting = count(threads, "thread") if threads else "threads as the engine chooses"
    return f"median {median:.2f} ms{each}, p95 {p95:.2f}, of {runs} runs after warming up, {setting}"


def plain(text: str) -> str:
    """Names come from anyone: nothing in them moves the cursor or paints."""
    return text if text.isprintable() else repr(text)


def count(number: int, one: str, several: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def pairs(sides: Sequence[int]) -> str:
    """Sides as in 7x7."""
    return "x".join(map(str, sides))
