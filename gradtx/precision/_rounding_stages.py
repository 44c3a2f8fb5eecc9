# SPDX-License-Identifier: Apache-2.0
"""Rounding stages: parameters in bfloat16 or float16 that move also by less than they can hold.

They are the last in a chain. Each computes the new parameter in float32, rounds it itself, keeps what is lost, and
returns the difference in float32, with which `apply_updates` lands on exactly what was rounded.
"""

import zlib
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._counts import safe_increment
from gradtx.core._factory import transformation
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
"""Steps of the error bits in an ulp."""


class RoundStochasticallyState(NamedTuple):
    """The number of updates made, and the random key of the whole run: two words."""

    count: jax.Array
    rng_key: jax.Array

    counts_from = {"count": 0}


class CompensateState(NamedTuple):
    """What is missing in each parameter of low precision, in its dtype; None for the others."""

    residual: Updates

    def master_params(self, params: Params) -> Params:
        return masters(_with_residual, params, self.residual)


class ErrorBitsState(NamedTuple):
    """The bits below each parameter of low precision, as whole numbers; None for the others."""

    error: Updates

    def master_params(self, params: Params) -> Params:
        return masters(_with_error, params, self.error)


class KeepMasterState(NamedTuple):
    """The float32 value of each parameter of low precision; None for the others."""

    master: Updates

    def master_params(self, params: Params) -> Params:
        return masters(_adopted, params, self.master)


@transformation
def round_stochastically(seed: Any) -> GradientTransformationExtraArgs:
    """Rounds the new parameter to one of its two neighbors at random, so that its mean is p + u. Last in a chain.

    ```
    p = above with probability (p_old + u - below) / (above - below), else below
    ```

    Nothing is kept, so nothing is lost only on average: over many steps, or many parameters. Random numbers depend on
    the seed, the step, the parameter's path and the place of the element in it; they are the same on any number of
    devices, except inside `shard_map`, where a stage sees a part as if it were all. Parameters in float32 pass
    unchanged.

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
            return _to_neighbor(p, u, key, np.uint32(zlib.crc32(path.encode()))), None

        new, _ = update_low(name, step, updates, params)
        return new, RoundStochasticallyState(safe_increment(state.count), state.rng_key)

    return GradientTransformationExtraArgs(init, update)


@transformation
def compensate() -> GradientTransformationExtraArgs:
    """Keeps what rounding lost in a second number of the parameter's dtype, Kahan's sum. Last in a chain.

    ```
    p = round(p_old + c + u)
    c = round(c + u + p_old - p)
    ```

    p + c has twice the bits of p: about 16 in bfloat16. Parameters in float32 pass unchanged.

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
    """Keeps the bits below those of the parameter as a whole number of 8 or 16 bits. Last in a chain.

    ```
    w = p_old + c ulp(p_old) / 254 + u        (8 bits; |c| <= 127)
    p = round(w)
    c = round(254 (w - p) / ulp(p))
    ```

    With 16 bits, a bfloat16 and its bits are the float32 w, bit for bit; a float16 and its bits are it from 2^-16 on,
    and below to 2^-40. Parameters in float32 pass unchanged.

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
    """Keeps a float32 value of each parameter, the master, of which the parameter is the nearest. Last in a chain.

    ```
    m = m + u
    p = round(m)
    ```

    Where somebody gave the parameter another value than the master's, the master becomes it. Parameters in float32
    pass unchanged.

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


@jax.jit
def _to_neighbor(p: jax.Array, u: jax.Array, key: jax.Array, number: jax.Array) -> jax.Array:
    wide = p.astype(jnp.float32)
    bits = random_bits(jax.random.fold_in(key, number), p)
    return difference_to(round_at_random(wide + u, p.dtype, bits), wide, p.dtype)[0]


def _words(key: jax.Array) -> jax.Array:
    """A key as two words, which every checkpointer can write, for the generator that numbers its results by place.

    The generator that is common on TPUs does not: its numbers depend on the devices.
    """
    return jax.random.key_data(key)[:2]


@jax.jit
def _compensated(p: jax.Array, u: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide, total = p.astype(jnp.float32), c.astype(jnp.float32) + u
    u, q = difference_to(round_to_nearest(wide + total, p.dtype), wide, p.dtype)
    # More than an ulp is missing only at the end of the dtype's range; a sum of it would have to be undone first.
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
        # The difference of infinities of two signs would not fit, but those are left out.
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
    """x where it is finite (or `of` is), 0 elsewhere: what is kept is never spoiled by a step."""
    return jnp.where(jnp.isfinite(x if of is None else of), x, jnp.zeros([], x.dtype))
