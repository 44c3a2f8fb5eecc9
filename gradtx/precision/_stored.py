# SPDX-License-Identifier: Apache-2.0
"""Any transformation with the slots of its state stored in fewer bytes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._roles._boxing import looks
from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._over_devices import Split, devices, whole_shape_of
from gradtx.core._payloads import of_codec, payload_of, payloads
from gradtx.core._ranges import NonNegativeInt
from gradtx.core._roles import carried_role, carried_split, is_box, names_of, opened
from gradtx.core._said import check_said
from gradtx.core._selectors import Where, check_found, check_where, described, matches, named_leaves
from gradtx.core._transformation import GradientTransformationExtraArgs, Transformation, as_inner
from gradtx.core._trees import check_state, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.core._unwrapping import unwrapped
from gradtx.precision._codec import Codec
from gradtx.precision._parts import decode, encode
from gradtx.surgery._slots import dotted, split

Rules = tuple[tuple[Where, Codec], ...]


class StoredState(NamedTuple):
    """The number of updates made, from which random bits are drawn, and the state of the inner transformation."""

    count: jax.Array
    inner_state: OptState

    def metrics(self) -> dict[str, jax.Array]:
        """The fraction of codes that are the largest possible (one per block is normal), and the largest scale."""
        kept = [x for x in payloads(self.inner_state) if not x.codec.exact]
        if not kept:
            return {}
        size = sum(math.prod(x.shape) for x in kept)
        saturated = jnp.sum(jnp.stack([x.saturated() for x in kept]))
        return {
            "saturated_codes": saturated.astype(jnp.result_type(float)) / size,
            "largest_scale": jnp.max(jnp.stack([x.largest_scale() for x in kept])),
        }


class StoredArray(NamedTuple):
    """One stored array of a state: its position among the leaves, its codec, and its shape and dtype when decoded.

    Of an array in the shape of its parameter also the split inside `over_axes`.
    """

    position: int
    codec: Codec
    shape: tuple[int, ...]
    dtype: Any
    split: Split | None


class StoragePlan(NamedTuple):
    """How a state is stored: its structure when decoded, and the arrays that codecs keep."""

    structure: Any
    slots: tuple[StoredArray, ...]


@transformation
def stored(
    inner: Transformation, policy: Any, *, min_size: NonNegativeInt = 4096, seed: NonNegativeInt = 0
) -> GradientTransformationExtraArgs:
    """`inner` with its slots, such as moments, kept by storage codecs: decoded before each update, encoded after it.

    The arithmetic of `inner` is unchanged, in float32; under `jit`, decoding, update and encoding are one program. In
    place of an array the state holds the codec's payload, which consists of plain arrays. Only slots with real floating
    arrays for each parameter can be stored; counts, integers and complex arrays stay as they are.

    Args:
      inner: the transformation.
      policy: a codec for each slot to store, by its name, `{"mu": bfloat16(), "nu": int8(signed=False)}`, or by its
        path in the state ("0.mu") if several slots have the name; or one codec for all slots that it fits. Instead of a
        codec, a list of pairs (where, codec), of which the first that matches the parameter counts; parameters that
        none matches are not stored. Blocks lie along the last axis of the array, even if that is the axis of a stack.
      min_size: slots with fewer elements stay in float32.
      seed: for codecs that round stochastically; random bits depend on seed, step, slot and element.

    Raises:
      ValueError: at `init`, for a name that no slot has, for paths that no parameter has, and for a codec that does not
        fit, with the slot and its path.

    Reference: Dettmers et al. 2021, arXiv:2110.02861.
    """
    tx = as_inner("stored: inner", inner)
    rules = _checked_policy(policy)
    plans: dict[Any, StoragePlan] = {}  # by `looks`: making a plan at each update is slow

    def plan(params: Params) -> StoragePlan:
        names = {n for x in jax.tree.leaves(params, is_leaf=is_box) for n in names_of(x)}
        key = looks(params), tuple((n, devices((n,))) for n in sorted(names))
        if key not in plans:
            plans[key] = _plan(rules, jax.eval_shape(tx.init, params), params, min_size, bool(jax.tree.leaves(params)))
        return plans[key]

    def encoded(plan: StoragePlan, state: OptState, step: Any) -> OptState:
        leaves = plan.structure.flatten_up_to(state)
        for number, slot in enumerate(plan.slots):
            key = None
            if slot.codec.needs_key:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), number)
            leaves[slot.position] = of_codec(slot.codec, encode(slot.codec, leaves[slot.position], key, slot.split))
        return plan.structure.unflatten(leaves)

    def init(params: Params) -> StoredState:
        count = jnp.zeros([], jnp.int32)
        # Without the barrier, compilers constant-fold the encoding of zeros: minutes for large slots.
        return StoredState(count, encoded(plan(params), jax.lax.optimization_barrier(tx.init(params)), count))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("stored", state, StoredState)
        now, count = plan(updates if params is None else params), safe_increment(state.count)
        if any(slot.codec.needs_key or not slot.codec.plain for slot in now.slots):
            check_said("stored", params)
        try:
            leaves = now.structure.flatten_up_to(state.inner_state)
        except (ValueError, TypeError) as error:
            raise TypeError(f"stored: the state was made for other parameters: {error}") from None
        for slot in now.slots:
            payload = payload_of(slot.codec, leaves[slot.position])
            if payload is None:
                raise TypeError(
                    f"stored: the state was made by another policy: where {slot.codec!r} keeps an array of shape "
                    f"{slot.shape}, it has {leaves[slot.position]!r}"
                )
            leaves[slot.position] = decode(slot.codec, payload, slot.shape, slot.dtype, slot.split)
        new, inner_state = tx.update(updates, now.structure.unflatten(leaves), params, **extra)
        return new, StoredState(count, encoded(now, inner_state, count))

    return GradientTransformationExtraArgs(
        init, update, parts=lambda state: {"inner_state": (inner, state.inner_state)}
    )


ALL = ""
"""The key of the rules that hold for all slots."""


def _checked_policy(policy: Any) -> dict[str, Rules]:
    """The checked rules by the name or path of the slot."""
    if not isinstance(policy, Mapping):
        return {ALL: _checked_rules("policy", policy)}
    if not policy:
        raise ValueError("stored: policy names no slot; give a codec by the name of a slot, or one for all")
    return {name: _checked_rules(f"policy[{name!r}]", entry) for name, entry in policy.items()}


def _checked_rules(where: str, entry: Any) -> Rules:
    if isinstance(entry, Codec):
        return (("**", entry),)
    if not isinstance(entry, tuple | list) or not all(isinstance(x, tuple | list) and len(x) == 2 for x in entry):
        raise TypeError(
            f"stored: {where} must be a codec, such as int8(), or pairs of a choice of parameters and a codec, "
            f"got {entry!r}"
        )
    for chosen, codec in entry:
        if not isinstance(codec, Codec):
            raise TypeError(f"stored: {where} must hold a codec for {described(chosen)}, got {codec!r}")
    return tuple((check_where(f"stored: {where}", chosen), codec) for chosen, codec in entry)


def _plan(rules: Mapping[str, Rules], state: Any, params: Params, min_size: int, strict: bool) -> StoragePlan:
    """Which arrays of an (abstract) state are kept by which codec."""
    names, leaves, _ = named_leaves(params)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(unwrapped(params), is_leaf=is_none)[0]]
    known = {path: (name, x) for path, name, x in zip(paths, names, leaves, strict=True)}
    for key, some in rules.items():
        for chosen, _ in some:
            check_found(f"stored: policy{f'[{key!r}]' * (key != ALL)}: {described(chosen)}", chosen, params, names)
    slots, used, there = [], set(), dict[str, None]()
    for part in split(state, params):
        if part.parameter is None:
            continue
        full, name = part.name, dotted(part.field)
        there[name] = None
        key = next((k for k in (full, name, ALL) if k in rules), None)
        if key is None:
            continue
        used.add(key)
        parameter, leaf = known[part.parameter]
        codec = _codec_for(rules[key], parameter, leaf)
        for i, x in enumerate(jax.tree.leaves(part.value) if codec is not None else []):
            assert codec is not None
            between = carried_split(leaf) if x.shape == jnp.shape(opened(leaf)) else None
            where = f"{full} of {parameter or 'the root'}"
            if codec.of_symmetric and (part.kind, name) not in _symmetric_fields(state):
                if key != ALL:
                    raise ValueError(
                        f"stored: {codec!r} cannot keep the slot {where}: {part.kind or 'the state'} does not say that "
                        f'its matrices are symmetric, as by `symmetric_fields = ("{name}",)` in the class'
                    )
            elif _is_kept(x, between, codec, key, where, min_size):
                slots.append(StoredArray(part.start + i, codec, x.shape, x.dtype, between))
    # A slot may be empty for these parameters, such as that of Adam beside Muon if all parameters are matrices.
    unknown = [k for k in rules if k != ALL and k not in used and k.rpartition(".")[2] not in _empty_fields(state)]
    if unknown and strict:
        raise ValueError(f"stored: no slot {', '.join(unknown)}; there are {', '.join(there) or 'none'}")
    return StoragePlan(jax.tree.structure(state), tuple(slots))


def _symmetric_fields(state: Any) -> set[tuple[str, str]]:
    """The slots of which the classes of a state say that they hold symmetric matrices: class and field."""
    if not isinstance(state, tuple | dict):
        return set()
    own = {(type(state).__name__, name) for name in getattr(type(state), "symmetric_fields", ())}
    return own.union(*map(_symmetric_fields, state.values() if isinstance(state, dict) else state))


def _empty_fields(state: Any) -> set[str]:
    """The names of fields without arrays, anywhere in a state."""
    if not isinstance(state, tuple | dict):
        return set()
    names = getattr(state, "_fields", ())
    empty = {name for name, field in zip(names, state, strict=False) if not jax.tree.leaves(field)}
    return empty.union(*map(_empty_fields, state.values() if isinstance(state, dict) else state))


def _codec_for(rules: Rules, parameter: str, leaf: Any) -> Codec | None:
    value, role = opened(leaf), carried_role(leaf)
    return next((codec for chosen, codec in rules if matches(chosen, parameter, value, role)), None)


def _is_kept(x: Any, split: Split | None, codec: Codec, key: str, where: str, min_size: int) -> bool:
    """Whether a codec keeps this array; raises if the policy names the slot and the codec cannot."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if key != ALL:
            raise ValueError(f"stored: the slot {where} holds {x.dtype}, and codecs are for real floating numbers")
        return False
    if x.size * devices(() if split is None else split.names) < max(min_size, 1):
        return False
    shape = x.shape if codec.plain else whole_shape_of(x.shape, split)
    try:
        codec.check(shape)
    except ValueError as error:
        if key != ALL:
            raise ValueError(f"stored: {codec!r} cannot keep the slot {where}, of shape {shape}: {error}") from None
        return False
    return True
