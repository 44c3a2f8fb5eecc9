# SPDX-License-Identifier: Apache-2.0
"""Rounding stages: they let parameters in bfloat16 or float16 move even by updates below their precision.

They stand last in a chain. Each computes the new parameter in float32, rounds it, keeps what rounding lost, and returns
the difference in float32, with which `apply_updates` arrives exactly at the rounded parameter.
"""

import functools
import zlib
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
from gradtx.core._kinds import Seed
from gradtx.core._over_devices import Split, here, on_leaf
from gradtx.core._ranges import Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import check_state
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._keys import key_maker
from gradtx.numerics._random_bits import random_bits
from gradtx.numerics._rounding import (
    difference_to,
    from_order,
    order,
    round_at_random,
    round_half_up,
    round_to_nearest,
    ulp,
)
from gradtx.precision._low_leaves import init_low, masters, on_arrays, update_low

Bits = Annotated[int, Range(low=8, high=16, integer=True, example=8)]
EXACT = 16
LEVELS = {8: 127 / 0.5, EXACT: 2.0**15}
"""The number of steps of the error bits in one ulp, by bits."""


class RoundStochasticallyState(NamedTuple):
    """The number of updates made, and the random key of the whole run as two words."""

    count: jax.Array
    rng_key: jax.Array

    counts_from = {"count": 0}
    lands_exactly = True


class CompensateState(NamedTuple):
    """The rounding error of each parameter of low precision, in its dtype; None for the others."""

    residual: Updates

    lands_exactly = True

    def master_params(self, params: Params) -> Params:
        return masters(_with_residual, params, self.residual)


class ErrorBitsState(NamedTuple):
    """The bits below the precision of each parameter of low precision, as integers; None for the others."""

    error: Updates

    lands_exactly = True

    def master_params(self, params: Params) -> Params:
        return masters(_with_error, params, self.error)


class KeepMasterState(NamedTuple):
    """The float32 value of each parameter of low precision; None for the others."""

    master: Updates

    lands_exactly = True

    def master_params(self, params: Params) -> Params:
        return masters(_adopted, params, self.master)


@transformation
def round_stochastically(seed: Seed) -> GradientTransformationExtraArgs:
    """Stochastic rounding: the new parameter is one of the two neighbors of p + u, with mean p + u. Last in a chain.

    ```
    p = above with probability (p_old + u - below) / (above - below), else below
    ```

    No rounding error is kept: the result is right on average, over many steps or many parameters. Random numbers depend
    on the seed, the step, the parameter's path and the element's position; they are the same on any number of devices,
    but inside `shard_map` only with `over_axes`: without it a stage sees a shard as if it were the whole array. The
    updates of float32 parameters pass unchanged.

    Args:
      seed: a whole number, or a key of `jax.random`.

    Reference: Zamirai et al. 2020, arXiv:2010.06192.
    """
    name = "round_stochastically"
    fresh_key = key_maker(f"{name}: seed", seed)

    def init(params: Params) -> RoundStochasticallyState:
        init_low(name, lambda p: None, params)
        return RoundStochasticallyState(jnp.zeros([], jnp.int32), _words(fresh_key()))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state(name, state, RoundStochasticallyState)
        key = jax.random.wrap_key_data(jnp.asarray(state.rng_key), impl="threefry2x32")
        key = jax.random.fold_in(key, state.count)

        def step(path: str, p: Any, u: Any, slot: None) -> tuple[jax.Array, None]:
            return _to_neighbor(p, u, key, np.uint32(zlib.crc32(path.encode())), here()), None

        new, _ = update_low(name, step, updates, params)
        return new, RoundStochasticallyState(safe_increment(state.count), state.rng_key)

    return GradientTransformationExtraArgs(init, update)


@transformation
def compensate() -> GradientTransformationExtraArgs:
    """Keeps the rounding error in a second number of the parameter's dtype (Kahan summation). Last in a chain.

    ```
    p = round(p_old + c + u)
    c = round(c + u + p_old - p)
    ```

    p + c has twice the bits of p: about 16 in bfloat16. The updates of float32 parameters pass unchanged.

    Reference: Zamirai et al. 2020, arXiv:2010.06192.
    """

    def init(params: Params) -> CompensateState:
        return CompensateState(init_low("compensate", lambda p: jnp.zeros_like(p, jnp.result_type(p)), params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("compensate", state, CompensateState)
        new, residual = update_low("compensate", on_arrays(_compensated), updates, params, state.residual)
        return new, CompensateState(residual)

    return GradientTransformationExtraArgs(init, update)


@transformation
def error_bits(bits: Bits = 8) -> GradientTransformationExtraArgs:
    """Keeps the bits below the precision of the parameter as an integer of 8 or 16 bits. Last in a chain.

    ```
    w = p_old + c ulp(p_old) / 254 + u        (8 bits; |c| <= 127)
    p = round(w)
    c = round(254 (w - p) / ulp(p))
    ```

    With 16 bits, a bfloat16 parameter and its bits hold the float32 w exactly; a float16 parameter and its bits hold it
    exactly from 2^-16 on, and up to 2^-40 below. The updates of float32 parameters pass unchanged.

    Args:
      bits: 8 or 16.

    Raises: ValueError for other numbers of bits.

    Reference: Gonzalez Ortiz et al. 2026, arXiv:2602.23349 (8 bits).
    """
    if bits not in LEVELS:
        raise ValueError(f"error_bits: bits must be 8 or 16, got {bits!r}")
    dtype = jnp.int8 if bits == 8 else jnp.int16

    def init(params: Params) -> ErrorBitsState:
        return ErrorBitsState(init_low("error_bits", lambda p: jnp.zeros_like(p, dtype), params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("error_bits", state, ErrorBitsState)
        new, error = update_low("error_bits", on_arrays(_error_kept), updates, params, state.error)
        return new, ErrorBitsState(error)

    return GradientTransformationExtraArgs(init, update)


@transformation
def keep_master() -> GradientTransformationExtraArgs:
    """Keeps a float32 copy m of each parameter, the master, which is rounded to the parameter. Last in a chain.

    ```
    m = m + u
    p = round(m)
    ```

    A parameter that is not its rounded master was changed by others, and becomes the master. The updates of float32
    parameters pass unchanged.

    Reference: Micikevicius et al. 2017, arXiv:1710.03740.
    """

    def init(params: Params) -> KeepMasterState:
        return KeepMasterState(init_low("keep_master", lambda p: jnp.asarray(p).astype(jnp.float32), params))

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("keep_master", state, KeepMasterState)
        new, master = update_low("keep_master", on_arrays(_master_moved), updates, params, state.master)
        return new, KeepMasterState(master)

    return GradientTransformationExtraArgs(init, update)


# The steps on one array. Parameters come in their own dtype.


@functools.partial(jax.jit, static_argnames="split")
def _to_neighbor(p: jax.Array, u: jax.Array, key: jax.Array, number: jax.Array, split: Split | None) -> jax.Array:
    wide = p.astype(jnp.float32)
    with on_leaf(split, p.ndim):
        bits = random_bits(jax.random.fold_in(key, number), p)
    return difference_to(round_at_random(wide + u, p.dtype, bits), wide, p.dtype)[0]


def _words(key: jax.Array) -> jax.Array:
    """A key as two words, which every checkpointer can write, for threefry, whose numbers depend on positions only.

    The numbers of the generator that is common on TPUs depend on the devices.
    """
    return jax.random.key_data(key)[:2]


@jax.jit
def _compensated(p: jax.Array, u: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide, total = p.astype(jnp.float32), c.astype(jnp.float32) + u
    u, q = difference_to(round_to_nearest(wide + total, p.dtype), wide, p.dtype)
    # The error exceeds an ulp only at the end of the dtype's range; there it must not add up, or p could not turn back.
    limit = ulp(q, p.dtype)
    missing = jnp.clip(total - (q - wide), -limit, limit)
    return u, _if_finite(round_to_nearest(missing, p.dtype)).astype(c.dtype)


def _with_residual(p: jax.Array, c: jax.Array) -> jax.Array:
    return p.astype(jnp.float32) + c.astype(jnp.float32)


@jax.jit
def _error_kept(p: jax.Array, u: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    exact, w = _is_exact(p, c), _with_error(p, c) + u
    q = round_half_up(w) if exact else round_to_nearest(w, p.dtype)
    u, q = difference_to(q, p.astype(jnp.float32), p.dtype)
    if exact:
        # The difference of two infinities would overflow, but `_if_finite` replaces it.
        steps = _if_finite((order(w) - order(q)).astype(jnp.float32), w)
    else:
        steps = _if_finite(jax.lax.round((w - q) / ulp(q, p.dtype) * _levels(c)))
    low, high = (jnp.iinfo(c.dtype).min if exact else -jnp.iinfo(c.dtype).max), jnp.iinfo(c.dtype).max
    return u, jnp.clip(steps, low, high).astype(c.dtype)


def _with_error(p: jax.Array, c: jax.Array) -> jax.Array:
    wide = p.astype(jnp.float32)
    if _is_exact(p, c):
        return jnp.where(jnp.isfinite(wide), from_order(order(wide) + c.astype(jnp.int32)), wide)
    return wide + c.astype(jnp.float32) * ulp(wide, p.dtype) / _levels(c)


def _is_exact(p: jax.Array, c: jax.Array) -> bool:
    return p.dtype == jnp.bfloat16 and c.dtype == jnp.int16


def _levels(c: jax.Array) -> float:
    return LEVELS[jnp.iinfo(c.dtype).bits]


@jax.jit
def _master_moved(p: jax.Array, u: jax.Array, master: jax.Array) -> tuple[jax.Array, jax.Array]:
    master = _adopted(p, master) + u
    wide = p.astype(jnp.float32)
    return difference_to(round_to_nearest(master, p.dtype), wide, p.dtype)[0], master


def _adopted(p: jax.Array, master: jax.Array) -> jax.Array:
    wide = p.astype(jnp.float32)
    return jnp.where(round_to_nearest(master, p.dtype) == wide, master, wide)


def _if_finite(x: jax.Array, of: jax.Array | None = None) -> jax.Array:
    """x where it is finite (where `of` is, if given), else 0, so that a bad step never spoils the kept error."""
    return jnp.where(jnp.isfinite(x if of is None else of), x, jnp.zeros([], x.dtype))
