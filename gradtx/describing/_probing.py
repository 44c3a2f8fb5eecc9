# SPDX-License-Identifier: Apache-2.0
"""Running a transformation once, each transformation inside of it watched.

What is inside is what `route` finds. Each is replaced by a pair of functions that does the same and tells what it gets
and what it returns. Nothing is added to the state, and a wrapper decides as always on what its inner transformation
runs, and whether it does.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

from gradtx._roles._boxing import run_in_boxes
from gradtx.core._needs import needs
from gradtx.core._nesting import chained, with_others_inside
from gradtx.core._roles import is_absent, opened
from gradtx.core._selectors import named_leaves
from gradtx.core._transformation import GradientTransformation, GradientTransformationExtraArgs, Inner, as_inner
from gradtx.core._trees import is_hole
from gradtx.core._types import OptState, Params, Updates
from gradtx.describing._fate import stage_name
from gradtx.describing._routes import RouteNode, route
from gradtx.describing._stages import called, nested
from gradtx.wrappers._hyperparameters import inject_hyperparams

Steps = tuple[str, ...]
Measure = Callable[[RouteNode, dict[str, Any], dict[str, Any]], Any]
"""Makes what is kept of a run: from the updates that a transformation got and those that it returned, by path."""

_REFUSED = (TypeError, ValueError, AssertionError, AttributeError, LookupError)


@dataclasses.dataclass
class Watched:
    """A transformation inside another, and what is known of its run; None if it did not run."""

    node: RouteNode
    text: str
    measures: Any = None


class Watch:
    """The transformations in another by the steps to them, in the order in which they run.

    A recipe is one of them, with the stages of its chain below; so is a wrapper, with what it wraps below.
    """

    def __init__(self, measure: Measure):
        self.measure = measure
        self.found: dict[Steps, Watched] = {}

    def watched(self, node: RouteNode, steps: Steps = (), by_name: bool = False) -> Any:
        """The transformation of a node that tells of its runs, and of those of the transformations inside of it.

        `by_name` is for those whose numbers are arrays, of groups or from the state, which say little as text.
        """
        self.found[steps] = Watched(node, _text(node, by_name))
        plain = as_inner("explain_update: tx", node.tx)
        run = self._inside(node, steps, by_name) or plain

        def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
            try:
                new, state = run.update(updates, state, params, **extra)
            except _REFUSED:
                if run is plain:
                    raise
                # A wrapper may want more of what it wraps than a pair of functions. Any other error comes again.
                new, state = plain.update(updates, state, params, **extra)
                self._forget_below(steps)
            self.found[steps].measures = self.measure(node, values(updates), values(new))
            return new, state

        parts = getattr(node.tx, "parts", None)
        return GradientTransformationExtraArgs(plain.init, update, parts=parts, needs=needs(node.tx))

    def _forget_below(self, steps: Steps) -> None:
        self.found = {s: x for s, x in self.found.items() if s == steps or s[: len(steps)] != steps}

    def _inside(self, node: RouteNode, steps: Steps, by_name: bool) -> Any:
        """The same transformation with those inside of it watched; None if there are none."""
        tx = node.tx
        if not isinstance(tx, GradientTransformation):
            return None
        if node.is_recipe:
            return self._inside(node.children[0], steps, by_name)
        if node.plan is not None:
            inner = self.watched(node.children[0], (*steps, "base"), True)
            return Inner(run_in_boxes("groups", inner, node.plan.box))
        if getattr(tx, "made_by", (None,))[0] is inject_hyperparams:
            return self._injected(node, steps)
        if not node.children or not nested(tx):  # a stage may have a transformation of its own making
            return None
        names = [str(key) for key, _ in chained(tx) or ()] or [child.name for child in node.children]
        below = [self.watched(child, (*steps, name), by_name) for name, child in zip(names, node.children, strict=True)]
        made = _replaced(tx, below)
        if made is None:
            self._forget_below(steps)
        return made

    def _injected(self, node: RouteNode, steps: Steps) -> Any:
        """What `inject_hyperparams` made, which makes its inner transformation anew at each step, from the state."""
        made = node.tx.made_by[1]

        @functools.wraps(made["inner_factory"])
        def inner_factory(*args: Any, **kwargs: Any) -> Any:
            tx = made["inner_factory"](*args, **kwargs)
            return self.watched(route(tx, node.tree), (*steps, "inner"), True)

        return as_inner(
            "explain_update: tx",
            inject_hyperparams(inner_factory, made["static_args"], made["hyperparam_dtype"])(
                *made["args"], **made["kwargs"]
            ),
        )


def _text(node: RouteNode, by_name: bool) -> str:
    if chained(node.tx) is not None:
        return f"{node.factory}(...)"  # what is in it has rows of its own
    return stage_name(node) if by_name else called(node.tx)


def _replaced(tx: Any, below: list) -> Any:
    """The same call with other transformations inside; None if the factory refuses them."""
    numbers = itertools.count()
    try:
        arguments = with_others_inside(tx.arguments, lambda _, child: below[next(numbers)])
        return as_inner("explain_update: tx", tx.replace(**arguments))
    except _REFUSED:
        return None


def values(tree: Any) -> dict[str, Any]:
    """The arrays of a tree of updates by path; those that are hidden or None left out."""
    names, leaves, _ = named_leaves(tree)
    rows = ((n, opened(x)) for n, x in zip(names, leaves, strict=True) if not is_absent(x))
    return {name: x for name, x in rows if not is_hole(x)}
