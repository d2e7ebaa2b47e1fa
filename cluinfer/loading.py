"""From an artifact to a session: the compiled graph where it fits this machine, else the graph compiled anew.

What comes out gives what the manifest promises: one image of the promised size in, the promised outputs.
"""

from __future__ import annotations

import warnings

from cluinfer.artifact import Artifact
from cluinfer.engines import Engine, Options, Session, get_engine
from cluinfer.errors import ArtifactError, CluinferError, EngineError, EngineWarning, one_line
from cluinfer.graph import INPUT

DEVICES = ("CPU", "GPU")


def options_for(artifact: Artifact, threads: int | None, streams: int | None, hint: str | None) -> Options:
    """As the engine was compiled, with these threads, streams and hint."""
    built = artifact.manifest.built
    return Options(built.precision, hint or built.hint, threads, streams, built.batch)


def engine_for(artifact: Artifact, device: str | None) -> Engine:
    """The engine that the artifact was built for, if it works here and on this device."""
    try:
        engine = get_engine(artifact.manifest.built.engine)
    except EngineError as error:
        raise EngineError(f"{artifact.path}: {error}; update cluinfer, or build it for one of these") from error
    if device is not None and device.upper() not in DEVICES:
        raise EngineError(f"device must be {' or '.join(DEVICES)}, got {device!r:.60}")
    if device is not None and device.upper() != engine.device:
        where = f"{artifact.path}: built for {engine.name}, which runs on the {engine.device}"
        raise EngineError(f"{where}, not on the {device.upper()}: build it with another --engine")
    engine.check()
    return engine


def load(artifact: Artifact, engine: Engine, options: Options) -> Session:
    """The session; a warning where the graph had to be compiled anew because the compiled one does not fit."""
    blob, built = artifact.engine(), artifact.manifest.built
    session: Session | None = None
    reason = "" if blob is None else engine.misfit(built.versions, built.machine)
    if blob is not None and not reason:
        try:
            session = engine.load(blob, options)
        except EngineError as error:
            reason = str(error)
    if session is None:
        session = _compile(artifact, engine, options if blob is None else engine.as_compiled(blob, options), reason)
    try:
        _check(artifact, session)
    except ArtifactError:
        session.close()
        raise
    return session


def _compile(artifact: Artifact, engine: Engine, options: Options, reason: str) -> Session:
    if reason:
        warnings.warn(
            f"{artifact.path}: its engine does not fit here ({reason}); the graph is compiled anew, every time: "
            "build it on this machine",
            EngineWarning,
            stacklevel=5,
        )
    try:
        return engine.load(engine.compile(artifact.graph(), options), options)
    except CluinferError as error:
        why = f"its engine does not fit here ({reason}), and " if reason else ""
        raise type(error)(f"{artifact.path}: {why}its graph cannot be compiled here: {error}") from error


def _check(artifact: Artifact, session: Session) -> None:
    promise = artifact.manifest.promise
    taken = {name: (each.dtype, each.shape) for name, each in session.inputs.items()}
    fits = taken.keys() == {INPUT} and all(
        side in (None, wanted) for side, wanted in zip(taken[INPUT][1][1:], (3, *promise.size), strict=False)
    )
    if not fits or taken[INPUT][0] != "float32" or len(taken[INPUT][1]) != 4:
        text = ", ".join(f"{name} {each}" for name, each in session.inputs.items()) or "nothing"
        wanted = f"{INPUT} float32 [?, 3, {promise.size[0]}, {promise.size[1]}]"
        raise ArtifactError(f"{artifact.path}: its engine takes {one_line(text, 200)}, the manifest says {wanted}")
    if set(session.outputs) != set(promise.outputs):
        given, wanted = (one_line(", ".join(names), 200) for names in (session.outputs, promise.outputs))
        raise ArtifactError(f"{artifact.path}: its engine gives {given}, the manifest says {wanted}")
