"""How fast the graphs of a frontier are in an engine, in turns with fp32 and, where the CPU has it, bf16."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial, reduce
from operator import add

import numpy as np

from cluinfer.calibration.agreement import Kept, Measure
from cluinfer.calibration.frontier import Frontier, Point
from cluinfer.calibration.subject import Progress, Subject
from cluinfer.engines import Engine, Options, Session
from cluinfer.errors import EngineError
from cluinfer.fidelity import compare
from cluinfer.graph import INPUT
from cluinfer.timing import Plan, statistics, take_turns

PLAN = Plan(warm_up=0.3, seconds=4, runs=60)
BESIDE = ("fp32", "bf16")


def time_frontier(
    frontier: Frontier, engine: Engine, options: Options, subject: Subject, measure: Measure, progress: Progress
) -> Frontier:
    """The same, with latencies; what bf16 keeps is measured in the engine, against fp32 there, in the maps it gives."""
    with ExitStack() as opened:
        sessions: dict[str, Session] = {}
        graphs = {each.name: (each.graph or subject.graph, "int8") for each in frontier.points}
        graphs |= {name: (subject.graph, name) for name in BESIDE if name in engine.precisions}
        for name, (graph, precision) in graphs.items():
            progress(f"compiling for {engine.name}, {name}")
            with_it = replace(options, precision=precision)
            try:
                blob = engine.compile(graph.SerializeToString(), with_it)
                sessions[name] = opened.enter_context(engine.load(blob, with_it))
            except EngineError:
                if precision != "bf16":  # which not every CPU computes in
                    raise
        progress(f"timing {len(sessions)} graphs in {engine.name}")
        feeds = {INPUT: np.zeros((options.batch, 3, *subject.promise.size), np.float32)}
        taken = take_turns({name: partial(session.run, feeds) for name, session in sessions.items()}, PLAN)
        latencies = {name: statistics(each.seconds) for name, each in taken.items()}
        others = [
            Point(name, (), 0.0, _kept(sessions["fp32"], sessions[name], measure), latency=latencies[name])
            for name in BESIDE
            if name in sessions
        ]
    points = tuple(replace(each, latency=latencies.get(each.name)) for each in frontier.points)
    return replace(frontier, points=points, engine=engine.name, others=tuple(others))


def _kept(reference: Session, candidate: Session, measure: Measure) -> Kept:
    parts = [compare(reference.run({INPUT: x}), candidate.run({INPUT: x})) for x in measure.images()]
    return Kept(reduce(add, parts), None)
