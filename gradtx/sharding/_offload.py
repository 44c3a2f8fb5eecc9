# SPDX-License-Identifier: Apache-2.0
"""Offloading: states in the memory of the host, fetched for the update."""

from typing import Any

import jax

from gradtx._roles._boxing import looks
from gradtx.core._factory import transformation
from gradtx.core._roles import carried_role, opened
from gradtx.core._selectors import OfKind, Selector, matches
from gradtx.core._sentences import CHOICES, listed
from gradtx.core._transformation import GradientTransformationExtraArgs, as_inner
from gradtx.core._trees import is_leaf
from gradtx.core._types import OptState, Params, Updates
from gradtx.surgery._slots import Part, dotted, parameter_names, split

HOST = "pinned_host"


@transformation
def offload(inner: Any, memory: str = HOST, *, slots: Any = None) -> GradientTransformationExtraArgs:
    """`inner` with its state in the host's memory: fetched before the update, put back after it.

    The state is that of `inner`, sharded as without `offload`; scalars stay on the device. It is born on the host where
    `init_sharded` makes it. Under `jit`, transfers are part of the program, and the compiler runs them beside the
    computation where the backend can. JAX has no derivative of such transfers under `jit`.

    Args:
      inner: the transformation.
      memory: the kind of memory, as `jax.Device.addressable_memories` names it: "pinned_host".
      slots: what is kept there: None for every array; or the name of a slot ("nu"), its path in the state ("0.nu"), a
        selection of parameters (`where(...)`, `of_kind(...)`), or a tuple of those, of which one must choose the array.

    Raises:
      ValueError: for another kind of memory, at `init` and `update` if the devices do not have it, and for a name that
        no slot has.
    """
    tx = as_inner("offload: inner", inner)
    if not isinstance(memory, str) or memory != HOST:
        raise ValueError(f"offload: memory must be {HOST!r}, got {memory!r}")
    chosen = None if slots is None else slots if isinstance(slots, tuple) else (slots,)
    for one in chosen or ():
        if not isinstance(one, str | Selector | OfKind):
            raise TypeError(f"offload: slots must be names, where(...) or of_kind(...), got {one!r}")
    plans: dict[Any, list[bool]] = {}  # by `looks`: reading a state at each update is slow

    def kept(params: Params) -> list[bool]:
        """Of each array of the state, whether it is in the host's memory."""
        key = looks(params)
        if key not in plans:
            _check_backend()
            plans[key] = _kept(jax.eval_shape(tx.init, params), params, chosen)
        return plans[key]

    def moved(state: OptState, params: Params, to: Any) -> OptState:
        leaves, treedef = jax.tree.flatten(state)
        flags = kept(params)
        if len(flags) != len(leaves):
            raise TypeError(f"offload: the state was made for other parameters: it has {len(leaves)} arrays")
        return treedef.unflatten([jax.device_put(x, to) if flag else x for x, flag in zip(leaves, flags, strict=True)])

    def init(params: Params) -> OptState:
        return moved(tx.init(params), params, jax.memory.Space.Host)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        known = updates if params is None else params
        new, state = tx.update(updates, moved(state, known, jax.memory.Space.Device), params, **extra)
        return new, moved(state, known, jax.memory.Space.Host)

    return GradientTransformationExtraArgs(init, update, parts=lambda state: {"": (inner, state)})


def _check_backend() -> None:
    kinds = dict.fromkeys(m.kind for m in jax.local_devices()[0].addressable_memories())
    if HOST not in kinds:
        raise ValueError(f"offload: {jax.default_backend()} devices have no memory {HOST!r}, only {listed(kinds)}")


def _kept(state: OptState, params: Params, chosen: tuple | None) -> list[bool]:
    flags, found = [], set()
    names = parameter_names(params)
    leaves = dict(zip(names, jax.tree.leaves(params, is_leaf=is_leaf), strict=True))
    for part in split(state, params):
        said = {one for one in chosen or () if _chooses(one, part, names, leaves)}
        found |= said
        flags += [x.ndim > 0 and (chosen is None or bool(said)) for x in jax.tree.leaves(part.value)]
    lacking = [one for one in chosen or () if isinstance(one, str) and one not in found]
    if lacking and jax.tree.leaves(params):
        known = dict.fromkeys(part.name for part in split(state, params))
        raise ValueError(f"offload: no slot {lacking[0]!r}; there are {listed(known, CHOICES)}")
    return flags


def _chooses(one: Any, part: Part, names: dict, leaves: dict) -> bool:
    if isinstance(one, str):
        return one in (part.name, dotted(part.field))
    if part.parameter is None:
        return False
    leaf = leaves[part.parameter]
    return matches(one, names[part.parameter], opened(leaf), carried_role(leaf))
