# SPDX-License-Identifier: Apache-2.0
"""Running the stages of a chain: neighbors that are rules on one array run as one, through chains inside of chains.

The state stays that of the chain as it is written. A stage that measures the whole tree begins a run of its own, and so
does what comes after a stage that is no rule on one array.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gradtx.core._lift import RuleStage, update_tree
from gradtx.core._needs import check_needs
from gradtx.core._transformation import Expansion, Inner, Links
from gradtx.core._types import OptState, Params, Updates


class _Run(NamedTuple):
    """Neighboring stages that run as one; or the `update` of a single one."""

    stages: tuple[RuleStage, ...]
    update: Callable[..., Any]


class _Plan(NamedTuple):
    """A chain with the chains inside of it, and the runs that its stages make."""

    tree: "_Nested"
    runs: list[_Run]


class _Nested(NamedTuple):
    """A chain with the chains inside of it; None for every other stage."""

    links: Links
    inside: "list[_Nested | None]"

    def opened(self, state: OptState) -> Iterator[OptState]:
        """The states of all stages."""
        for nested, part in zip(self.inside, self.links.opened(state), strict=True):
            if nested is None:
                yield part
            else:
                yield from nested.opened(part)

    def closed(self, states: Iterator[OptState]) -> OptState:
        """`opened` undone."""
        return self.links.closed([next(states) if x is None else x.closed(states) for x in self.inside])


def update_of(links: Links, requirements: Callable[[], Any]) -> Callable[..., tuple[Updates, OptState]]:
    """The `update` of a chain. What its stages are is looked up once, when it first runs."""
    plan = functools.cache(lambda: _plan(links))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        tree, runs = plan()
        states = list(tree.opened(state))
        check_needs(requirements(), extra)
        new: list[OptState] = []
        for stages, update_one in runs:
            if len(stages) > 1:
                given = states[len(new) : len(new) + len(stages)]
                updates, found = update_tree(stages, updates, given, params, extra)
                new += found
            else:
                updates, found = update_one(updates, states[len(new)], params, **extra)
                new.append(found)
        return updates, tree.closed(iter(new))

    return update


def _plan(links: Links) -> _Plan:
    flat: list[Expansion] = []
    tree = _nested(links, flat)
    runs: list[_Run] = []
    before: RuleStage | None = None
    for made in flat:
        stage = made.stage if made.mask is None else _behind_mask(made)
        if stage is not None and stage.joins and before is not None and before.rule.modes_of is None:
            runs[-1] = runs[-1]._replace(stages=(*runs[-1].stages, stage))
        else:
            runs.append(_Run(() if stage is None else (stage,), made.wide or made.update))
        before = stage
    return _Plan(tree, runs)


def _behind_mask(made: Expansion) -> RuleStage | None:
    """The rule inside of a mask, on the leaves that this shows; None if it is no rule, or one that must stand alone."""
    mask, inner = made.mask  # type: ignore[misc]  # the caller has looked
    stage = _innermost(inner.made).stage
    return None if stage is None else stage.masked(mask)


def _innermost(made: Expansion) -> Expansion:
    """The stage that a recipe stands for, also one that another recipe returned."""
    while made.inner is not None:
        made = Inner(made.inner).made
    return made


def _nested(links: Links, flat: list[Expansion]) -> _Nested:
    """The chain with the chains inside of it; `flat` gets all other stages, in order."""
    inside: list[_Nested | None] = []
    for stage in links.stages:
        made = _innermost(stage.made)
        flat += [] if made.links else [made]
        inside.append(_nested(made.links, flat) if made.links else None)
    return _Nested(links, inside)
