# SPDX-License-Identifier: Apache-2.0
"""What the contenders of a race minimize."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gradtx.race._imported import imported


class Task(NamedTuple):
    """Something to minimize, in a fixed number of steps.

    Attributes:
      init: from a key of `jax.random` to initial parameters.
      loss: from parameters and a key to a number, which is differentiated. The key draws the batch, or noise.
      steps: how many steps a run has.
      target: the loss that is to be reached; None for the mean over the seeds of the best loss of the first contender,
        at its best rate.
      measure: from parameters to the loss that counts, such as that of held-out data; None for `loss` with one key
        that no step has.
      roles: rules as `with_roles` takes them, for contenders that are gradtx's; None for none.
      about: what the task is, in a few words.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, jax.Array], jax.Array]
    steps: int
    target: float | None = None
    measure: Callable[[Any], jax.Array] | None = None
    roles: Any = None
    about: str = ""

    @property
    def measured(self) -> Callable[[Any], jax.Array]:
        """The loss that counts, as a function of the parameters."""
        return self.measure or (lambda params: self.loss(params, jax.random.key(2**31 - 1)))


def task_at(path: str) -> Task:
    """The task at an import path: a `Task`, an object with its attributes, or a function without arguments that
    returns one.

    Raises:
      TypeError, ValueError: if there is none, or one of its attributes is not what it should be.
    """
    found = imported(path)
    if callable(found) and not hasattr(found, "init"):
        found = found()
    return task_of(path, found)


def task_of(name: str, task: Any) -> Task:
    """The task that an object with the attributes of one is."""
    if missing := [field for field in ("init", "loss", "steps") if not hasattr(task, field)]:
        raise TypeError(f"{name}: a task has init, loss and steps; {type(task).__name__} has no {missing[0]}")
    known = {field: getattr(task, field) for field in Task._fields if hasattr(task, field)}
    if isinstance(task.steps, bool) or not isinstance(task.steps, int) or task.steps < 1:
        raise ValueError(f"{name}: steps must be a whole number from 1 on, got {task.steps!r}")
    for field in ("init", "loss"):
        if not callable(known[field]):
            raise TypeError(f"{name}: {field} must be a function, got {known[field]!r}")
    return Task(**known)
