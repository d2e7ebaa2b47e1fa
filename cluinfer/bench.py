"""How fast a model is: latency, throughput, cold start and memory, with whatever is needed to repeat the measurement.

Rules:
- A run is from the tensor to the arrays; `cluinfer.timing` says how runs are counted and taken in turns.
- The coefficient of variation tells a quiet machine from a busy one; above 2.5 % a warning says so.
- Cold start, load time and peak memory are those of fresh processes, `cluinfer.cold_start`.
- The record says what ran, where and how: models by their hash, versions, machine, threads, precision, shapes, load.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from cluinfer.artifact import Artifact, read_artifact
from cluinfer.cold_start import Start, example_feeds, measure_starts
from cluinfer.engines import Options, Session, choose_engine, get_engine
from cluinfer.engines.hardware import cores
from cluinfer.errors import CluinferError
from cluinfer.loading import engine_for, load, options_for
from cluinfer.timing import Plan, Statistics, statistics, take_turns

DEFAULT = Plan()
STAGED = 50  # runs that are taken apart, after those that are timed as a whole
BUSY = 0.025  # coefficient of variation above which the machine was not quiet


@dataclass(frozen=True)
class Result:
    """One model in one setting."""

    model: str
    batch: int
    streams: int
    latency: Statistics  # of one call, whatever its batch
    images_per_second: float
    stages: Mapping[str, float] = field(default_factory=dict)  # medians, in seconds; of engines that can tell
    notes: Mapping[str, str] = field(default_factory=dict)  # how it ran

    @property
    def setting(self) -> str:
        """In words."""
        return f"batch {self.batch}, streams {self.streams}"

    def to_dict(self, first: Result) -> dict[str, Any]:
        """For JSON; ratios are to the first model in the same setting: above 1 is slower, or more images."""
        return {
            "model": self.model,
            "batch": self.batch,
            "streams": self.streams,
            "latency_ms": self.latency.to_dict(),
            "images_per_second": self.images_per_second,
            "stages_ms": {name: seconds * 1e3 for name, seconds in self.stages.items()},
            "notes": dict(self.notes),
            "ratio": {
                "median": self.latency.median / first.latency.median,
                "min": self.latency.min / first.latency.min,
                "images_per_second": self.images_per_second / first.images_per_second,
            },
        }


@dataclass(frozen=True)
class Bench:
    """What was measured, of which models, where and how."""

    results: tuple[Result, ...]
    models: Mapping[str, Mapping[str, Any]]  # by name: file, engine, precision, shapes ...
    starts: Mapping[str, Sequence[Start]]
    conditions: Mapping[str, Any]  # versions, machine, threads, plan, load

    @property
    def first(self) -> str:
        """The model that ratios are to."""
        return self.results[0].model

    def beside(self, result: Result) -> Result:
        """The first model in the same setting."""
        same = (result.batch, result.streams)
        return next(r for r in self.results if r.model == self.first and (r.batch, r.streams) == same)

    @property
    def warnings(self) -> list[str]:
        """What makes the numbers doubtful."""
        busy = [each for each in self.results if each.latency.variation > BUSY]
        if not busy:
            return []
        worst = max(busy, key=lambda each: each.latency.variation)
        return [
            f"the machine was not quiet: the runs of {len(busy)} of {len(self.results)} measurements vary by more than "
            f"{BUSY:.1%}, those of {worst.model} at {worst.setting} by {worst.latency.variation:.1%}; "
            "compare minima and ratios only"
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "conditions": dict(self.conditions),
            "models": {
                name: {**held, "starts": [asdict(start) for start in self.starts.get(name, ())]}
                for name, held in self.models.items()
            },
            "results": [each.to_dict(self.beside(each)) for each in self.results],
            "warnings": self.warnings,
        }


class Contestant:
    """A model to be measured: an artifact as it was built, or an ONNX file compiled in fp32."""

    def __init__(self, name: str, path: Path, engine: str | None, threads: int | None) -> None:
        self.name, self.path = name, path
        self.artifact: Artifact | None = None
        self._blobs: dict[int, bytes] = {}
        if path.suffix == ".clu":
            self.artifact = read_artifact(path)
            self.compiler, self.graph = engine_for(self.artifact, None), self.artifact.graph()
            self.options = options_for(self.artifact, threads, None, None)
        elif path.suffix == ".onnx" and path.is_file():
            self.compiler, self.graph = get_engine(engine or choose_engine().name), path.read_bytes()
            self.options = Options(threads=threads)
        else:
            found = "another file" if path.is_file() else "a folder" if path.is_dir() else "nothing"
            raise CluinferError(f"{path}: wanted an artifact (.clu) or an ONNX file (.onnx), found {found}")

    def open(self, batch: int, streams: int) -> Session:
        """Ready to run; an artifact's graph is compiled anew for any batch but its own."""
        options = replace(self.options, batch=batch, streams=streams)
        if self.artifact and batch == self.options.batch:
            return load(self.artifact, self.compiler, options)
        if batch not in self._blobs:
            self._blobs[batch] = self.compiler.compile(self.graph, options)
        return self.compiler.load(self._blobs[batch], options)

    def describe(self, session: Session) -> dict[str, Any]:
        """What it is, for the record."""
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            "engine": self.compiler.name,
            "precision": self.options.precision,
            "hint": self.options.hint,
            "inputs": {name: str(each) for name, each in session.inputs.items()},
            "outputs": list(session.outputs),
            "built": asdict(self.artifact.manifest.built) if self.artifact else None,
        }


def bench(
    model: str | Path,
    against: Sequence[str | Path] = (),
    *,
    batches: Sequence[int] = (),
    streams: Sequence[int] = (1,),
    threads: int | None = None,
    engine: str | None = None,
    plan: Plan = DEFAULT,
    starts: int = 3,
    progress: Callable[[str], None] = lambda step: None,
) -> Bench:
    """Measure a model, alone or in turns with others, in every combination of batches and streams.

    `model` and `against`: artifacts or ONNX files; `engine` compiles the latter, by default that of `model`. `batches`:
    by default the one that `model` was built for; for any other its graph is compiled anew. `starts`: of how many fresh
    processes cold start, load time and peak memory are measured.
    """
    load_before = _load_average()
    contestants: list[Contestant] = []
    for name, path in _named([model, *against]).items():
        first_engine = contestants[0].compiler.name if contestants else None
        contestants.append(Contestant(name, path, engine or first_engine, threads))
    first = contestants[0]
    results: list[Result] = []
    models: dict[str, dict[str, Any]] = {}
    for batch in batches or (first.options.batch,):
        for count in streams:
            progress(f"measuring batch {batch}, streams {count}")
            with ExitStack() as opened:
                sessions = {each.name: opened.enter_context(each.open(batch, count)) for each in contestants}
                if not models:
                    models = {each.name: each.describe(sessions[each.name]) for each in contestants}
                results += _measure(sessions, batch, count, plan)
    begun: dict[str, list[Start]] = {}
    for each in contestants if starts else ():
        progress(f"starting {each.name} in fresh processes")
        begun[each.name] = measure_starts(starts, each.path, each.compiler.name, each.options)
    conditions = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": first.compiler.machine(),
        "cores": cores(),
        "versions": {name: version for each in contestants for name, version in each.compiler.versions().items()},
        "threads": threads,
        "plan": asdict(plan),
        "load_average": {"before": load_before, "after": _load_average()},
    }
    return Bench(tuple(results), models, begun, conditions)


def _measure(sessions: Mapping[str, Session], batch: int, streams: int, plan: Plan) -> list[Result]:
    """All models in one setting."""
    runs = {name: partial(session.run, example_feeds(session, batch)) for name, session in sessions.items()}
    return [
        Result(
            *(name, batch, streams, statistics(each.seconds), batch * len(each.seconds) / each.wall),
            *(_stages(sessions[name], batch), sessions[name].notes()),
        )
        for name, each in take_turns(runs, plan, streams).items()
    ]


def _stages(session: Session, batch: int) -> dict[str, float]:
    """The median of each stage."""
    feeds = example_feeds(session, batch)
    first = session.stages(feeds)
    runs = [session.stages(feeds) for _ in range(STAGED if first else 0)]
    return {name: median(run[name] for run in runs) for name in first}


def _named(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Each file by its name, by its path where several have one name, and numbered where it comes twice."""
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    named: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        again = 1 + sum(Path(path) == before for before in named.values())
        named[name if name not in named else f"{name} ({again})"] = Path(path)
    return named


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
