"""A checkpoint becomes an artifact: the one place where the build side and the target side meet.

Rules:
- What goes in: a checkpoint, a torch.export program (.pt2), or an ONNX graph that `cluinfer export` wrote.
- What comes out is held against the checkpoint in PyTorch, on real pictures if there are some, else on smooth noise. A
  program or a graph has no checkpoint: there the graph itself, in ONNX Runtime in float32, is the reference.
- Precision "auto" compiles every precision that the engine has and takes the fastest that keeps what the model sees:
  the likeliest class of every picture, and 98 % of the points of all cluster maps together. Else it is fp32. int8 is
  among them if there are images to calibrate on. The graph in the artifact is that of the precision that was taken.
- Nothing is written before all of this has worked, and then in one step: a build that ends early leaves nothing, except
  what a calibration has seen so far, from where the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluinfer.artifact import Built, write_artifact
from cluinfer.build_graphs import AUTO, NO_IMAGES, Calibration, Made, make_graph
from cluinfer.engines import ENGINES, Array, Choice, Engine, Options, Session, choose_engine, get_engine
from cluinfer.engines.quantized import INT8, is_quantized
from cluinfer.errors import ArtifactError, CalibrationError, EngineError, GraphError, PictureError
from cluinfer.fidelity import Fidelity, percent
from cluinfer.graph import INPUT, Promise
from cluinfer.preprocess import Picture
from cluinfer.timing import Plan, Statistics, statistics, take_turns

if TYPE_CHECKING:
    from cluinfer.calibration import Calibrated
    from cluinfer.export.source import Source

PRECISIONS = ("fp32", "bf16", "fp16", "int8", AUTO)
WORTH = 1.05  # how many times faster than fp32 a precision must be: less is within what a short measurement is off by
TOP1, AGREEMENT = 1.0, 0.98  # what a precision must keep: of the pictures' likeliest classes, of all maps' points
PICTURES, NOISE = 64, 16  # how many are compared: of those given, evenly chosen, or made
BATCH = 8  # images compared at once
LATENCY = Plan(warm_up=0.5, seconds=5, runs=60)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tried:
    """One precision: what it came to, or why it was not taken."""

    precision: str
    latency: Statistics | None = None
    fidelity: Fidelity | None = None
    reason: str = ""  # why it was not taken
    blob: bytes = field(default=b"", repr=False)
    made: Made | None = field(default=None, repr=False)  # the graph

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "precision": self.precision,
            "latency_ms": self.latency and self.latency.to_dict(),
            "fidelity": self.fidelity and self.fidelity.to_dict(),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Summary:
    """What was built, and what it was found to be."""

    path: Path
    promise: Promise
    built: Built
    why: str  # this engine
    tried: tuple[Tried, ...]
    reference: str  # what it was compared with
    images: str  # on what
    threads: int | None = None
    failures: tuple[str, ...] = field(default=())  # what is worse than it may be

    @property
    def taken(self) -> Tried:
        """The precision that was built."""
        return next(each for each in self.tried if each.precision == self.built.precision)

    @property
    def calibrated(self) -> Calibrated | None:
        """What calibration made, if int8 was tried."""
        return next((each.made.calibrated for each in self.tried if each.made and each.made.calibrated), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "arch": self.promise.arch,
            "engine": self.built.engine,
            "precision": self.built.precision,
            "batch": self.built.batch,
            "hint": self.built.hint,
            "threads": self.threads,
            "why": self.why,
            "reference": self.reference,
            "images": self.images,
            "tried": [each.to_dict() for each in self.tried],
            "calibration": self.calibrated and self.calibrated.to_dict(),
            "failures": list(self.failures),
        }


def build(
    model: str | Path,
    output: str | Path | None = None,
    *,
    engine: str = AUTO,
    precision: str = "fp32",
    arch: str | None = None,
    settings: Mapping[str, object] | None = None,
    size: int | str | tuple[int, int] | None = None,
    maps: str | Sequence[str] | None = None,
    evidence: int | None = None,
    attention: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    similarities: bool = False,
    pictures: Sequence[Picture] = (),
    calibration: Sequence[Picture] = (),
    min_agreement: float | None = None,
    max_top1_drop: float | None = None,
    batch: int = 1,
    hint: str = "latency",
    threads: int | None = None,
    own: object = None,
    progress: Progress = lambda step: None,
) -> Summary:
    """Build an artifact and say what it is; by default model.clu beside the model.

    `engine`: auto, trt, openvino, ort. `precision`: fp32, bf16, fp16, int8, auto. `arch` and `settings` (grid, fold,
    heads) as for `load_model`; `size`, `maps`, `evidence`, `attention`, `classes` (names) and `similarities` as for
    `to_onnx`: none of them for an ONNX graph, which has them in it. `pictures`: to compare on. `calibration`: pictures,
    folders of them, or arrays as .npy, for int8; with `min_agreement` or `max_top1_drop`, as many layers are in int8 as
    keep these. `own`: as in Options.
    """
    from cluinfer.export.source import output_path, read_source

    _check_precision(precision, model, calibration)
    name, why = _engine(engine)
    target = output_path(model, output, ".clu")
    if target.suffix != ".clu":
        raise ArtifactError(f"-o {target}: wanted a name ending in .clu")
    options = Options(hint=hint, threads=threads, batch=batch, own=own)
    to_calibrate = Calibration(
        calibration, min_agreement, max_top1_drop, target.with_name(f"{target.name}.calibration")
    )
    to_calibrate.check(precision)
    for each in pictures:
        if isinstance(each, str | Path) and not Path(each).is_file():
            raise PictureError(f"--pictures {each}: wanted a picture or a folder of them, found nothing")
    source = read_source(model, arch, settings, size, maps, evidence, attention, classes, similarities, progress)
    images, what = _images(source.promise, pictures, calibration)
    tried = _try(get_engine(name), precision, source, to_calibrate, options, images, what, progress)
    rows, taken = _choose(tried)
    if INT8 not in {each.precision for each in rows} and precision == AUTO and INT8 in get_engine(name).precisions:
        rows += (Tried(INT8, reason=f"not tried: {NO_IMAGES}"),)
    progress(f"writing {target}")
    built = _built(get_engine(name), replace(options, precision=taken.precision))
    assert taken.fidelity is not None and taken.latency is not None and taken.made is not None
    calibrated = taken.made.calibrated
    measured = {
        **taken.fidelity.to_dict(),
        "reference": source.name,
        "pictures": what,
        "latency_ms": taken.latency.to_dict(),
        "threads": threads,
        **({"calibration": calibrated.to_dict()} if calibrated else {}),
    }
    write_artifact(target, taken.made.content, taken.blob, source.promise, built, measured)
    return Summary(target, source.promise, built, why, rows, source.name, what, threads, _failures(taken))


def _check_precision(precision: str, model: str | Path, calibration: Sequence[Picture]) -> None:
    if precision not in PRECISIONS:
        raise EngineError(f"there is no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    if precision == INT8 and not calibration and Path(model).suffix != ".onnx":  # which may be calibrated already
        raise EngineError(NO_IMAGES)


def _engine(name: str) -> Choice:
    """The engine, which works here, and why it is this one."""
    if name == AUTO:
        return choose_engine()
    if name not in ENGINES:
        raise EngineError(f"there is no engine {name!r}; there are: {', '.join((AUTO, *ENGINES))}")
    try:
        get_engine(name).check()
    except EngineError as error:
        if name != "trt":
            raise
        raise EngineError(
            f"{error}: build there, or prepare here with --emit-only, or choose another engine"
        ) from error
    return Choice(name, "as asked for")


def _images(promise: Promise, pictures: Sequence[Picture], calibrating: Sequence[Picture] = ()) -> tuple[Array, str]:
    """What to compare on, float32 [N, 3, H, W], and what that is: of many pictures some, evenly chosen.

    Without any, those that calibration holds back, and without these, noise.
    """
    from cluinfer.export.images import prepare_pictures, synthetic_images

    if not pictures and calibrating:
        from cluinfer.calibration.data import split

        found = split(calibrating, promise)
        if found.held_back.usable:
            held = list(islice(found.held_back, PICTURES))
            return np.stack(held), f"{len(held)} images {'of' if found.shared else 'held back from'} the calibration"
    if not pictures:
        return synthetic_images(NOISE, promise.size), f"{NOISE} images of smooth noise"
    count = min(len(pictures), PICTURES)
    images = prepare_pictures([pictures[i * len(pictures) // count] for i in range(count)], promise)
    of = f" of {len(pictures)}" if len(pictures) > len(images) else ""
    return images, f"{len(images)}{of} picture{'s' * (len(pictures) > 1)}"


def _try(
    engine: Engine,
    precision: str,
    source: Source,
    calibration: Calibration,
    options: Options,
    images: Array,
    what: str,
    progress: Progress,
) -> list[Tried]:
    """This precision, or for auto each that the engine has, fp32 first: compiled, timed in turns, compared."""
    wanted = _wanted(engine, precision, source, calibration)
    blobs: dict[str, bytes] = {}
    made: dict[str, Made] = {}
    refused: dict[str, str] = {}
    with ExitStack() as opened:
        sessions: dict[str, Session] = {}
        for each in wanted:
            with_it = replace(options, precision=each)
            try:
                made[each] = make_graph(each, source, calibration, engine, options, progress)
                progress(f"compiling for {engine.name} in {each}")
                blobs[each] = engine.compile(made[each].content, with_it)
                sessions[each] = opened.enter_context(engine.load(blobs[each], with_it))
            except (EngineError, CalibrationError, GraphError) as error:
                if each == wanted[0]:
                    raise
                refused[each] = str(error)
        progress("measuring the latency")
        latencies = _latencies(sessions, source.promise, options.batch)
        tried = []
        for each in wanted:
            if each in refused:
                tried.append(Tried(each, reason=refused[each]))
                continue
            progress(f"comparing {each} with {source.name} on {what}")
            fidelity = _compare(sessions[each], source, images)
            tried.append(Tried(each, latencies[each], fidelity, blob=blobs[each], made=made[each]))
    return tried


def _wanted(engine: Engine, precision: str, source: Source, calibration: Calibration) -> list[str]:
    """The precisions to try, fp32 first."""
    if precision != AUTO:
        return [precision]
    if is_quantized(source.content):
        return [INT8]
    known = [each for each in PRECISIONS if each in engine.precisions]
    return known if calibration.images else [each for each in known if each != INT8]


def _latencies(sessions: Mapping[str, Session], promise: Promise, batch: int) -> dict[str, Statistics]:
    """Of one call each, in turns."""
    feeds = {INPUT: np.zeros((batch, 3, *promise.size), np.float32)}
    taken = take_turns({name: partial(session.run, feeds) for name, session in sessions.items()}, LATENCY)
    return {name: statistics(each.seconds) for name, each in taken.items()}


def _compare(session: Session, source: Source, images: Array) -> Fidelity:
    from cluinfer.export.verify import measure

    feeds = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return measure(lambda batch: session.run({INPUT: batch}), source.reference, feeds)


def _built(engine: Engine, options: Options) -> Built:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    built_for = (engine.name, options.precision, options.hint, options.batch)
    return Built(*built_for, engine.versions(), engine.machine(), now)


def _choose(tried: Sequence[Tried]) -> tuple[tuple[Tried, ...], Tried]:
    """The fastest that keeps what the model sees; fp32, the first, where no other is faster beyond doubt."""
    first = tried[0]
    rows = [first, *(replace(each, reason=each.reason or "; ".join(_lost(each.fidelity))) for each in tried[1:])]
    taken = min((each for each in rows if not each.reason), key=_median)
    if _median(taken) * WORTH > _median(first):
        taken = first
    for i, each in enumerate(rows):
        if each is not taken and not each.reason:
            doubtful = f"less than {percent(WORTH - 1)} faster than {taken.precision}"
            reason = f"slower than {taken.precision}" if _median(each) >= _median(taken) else doubtful
            rows[i] = replace(each, reason=reason)
    return tuple(rows), taken


def _median(each: Tried) -> float:
    assert each.latency is not None  # of what has run
    return each.latency.median


def _lost(fidelity: Fidelity | None) -> list[str]:
    """What a precision below fp32 does not keep."""
    if fidelity is None or (fidelity.top1_same is None and not fidelity.maps):
        return ["the graph gives neither logits nor maps to judge it by"]
    lost = []
    if fidelity.top1_same is not None and fidelity.top1_same < TOP1 * fidelity.images:
        lost.append(f"the likeliest class is the same for only {fidelity.top1_same} of {fidelity.images}")
    if not fidelity.overall.agreement >= AGREEMENT:
        lost.append(f"only {percent(fidelity.overall.agreement)} of the points are in the same cluster")
    return lost


def _failures(taken: Tried) -> tuple[str, ...]:
    """What is worse than it should be in what is written all the same."""
    if taken.fidelity is None:
        return ()
    return tuple(taken.fidelity.failures() if taken.precision == "fp32" else _lost(taken.fidelity))
