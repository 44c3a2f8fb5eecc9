# SPDX-License-Identifier: Apache-2.0
"""Running a race."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gradtx.race._builtin import BUILTIN
from gradtx.race._contender import Contender, contender
from gradtx.race._outcome import Outcome, TaskResult
from gradtx.race._race_report import RaceReport
from gradtx.race._runs import curves, spacing
from gradtx.race._task import Task, checked, task_at

SEEDS = 8


def grid(rates: int) -> tuple[float, ...]:
    """Multiples of a learning rate, three in a decade, around 1."""
    return tuple(10 ** ((i - rates // 2) / 3) for i in range(rates))


RATES = 17
FACTORS = grid(RATES)
Bar = Callable[[str, int], AbstractContextManager[Callable[[], Any]]]


def race(
    contenders: Sequence[Any],
    tasks: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    seeds: int = SEEDS,
    factors: Sequence[float] = FACTORS,
    steps: int | None = None,
    progress: Bar | None = None,
) -> RaceReport:
    """Runs every contender on every task, at all multiples of its learning rate, with all seeds.

    A seed gives every contender and every rate the same initial parameters and the same data in the same order. All
    rates and seeds of a contender run side by side, in one compiled program for each task.

    Args:
      contenders: calls such as "adamw(1e-3)", import paths of peers such as "optax:adamw(1e-3)", or transformations.
        The others are compared with the first.
      tasks: names of tasks that come with gradtx ("digits", "convolution", "transformer", "logistic", "quadratic",
        "rosenbrock") or import paths, "mypackage.mytask:task"; or a dictionary of tasks by name. None for all that come
        with gradtx; what cannot run, because scikit-learn is not there, is left out and said.
      seeds: how many runs at each rate. With fewer than 6, no difference can be significant.
      factors: the multiples of the learning rates, by default 17 from 1/464 to 464, three in a decade.
      steps: of each run, in the place of those of the tasks.
      progress: called with a label and a number of ticks, it returns a context manager of a function to call at each
        tick; None shows nothing.

    Returns:
      A `RaceReport`.

    Raises:
      TypeError, ValueError: for what is no contender or task, with the place.
      ImportError: for a named task whose data are not installed.
    """
    if isinstance(contenders, str):
        raise TypeError(f"race: contenders must be a list of calls, got the text {contenders!r}")
    known = [contender(given) for given in contenders]
    if not known:
        raise ValueError("race: contenders is empty; give at least one, such as 'adamw(1e-3)'")
    for name in (names := [c.name for c in known]):
        if names.count(name) > 1:
            raise ValueError(f"race: contenders has {name} twice")
    for argument, given in (("seeds", seeds), ("steps", 1 if steps is None else steps)):
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(f"race: {argument} must be a whole number from 1 on, got {given!r}")
    multiples = np.sort(np.asarray(factors, float))
    if multiples.ndim != 1 or not multiples.size or not (np.isfinite(multiples) & (multiples > 0)).all():
        raise ValueError(f"race: factors must be positive numbers, got {factors!r}")
    found, left_out = _tasks(tasks)
    if steps is not None:
        found = {name: task._replace(steps=steps) for name, task in found.items()}
    bar = progress or (lambda label, total: nullcontext(lambda: None))
    results = [_raced(name, task, known, multiples, seeds, bar) for name, task in found.items()]
    return RaceReport(tuple(names), seeds, tuple(results), left_out)


def _tasks(asked: Sequence[str] | Mapping[str, Any] | None) -> tuple[dict[str, Task], dict[str, str]]:
    if isinstance(asked, Mapping):
        return {name: checked(name, task) for name, task in asked.items()}, {}
    if isinstance(asked, str):
        raise TypeError(f"race: tasks must be a list of names, got the text {asked!r}")
    found, left_out = {}, {}
    for name in BUILTIN if asked is None else asked:
        if name not in BUILTIN and ":" not in name:
            raise ValueError(
                f"race: no task has the name {name!r}; there are {', '.join(BUILTIN)}, and paths, package.module:name"
            )
        try:
            found[name] = BUILTIN[name]() if name in BUILTIN else task_at(name)
        except ImportError as error:
            if asked is not None:
                raise ImportError(f"race: the task {name}: {error}") from error
            left_out[name] = str(error)
    return found, left_out


def _raced(name: str, task: Task, known: list[Contender], multiples: np.ndarray, seeds: int, bar: Bar) -> TaskResult:
    every, measured = spacing(task.steps), {}
    for c in known:
        factors = multiples if c.has_rate else np.ones(1)
        with bar(f"{name}: {c.name}", task.steps // every) as tick:
            measured[c] = factors, curves(c, task, factors, seeds, tick)
    target, origin = task.target, "of the task"
    if target is None:
        first = _outcome(known[0], measured[known[0]], every, np.inf)
        target, origin = float(first.best_losses.mean(1).min()), f"the best of {known[0].name}"
    outcomes = tuple(_outcome(c, runs, every, target) for c, runs in measured.items())
    return TaskResult(name, task.about, task.steps, target, origin, outcomes)


def _outcome(c: Contender, runs: tuple[np.ndarray, np.ndarray], every: int, target: float) -> Outcome:
    factors, losses = runs
    return Outcome(c.name, factors, tuple(map(c.rate_text, factors)), losses, every, target)
