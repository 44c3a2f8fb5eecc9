# SPDX-License-Identifier: Apache-2.0
"""Ages: a count beside averages is the age of all of them, or has an entry for each parameter.

Averages that begin anew beside old ones need an age of their own, by which their bias is corrected. The count of a rule
then becomes a vector, with an entry for each parameter that the rule has slots of, in their order.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._kernels import Rule
from gradtx.core._payloads import is_payload
from gradtx.surgery._slots import Part, dotted

COUNTERS = ("count", "t")
"""The names of counts that are ages; Adan's is called t."""


class Aged(NamedTuple):
    """A count that is an age, and what belongs to its entries: a slot of each parameter, in their order."""

    count: Part
    slots: list[Part]


def rules_of(inside: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules that may have an age for each parameter, by the paths where their states are.

    Not those whose count is also the step of schedules, or that remember numbers of the whole tree.
    """
    found = {}
    for path, tx in inside.items():
        rule = tx.rule
        if rule is None or not rule.counts or not rule.slots or rule.memory is not None or rule.idle is not None:
            continue
        if rule.counter in COUNTERS and rule.counter not in getattr(rule.state, "counts_from", {}):
            # With schedules, the state is within a `ScheduledState`.
            found |= {path: rule, f"{path}.inner_state".strip("."): rule}
    return found


def aged(parts: Iterable[Part], rules: Mapping[str, Rule]) -> list[Aged]:
    """The counts among the parts of a state that may have an age for each parameter."""
    parts, found = list(parts), []
    for part in parts:
        rule = rules.get(dotted(part.stage))
        if rule and part.parameter is None and part.field_path == rule.counter and part.kind == rule.state.__name__:
            beside = [p for p in parts if p.stage == part.stage and p.parameter is not None]
            slots = [p for p in beside if p.field_path == rule.slots[0]]
            single = all(is_payload(s.value) or len(jax.tree.leaves(s.value)) == 1 for s in slots)
            if single and (jnp.ndim(part.value) == 0 or is_ages(part, slots)):
                found.append(Aged(part, slots))
    return found


def is_ages(count: Part, slots: list[Part]) -> bool:
    """Whether a count has an entry for each of these slots."""
    return jnp.shape(count.value) == (len(slots),) and is_whole(count.value)


def is_whole(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.integer)


def count_of(ages: list, dtype: Any) -> jax.Array:
    """The count with these ages: one for all if each is a plain 0, else one for each parameter."""
    if all(isinstance(x, int) for x in ages):
        return jnp.zeros([], dtype)
    return jnp.stack([jnp.asarray(x, dtype) for x in ages])
