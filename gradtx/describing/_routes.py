# SPDX-License-Identifier: Apache-2.0
"""Which transformations see which parameters, and in which boxes.

Nothing is assumed of wrappers: each is run on shapes, with probes in place of the transformations that it wraps, which
record the parameters that they are given. Masks, labels and unknown wrappers are all read in this way.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax

from gradtx._groups._grouping import checked_rules, groups
from gradtx._groups._planning import GroupPlan, plan
from gradtx.core._nesting import chained, with_others_inside
from gradtx.core._prefixes import is_partial
from gradtx.core._roles import is_absent
from gradtx.core._selectors import named_leaves
from gradtx.core._transformation import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    with_extra_args_support,
)
from gradtx.describing._stages import nested


@dataclasses.dataclass(frozen=True, eq=False)
class RouteNode:
    """A transformation inside another.

    Attributes:
      name: its name there: the number or name of a chain's stage, or the argument of a wrapper.
      tree: what it is given: a tree of shapes, in boxes or not.
      children: the transformations inside.
      plan: the plan of `groups`, None for other transformations.
    """

    tx: Any
    name: str
    tree: Any
    children: tuple["RouteNode", ...] = ()
    plan: GroupPlan | None = None

    @functools.cached_property
    def seen(self) -> dict[str, Any]:
        """What it is given for each parameter, by path: a shape, or a box with one. Hidden parameters are left out."""
        names, leaves, _ = named_leaves(self.tree)
        return {name: x for name, x in zip(names, leaves, strict=True) if not is_absent(x)}

    @property
    def factory(self) -> str:
        """The name of the factory; empty for what was made by hand or by others."""
        factory = self.tx.factory if isinstance(self.tx, GradientTransformation) else None
        return "" if factory is None else factory.name

    @property
    def is_recipe(self) -> bool:
        return isinstance(self.tx, GradientTransformation) and self.tx.expanded is not self.tx

    def through(self, path: str) -> Iterator["RouteNode"]:
        """The transformations here and inside that see a parameter, in the order in which they run."""
        if path in self.seen:
            yield self
            for child in self.children:
                yield from child.through(path)


def route(tx: Any, tree: Any, name: str = "") -> RouteNode:
    """The transformations in `tx` with what each sees of a tree of shapes, in boxes or not."""
    if isinstance(tx, GradientTransformation) and tx.expanded is not tx:
        return RouteNode(tx, name, tree, (route(tx.expanded, tree),))
    stages = chained(tx)
    if stages is not None:
        return RouteNode(tx, name, tree, tuple(route(child, tree, str(key)) for key, child in stages))
    if isinstance(tx, GradientTransformation) and tx.factory is groups.factory:  # type: ignore[attr-defined]  # factories have one
        base, partial = tx.arguments["base"], is_partial(tree)
        first = tx.arguments["first_match"]
        made = plan(checked_rules(tx.arguments["rules"], base), base, tree, partial, first)
        return RouteNode(tx, name, tree, (route(made.tx, made.box(tree, partial)),), made)
    wrapped = nested(tx)
    if wrapped:
        trees = _trees_seen(tx, tree, len(wrapped))
        children = [route(child, below, called) for (called, child), below in zip(wrapped, trees, strict=True)]
        return RouteNode(tx, name, tree, tuple(children))
    return RouteNode(tx, name, tree, _parts(tx, tree))


def _paths(tree: Any) -> set[str]:
    return set(RouteNode(None, "", tree).seen)


def _trees_seen(tx: Any, tree: Any, count: int) -> list:
    """For each transformation in a wrapper, the tree of which it makes its state, if that has the same paths."""
    found: dict[int, Any] = {}
    known = _paths(tree)

    def probe(i: int, child: Any) -> Any:
        inner = with_extra_args_support(child)

        def init(params: Any) -> Any:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
            if _paths(shapes) <= known:
                found.setdefault(i, shapes)
            return inner.init(params)

        return GradientTransformationExtraArgs(init, inner.update, parts=inner.parts, needs=inner.declared)

    numbers = iter(range(count))
    arguments = with_others_inside(tx.arguments, lambda _, child: probe(next(numbers), child))
    try:
        jax.eval_shape(tx.replace(**arguments).init, tree)
    except (TypeError, ValueError, AssertionError, AttributeError, LookupError):
        # A wrapper may want more than a pair of functions: it refuses the probe, or looks for an attribute or an
        # argument that the probe has not. Then it is taken to hand everything on.
        pass
    return [found.get(i, tree) for i in range(count)]


def _parts(tx: Any, tree: Any) -> tuple[RouteNode, ...]:
    """The transformations that something made by hand says are inside. They are taken to see all."""
    children: list[RouteNode] = []

    def look(params: Any) -> None:
        # Traced, as inner transformations may be made from numbers in the state.
        for path, (child, _) in tx.parts(tx.init(params)).items():
            children.append(route(child, tree, path))

    if isinstance(tx, GradientTransformation) and tx.rule is None:
        jax.eval_shape(look, tree)
    return tuple(children)
