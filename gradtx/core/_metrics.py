# SPDX-License-Identifier: Apache-2.0
"""Metrics of a run: the numbers that stages publish, learning rates and schedules, under short names."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._counts import step_of
from gradtx.core._kinds import StateOfParts
from gradtx.core._nesting import inside
from gradtx.core._transformation import GradientTransformation, Transformation
from gradtx.core._unwrapping import unwrapped

SKIPPED = "step_skipped"


@checked
def metrics(state: StateOfParts, tx: Transformation | None = None) -> dict[str, jax.Array]:
    """The scalars that the stages of a state publish, by name: `{"grad_norm": ..., "learning_rate": ...}`.

    A state class publishes scalars by a method `metrics(self) -> {name: scalar}`. Nothing is computed unless this
    function is called. The names never change during a run, so it may be called inside `jit` and `scan`.

    Where stages of a chain or groups of parameters publish the same name, it is preceded by what tells them apart:
    "0.grad_norm" and "2.grad_norm", "bias.learning_rate". A wrapper changes no name of what is inside of it: where it
    publishes a name that is there already, its own is preceded by the name of its state, as in "Guard.grad_norm".

    "step_skipped" says whether the last step was left out, by a `guard` or another wrapper that skips steps. It is
    there if one of the states has a method `step_skipped(self, tx) -> bool`, where `tx` is the transformation of that
    state, or None if it is not known.

    Args:
      state: the state of any transformation.
      tx: the transformation to which the state belongs. If given, the result also has all learning rates, and the value
        of every scheduled hyperparameter, at the last update (at the first, if there was none yet), by the names of the
        arguments. Those of transformations of other libraries are not found.
    """
    state = unwrapped(state)
    root = _Place.of(state)
    if tx is not None:
        for place, name, source, step in _Reading().read(tx, state, root).found:
            if not callable(source):
                place.published.setdefault(name, source)
            elif step is not None:
                place.published.setdefault(name, source(jnp.maximum(step - 1, 0)))
    named = {".".join((*path, name)): jnp.asarray(x) for (path, name), x in root.named().items()}
    skipped = [jnp.asarray(x, bool) for x in root.skips()]
    if skipped:
        named[SKIPPED] = jnp.any(jnp.stack(skipped))
    return dict(sorted(named.items()))


class _Place:
    """A part of a state, what is published there, and the parts inside of it."""

    def __init__(self, state: Any = None, published: dict[str, Any] | None = None):
        self.state, self.published = state, published or {}
        self.label = type(state).__name__.removesuffix("State")
        self.tx: Any = None  # the transformation of the state, where it is known
        self.inside: dict[str, _Place] = {}

    @classmethod
    def of(cls, state: Any) -> "_Place":
        method = getattr(type(state), "metrics", None)
        place = cls(state, None if method is None else dict(method(state)))
        if hasattr(state, "_fields"):
            children = zip(state._fields, state, strict=True)
        elif isinstance(state, dict):
            children = state.items()
        else:
            children = enumerate(state) if isinstance(state, tuple | list) else ()
        place.inside = {str(name): cls.of(child) for name, child in children}
        return place

    def at(self, path: str) -> "_Place":
        """The part at a path in the state, joined by dots, which keys of dictionaries may have in them too."""
        if not path:
            return self
        steps = [x for x in self.inside if path == x or path.startswith(f"{x}.")]
        step = max(steps, key=len) if steps else path.partition(".")[0]
        return self.inside.setdefault(step, _Place()).at(path[len(step) + 1 :])

    def named(self) -> dict[tuple[tuple[str, ...], str], Any]:
        """What is published here and inside, by the steps that tell it from others of its name, and the name."""
        below = [(step, place.named()) for step, place in self.inside.items()]
        times = Counter(name for _, found in below for name in {name for _, name in found})
        main = getattr(type(self.state), "main_part", None)
        result = {}
        for step, found in below:
            for (path, name), x in found.items():
                alone = times[name] == 1 or step == main
                result[path if alone else (step, *path), name] = x
        for name, x in self.published.items():
            path = ()
            while (path, name) in result:
                path = (self.label, *path)
            result[path, name] = x
        return result

    def skips(self) -> list[Any]:
        """The answers of all states that know whether they have skipped the last step."""
        method = getattr(type(self.state), SKIPPED, None)
        own = [] if method is None else [method(self.state, self.tx)]
        return own + [x for place in self.inside.values() for x in place.skips()]


class _Hyperparameter(NamedTuple):
    """A hyperparameter: where it is published, its name, the argument that gives it, and the steps counted there."""

    place: _Place
    name: str
    source: Any
    step: jax.Array | None


class _Reading:
    """Reads hyperparameters off a transformation, to publish them at their places.

    A recipe hands its arguments on to the stages that its body makes. They are published by the names that they have in
    the recipe's call, at the steps that the stages count; what else the body makes is not published.
    """

    def __init__(self, given: Sequence[Any] = ()):
        self.given = given  # the transformations that were handed to a recipe
        self.found: list[_Hyperparameter] = []
        self.later: list[tuple] = []

    def read(self, tx: Any, state: Any, place: _Place, above: tuple = ()) -> "_Reading":
        """`above` is what the states around publish: of what they hand on, there is no second report."""
        if any(tx is x for x in self.given):
            self.later.append((tx, state, place, above))
        elif isinstance(tx, GradientTransformation):
            own = {n: x for n, x in _reported(tx) if not any(x is y for y in above)}
            if tx.expanded is not tx:
                return self.read_recipe(tx, own, state, place, above)
            place.tx = tx
            self.found += [_Hyperparameter(place, n, x, step_of(state)) for n, x in own.items()]
            above += tuple(place.published.values())
            for path, (inner, part) in tx.parts(state).items():
                self.read(inner, part, place.at(path), above)
        return self

    def read_recipe(self, tx: Any, own: dict, state: Any, place: _Place, above: tuple) -> "_Reading":
        made = _Reading([x for _, x in inside(tx.arguments)]).read(tx.expanded, state, place, above)
        step = next((x.step for x in made.found if x.step is not None), step_of(state))
        for name, source in own.items():
            handed = [x for x in made.found if x.source is source]
            # The body may have made another function of it, such as one that warms up: that is the one in effect.
            _, _, effective, at = next(iter(handed or [x for x in made.found if x.name == name]), (0, 0, source, step))
            self.found.append(_Hyperparameter(place, name, effective, at))
        if own and not hasattr(state, "_fields"):
            place.label = tx.factory.name
        for rest in made.later:
            self.read(*rest)
        return self


def _reported(tx: Any) -> list[tuple[str, Any]]:
    """The hyperparameters that are published: learning rates and schedules."""
    names = () if tx.factory is None else tx.factory.hyperparameters
    arguments = tx.arguments if names else {}
    return [(n, x) for n in names if callable(x := arguments[n]) or x is not None and _is_rate(n)]


def _is_rate(name: str) -> bool:
    return name.endswith("learning_rate") and not name.startswith("max")
