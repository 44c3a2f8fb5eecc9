# SPDX-License-Identifier: Apache-2.0
"""QK-clip: the weights of queries and keys are scaled down, head by head, where attention logits grow too large."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._over_devices import own_part, split_by, whole_shape_of
from gradtx.core._placement import replicated
from gradtx.core._ranges import Limit
from gradtx.core._roles import Role, carried_role, carried_split, closed, is_absent, opened, unboxed
from gradtx.core._said import check_said
from gradtx.core._selectors import check_found, check_where, described, matches, named_leaves
from gradtx.core._stacks import stack_axes
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import align, check_shapes, is_hole
from gradtx.core._types import EmptyState, OptState, Params, Updates

NAME = "qk_clip"
CALL = "call update(updates, state, params, max_logits=...)"


class _Chosen(NamedTuple):
    """A parameter whose heads are scaled.

    Attributes:
      leaf: the parameter.
      role: its role, with axes counted from the left.
      shape: the shape of the whole parameter.
      power: of gamma; one number, or one for each block of the role.
    """

    leaf: Any
    role: Role
    shape: tuple[int, ...]
    power: float | tuple[float, ...]

    @property
    def heads(self) -> int:
        assert self.role.heads is not None
        return self.shape[self.role.heads]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that `max_logits` has: those of the stack and the heads."""
        assert self.role.heads is not None
        return (*stack_axes(self.role, len(self.shape)), self.role.heads)


@transformation
def qk_clip(exponents: Any, threshold: Limit = 100.0) -> GradientTransformationExtraArgs:
    """Scales heads of the new weights so that attention logits stay near `threshold`. Last in a chain, in `with_roles`.

    ```
    gamma = min(1, threshold / max_logits), for each head
    u = gamma^power (p + u) - p where gamma < 1, else u
    ```

    `update` needs the parameters and `max_logits`, the largest attention logit of the batch before the softmax, for
    each head of the queries: an array (heads,) if there is one attention, (layers, heads) if the role of the parameters
    has a stack; where layers are apart, arrays by the beginnings of the parameters' paths, such as
    {"layers/0/attention": (heads,)} or the same as nested dictionaries; on each device the logits of all heads and of
    the whole batch. What is not finite changes nothing. Only a stage that rounds parameters comes after this one.

    Parameters with the same array are of one attention. If keys have fewer heads than queries, each is for a group of
    queries beside each other, and gamma of the group is its smallest, for its key and all its queries.

    Args:
      exponents: pairs (which parameters, power), of which the first that matches counts, with choices as in `where`;
        their roles name `heads`. Queries and keys have powers that add up to 1, such as 0.5 each; in multi-head latent
        attention so do their parts without positions, rotary queries have 1, and the rotary key is left out. In the
        place of a power, a tuple has one for each of the `blocks` of a fused projection, 0 to leave one as it is.
      threshold: the largest logit that changes nothing.

    Raises:
      ValueError: for parameters without heads, and heads of `max_logits` that are not those of the parameters.

    Reference: Kimi Team 2025, arXiv:2507.20534, algorithm 1.
    """
    rules = _checked(exponents)

    def init(params: Params) -> EmptyState:
        _chosen(rules, params)
        return EmptyState()

    def update(
        updates: Updates, state: OptState, params: Params = None, *, max_logits: Any = None, **extra: Any
    ) -> tuple[Updates, OptState]:
        if params is None:
            raise ValueError(f"{NAME}: update needs the parameters: {CALL}")
        if max_logits is None:
            raise ValueError(f"{NAME}: update needs max_logits: {CALL}")
        chosen = _chosen(rules, params)
        check_said(NAME, {name: x.leaf for name, x in chosen.items()})
        factors = _factors(chosen, unboxed(max_logits), threshold)
        names, leaves, treedef = named_leaves(updates)
        ps = [opened(p) for p in align(treedef, params, NAME, "the parameters", updates, "the gradients")]
        us = [opened(u) for u in leaves]
        check_shapes(NAME, "gradient", updates, us, ps)
        new = [
            u if is_hole(u) or name not in factors else _scaled(p, u, factors[name])
            for name, p, u in zip(names, ps, us, strict=True)
        ]
        return treedef.unflatten(map(closed, leaves, new)), state

    return GradientTransformationExtraArgs(init, update, needs=("max_logits",))


def _checked(exponents: Any) -> tuple[tuple[Any, Any], ...]:
    """The pairs, as a tuple."""
    if not isinstance(exponents, tuple | list) or not exponents:
        raise TypeError(f"{NAME}: exponents must be pairs of a choice of parameters and a power, got {exponents!r}")
    checked = []
    for i, rule in enumerate(exponents):
        where = f"{NAME}: exponents[{i}]"
        if not isinstance(rule, tuple | list) or len(rule) != 2:
            raise TypeError(f"{where} must be a pair of a choice of parameters and a power, got {rule!r}")
        chosen, power = rule
        powers = power if isinstance(power, tuple | list) else (power,)
        if not powers or not all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in powers):
            raise ValueError(f"{where}: a power must be a number of at least 0, or one for each block, got {power!r}")
        checked.append((check_where(where, chosen), tuple(power) if isinstance(power, list) else power))
    return tuple(checked)


def _chosen(rules: tuple[tuple[Any, Any], ...], params: Params) -> dict[str, _Chosen]:
    """The chosen parameters by their paths."""
    names, leaves, _ = named_leaves(params)
    for chosen, _ in rules:
        check_found(f"{NAME}: exponents: {described(chosen)}", chosen, params, names)
    found = {}
    for name, leaf in zip(names, leaves, strict=True):
        if is_absent(leaf):
            continue
        role = carried_role(leaf)
        power = next((power for chosen, power in rules if matches(chosen, name, opened(leaf), role)), None)
        if power is not None:
            found[name] = _of(name, leaf, role, power)
    return found


def _of(name: str, leaf: Any, role: Role | None, power: Any) -> _Chosen:
    at = f"{NAME}: at {name or 'the root'}"
    if role is None:
        raise ValueError(f"{at}: no role is known: wrap the whole transformation in with_roles(rules, ...)")
    if role.heads is None:
        raise ValueError(
            f"{at}: {role} does not say which axis has the heads: give Role(..., heads=axis); a key that all queries "
            f"share needs such an axis too, of length 1"
        )
    shape = jnp.shape(opened(leaf))
    role = role.fitted(len(shape))
    found = _Chosen(leaf, role, whole_shape_of(shape, carried_split(leaf)), power)
    if isinstance(power, tuple):
        width = math.prod(found.shape[a] for a in _widths(role))
        if len(power) != len(role.blocks) or sum(role.blocks) != width:
            raise ValueError(
                f"{at}: {len(power)} powers for the blocks {role.blocks} of {width} outputs a head: the role must have "
                f"as many blocks, which add up to the outputs"
            )
    return found


def _widths(role: Role) -> tuple[int, ...]:
    """The axes of the outputs of one head, along which blocks lie beside each other."""
    return tuple(a for a in role.out_axes if a != role.heads)


def _factors(chosen: dict[str, _Chosen], max_logits: Any, threshold: Any) -> dict[str, jax.Array]:
    """What each chosen parameter is multiplied by, with as many axes as the parameter."""
    names, arrays, _ = named_leaves(max_logits)
    entries = {name.strip("/"): x for name, x in zip(names, arrays, strict=True) if x is not None}
    attentions: dict[str, list[str]] = {}
    for name in chosen:
        attentions.setdefault(_entry_for(name, entries), []).append(name)
    factors = {}
    for entry, members in attentions.items():
        logits, limit = widen((replicated(jnp.asarray(entries[entry])), threshold))
        groups = min(chosen[name].heads for name in members)
        for name in members:
            _check_heads(name, chosen[name], logits.shape, groups)
        # What is not finite says nothing of by how much to scale, and would end in the weights.
        gamma = jnp.where(jnp.isfinite(logits), limit / jnp.maximum(logits, limit), 1.0)
        gamma = jnp.min(gamma.reshape(*logits.shape[:-1], groups, logits.shape[-1] // max(groups, 1)), axis=-1)
        factors |= {name: _factor(chosen[name], gamma) for name in members}
    return factors


def _entry_for(name: str, entries: dict[str, Any]) -> str:
    """The longest path in `max_logits` with which the path of a parameter begins."""
    parts = name.split("/")
    beginnings = ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]
    found = next((x for x in beginnings if x in entries), None)
    if found is None:
        raise ValueError(
            f"{NAME}: max_logits has nothing for {name}: give an array at the beginning of its path, such as "
            f"{beginnings[1]!r}; there is {', '.join(map(repr, entries)) or 'nothing'}"
        )
    return found


def _check_heads(name: str, x: _Chosen, given: tuple[int, ...], groups: int) -> None:
    stack = tuple(x.shape[a] for a in x.axes[:-1])
    if given[:-1] != stack or len(given) != len(x.axes):
        wanted = f"({''.join(f'{n}, ' for n in stack)}heads{',' * (not stack)})"
        raise ValueError(
            f"{NAME}: at {name or 'the root'}: max_logits must be of shape {wanted} for this parameter of shape "
            f"{x.shape}, got shape {given}; for layers that are apart, give arrays by the beginnings of paths"
        )
    if given[-1] % max(x.heads, 1) or x.heads % max(groups, 1):
        raise ValueError(
            f"{NAME}: at {name or 'the root'}: max_logits are of {given[-1]} heads, this parameter has {x.heads}, and "
            f"the fewest heads among the parameters of this attention are {groups}: each must divide the one before"
        )


def _factor(x: _Chosen, gamma: jax.Array) -> jax.Array:
    """gamma to the power, or powers, of a parameter, with an axis for each of its axes."""
    ndim, axes, widths = len(x.shape), x.axes, _widths(x.role)
    gamma = _placed(jnp.repeat(gamma, x.heads // max(gamma.shape[-1], 1), axis=-1), axes, ndim)
    power = jnp.asarray(x.power, gamma.dtype)
    if power.ndim:
        power = jnp.repeat(power, np.array(x.role.blocks)).reshape([x.shape[a] for a in widths])
        power, axes = _placed(power, widths, ndim), (*axes, *widths)
    factor = gamma**power
    split = carried_split(x.leaf)
    if split is None or not split.names:
        return factor
    # Along the other axes, of length 1, every device has the same.
    return own_part(factor, split_by(tuple(n if a in axes else () for a, n in enumerate(split.of_each(ndim)))))


def _placed(x: jax.Array, axes: tuple[int, ...], ndim: int) -> jax.Array:
    """An array that has these axes of an array of this rank, with its other axes, of length 1."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    return jnp.expand_dims(jnp.transpose(x, order), tuple(a for a in range(ndim) if a not in axes))


@jax.jit
def _scaled(p: Any, u: Any, factor: jax.Array) -> jax.Array:
    p, u, factor = widen((p, u, factor), compute_dtype(p, u))
    with promotion(p, u):
        return jnp.where(factor < 1, factor * (p + u) - p, u)
