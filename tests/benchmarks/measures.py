# SPDX-License-Identifier: Apache-2.0
"""The harness: what can be measured of a case, and how."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp

from . import programs, torch_steps
from .calls import calls_of
from .cases import BANDWIDTH, Case
from .contenders import STAGES, Ready
from .timing import Effort, Times, interleaved, timed

TIMED = {
    "step": "a compiled step, in place, with the updates applied",
    "trace": "tracing a step",
    "lower": "lowering it",
    "compile": "compiling it",
    "restored": "tracing it where the state was restored and `init` never ran",
    "update": "an update outside `jit`, warm",
    "init": "`init` outside `jit`",
    "construct": "making the transformation, a hundred times",
}
COUNTED = {
    "equations": "equations of the jaxpr",
    "operations": "instructions of the optimized HLO",
    "trace_calls": "calls of Python functions that tracing a step takes",
    "lower_calls": "that lowering it takes",
    "update_calls": "that a warm update outside `jit` takes",
    "moved": "bytes that the program reads and writes, as XLA counts them",
    "floor": "bytes that any program must read and write",
    "peak": "bytes of arguments, results and all between, as XLA plans them",
    "state": "bytes of the state",
    "pages": "pages of memory that the system hands out in a warm step",
}
MEASURES = {**TIMED, **COUNTED}
"""What each is."""

ROW = 4096


class Result(NamedTuple):
    """Of one case, by measure and contender: values, seconds or counts; their ratios to that of `over`, and those of
    the first contender to each."""

    table: str
    case: str
    over: str
    values: dict[str, dict[str, float]]
    ratios: dict[str, dict[str, float]]
    against: dict[str, dict[str, float]]

    def ratio(self, measure: str) -> float | None:
        """Of the contender that the case is about."""
        found = self.ratios.get(measure, {})
        return next(iter(found.values())) if found else None


def measured(table: str, case: Case, measures: Collection[str], effort: Effort) -> Result:
    """Everything that is wanted of one case."""
    ready = {name: Ready(contender) for name, contender in case.contenders.items()}
    values: dict[str, dict[str, float]] = {}
    ratios: dict[str, dict[str, float]] = {}
    against: dict[str, dict[str, float]] = {}
    ours = next(iter(ready))
    for measure, times in _timed(case, ready, measures, effort).items():
        values[measure] = {name: times.median(name) for name in times.rounds}
        over = case.over if case.over in times.rounds else ours
        ratios[measure] = {name: times.ratio(name, over) for name in times.rounds}
        against[measure] = {name: times.ratio(ours, name) for name in times.rounds}
    for measure in COUNTED:
        if measure in measures:
            found = {name: float(_count(measure, case, x)) for name, x in ready.items()}
            values[measure] = found
            # A state may have no bytes.
            ratios[measure] = {name: x / max(found.get(case.over, found[ours]), 1.0) for name, x in found.items()}
            against[measure] = {name: found[ours] / max(x, 1.0) for name, x in found.items()}
    return Result(table, case.name, case.over, values, ratios, against)


def _timed(case: Case, ready: dict[str, Ready], measures: Collection[str], effort: Effort) -> dict[str, Times]:
    found: dict[str, Times] = {}
    works: dict[str, Callable[[Ready], Callable[[], object]]] = {
        "restored": lambda x: x.restored,
        "update": lambda x: x.update,
        "init": lambda x: x.init,
        "construct": lambda x: x.construct,
    }
    for measure, work in works.items():
        if measure in measures:
            functions = {name: work(x) for name, x in ready.items()}
            found |= _warm(measure, functions, effort)
    if wanted := [stage for stage in STAGES if stage in measures]:
        # Once before, as whoever is first pays for what is imported late. What is compiled serves other measures too.
        for x in ready.values():
            _ = x.compiled if wanted[-1] == "compile" else x.traced
        compiling = {name: lambda x=x: x.stages(wanted[-1], effort.clock) for name, x in ready.items()}
        found |= {stage: times for stage, times in interleaved(compiling, effort).items() if stage in wanted}
    if "step" in measures:
        found |= _warm("step", _steppers(case, ready), effort)
    return found


def _warm(measure: str, functions: dict[str, Callable[[], object]], effort: Effort) -> dict[str, Times]:
    for function in functions.values():
        jax.block_until_ready(function())
    return interleaved({name: timed(measure, function, effort.clock) for name, function in functions.items()}, effort)


def _steppers(case: Case, ready: dict[str, Ready]) -> dict[str, Callable[[], object]]:
    functions = {name: x.stepper() for name, x in ready.items()}
    ours = next(iter(ready.values()))
    if case.torch:
        functions |= torch_steps.steps(case.torch, jax.tree.leaves(ours.params))
    if case.memory_bound:
        functions[BANDWIDTH] = mover(programs.floor_bytes(ours.params, ours.state, ours.grads, case.reads))
    return functions


def mover(count: int) -> Callable[[], object]:
    """A loop that moves so many bytes: it scales an array in place, as a step does its arrays."""
    # In whole rows: XLA's loop over an odd number of elements is several times slower.
    held = jnp.ones((count // (8 * ROW), ROW), jnp.float32)
    scaled = jax.jit(lambda x: x * 1.0001, donate_argnums=0)

    def run() -> object:
        nonlocal held
        held = scaled(held)
        return held

    return run


def _count(measure: str, case: Case, x: Ready) -> float:
    match measure:
        case "equations":
            return programs.equations(x.traced.jaxpr)
        case "operations":
            return programs.operations(x.compiled)
        case "trace_calls" | "lower_calls" | "update_calls":
            return calls_of(measure.removesuffix("_calls"), x)
        case "moved":
            return programs.moved_bytes(x.compiled)
        case "peak":
            return programs.peak_bytes(x.compiled)
        case "state":
            return programs.size_bytes(x.state)
        case "pages":
            return x.pages()
    return programs.floor_bytes(x.params, x.state, x.grads, case.reads)
