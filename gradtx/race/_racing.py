# SPDX-License-Identifier: Apache-2.0
"""Running a race."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import numpy as np

from gradtx.core._checked import checked
from gradtx.core._kinds import Kind, shown
from gradtx.core._nesting import is_transformation
from gradtx.core._ranges import PositiveInt
from gradtx.race._builtin import BUILTIN
from gradtx.race._contender import Contender, contender
from gradtx.race._outcome import Outcome, TaskResult
from gradtx.race._race_report import RaceReport
from gradtx.race._runs import curves, spacing
from gradtx.race._task import Task, task_at, task_of

SEEDS = 8


def grid(rates: int) -> tuple[float, ...]:
    """Multiples of a learning rate, three in a decade, around 1."""
    return tuple(10 ** ((i - rates // 2) / 3) for i in range(rates))


RATES = 17
FACTORS = grid(RATES)


def _is_list(x: Any) -> bool:
    return isinstance(x, list | tuple) and not is_transformation(x)


def _not_contenders(x: Any) -> str | None:
    return None if _is_list(x) else f"the text {x!r}" if isinstance(x, str) else shown(x)


def _not_tasks(x: Any) -> str | None:
    if isinstance(x, Mapping) or _is_list(x) and all(isinstance(name, str) for name in x):
        return None
    return f"the text {x!r}" if isinstance(x, str) else shown(x)


def _not_factors(x: Any) -> str | None:
    numbers = np.asarray(x) if isinstance(x, list | tuple | np.ndarray) else np.zeros(())
    fits = numbers.dtype.kind in "iuf" and numbers.ndim == 1 and numbers.size > 0
    return None if fits and (np.isfinite(numbers) & (numbers > 0)).all() else shown(x)


Contenders = Annotated[Sequence[Any], Kind("a list of calls and transformations", _not_contenders)]
Tasks = Annotated[Sequence[str] | Mapping[str, Any], Kind("a list of names, or a dictionary of tasks,", _not_tasks)]
Factors = Annotated[Sequence[float], Kind("a list of positive numbers", _not_factors)]
Bar = Callable[[str, int], AbstractContextManager[Callable[[], Any]]]


@checked
def race(
    contenders: Contenders,
    tasks: Tasks | None = None,
    *,
    seeds: PositiveInt = SEEDS,
    factors: Factors = FACTORS,
    steps: PositiveInt | None = None,
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
    known = list(map(_contender, range(len(contenders)), contenders))
    if not known:
        raise ValueError("race: contenders is empty; give at least one, such as 'adamw(1e-3)'")
    for name in (names := [c.name for c in known]):
        if names.count(name) > 1:
            raise ValueError(f"race: contenders has {name} twice")
    multiples = np.sort(np.asarray(factors, float))
    found, left_out = _tasks(tasks)
    if steps is not None:
        found = {name: task._replace(steps=steps) for name, task in found.items()}
    bar = progress or (lambda label, total: nullcontext(lambda: None))
    results = [_raced(name, task, known, multiples, seeds, bar) for name, task in found.items()]
    return RaceReport(tuple(names), seeds, tuple(results), left_out)


def _contender(number: int, given: Any) -> Contender:
    try:
        return contender(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"race: contenders[{number}]: {error}") from error


def _tasks(asked: Sequence[str] | Mapping[str, Any] | None) -> tuple[dict[str, Task], dict[str, str]]:
    if isinstance(asked, Mapping):
        return {name: task_of(f"race: tasks: {name}", task) for name, task in asked.items()}, {}
    found, left_out = {}, {}
    for name in BUILTIN if asked is None else asked:
        if name not in BUILTIN and ":" not in name:
            raise ValueError(
                f"race: tasks: no task has the name {name!r}; there are {', '.join(BUILTIN)}, and paths, "
                f"package.module:name"
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
