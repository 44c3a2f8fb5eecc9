# SPDX-License-Identifier: Apache-2.0
"""Clauses on gradients that are extreme or broken: zero, tiny and huge ones, NaN and infinities."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core._calls import Value
from gradtx.testing._case import Case, Step, is_inexact
from gradtx.testing._compare import NotApplicable, finite, numbers, require, same_values
from gradtx.wrappers._guard import guard

BAD_STEP = 1
"""The number of the bad step: the first is a good one, so that there is something to be spoiled."""


def small_gradients(case: Case) -> None:
    """Gradients of 0, and of 1e-30 and 1e-42 of their size, make updates that are finite, and no NaN in the state."""
    for size in (0.0, 1e-30, 1e-42):
        gradients = jax.tree.map(lambda g, size=size: _scaled(g, size), case.gradients)
        for i, step in enumerate(case.like(case.params, gradients, steps=2).plain, 1):
            when = f"with gradients of {size:g} of their size"
            finite(f"{when}, the updates of step {i}", step.updates)
            finite(f"{when}, the state after step {i}", step.state, but_infinite=True)


def _scaled(g: jax.Array, size: float) -> Any:
    # In NumPy: XLA flushes the smallest numbers to zero.
    return jnp.asarray((np.asarray(g) * np.float64(size)).astype(g.dtype)) if is_inexact(g) else g


def finite_derivatives(case: Case) -> None:
    """Derivatives through two steps, by gradients, parameters and hyperparameters, are finite at gradients of 0."""
    if not case.in_one_memory:
        raise NotApplicable("its state lies in another memory, and JAX has no derivatives of transfers")
    leaves, treedef = jax.tree.flatten(case.tx) if isinstance(case.tx, Value) else ([], None)
    numbers_of_call = [jnp.asarray(x, jnp.result_type(float)) for x in leaves]

    def loss(gradients: Any, params: Any, hyperparameters: Any) -> jax.Array:
        tx = case.tx if treedef is None else jax.tree.unflatten(treedef, hyperparameters)
        last = dataclasses.replace(case.like(params, gradients, steps=2), tx=tx).plain[-1].params
        return sum((jnp.sum(jnp.abs(p) ** 2).astype(jnp.result_type(float)) for p in _floating(last)), jnp.zeros([]))

    derivative = jax.grad(loss, argnums=(0, 1, 2), allow_int=True)
    zeros = jax.tree.map(jnp.zeros_like, case.gradients)
    try:
        jax.eval_shape(derivative, zeros, case.params, numbers_of_call)
    except ValueError as error:
        if "Reverse-mode" not in str(error):
            raise
        raise NotApplicable("it has a loop of unknown length, of which JAX has derivatives forwards only") from None
    with jax.disable_jit():
        by = derivative(zeros, case.params, numbers_of_call)
    for what, tree in zip(("gradients", "parameters", "hyperparameters"), by, strict=True):
        finite(f"at gradients of 0, the derivatives by the {what}", tree)


def _floating(tree: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(tree) if is_inexact(x)]


def guarded(case: Case) -> None:
    """Inside `gradtx.guard`, a step with a NaN is left out: the run ends bit for bit where it ends without the step."""
    case = dataclasses.replace(case, tx=guard(case.tx), steps=max(case.steps, 3))
    with_nan = _run_with(case, _with_one(case.gradients, jnp.nan))
    without = case.go_on(case.state, case.params, case.step, [i for i in range(case.steps) if i != BAD_STEP])
    same_values("the parameters after a run with a NaN, guarded,", with_nan.params, "those without", without[-1].params)
    inner, wanted = with_nan.state.inner_state, without[-1].state.inner_state
    same_values("the state after a run with a NaN, guarded,", inner, "that without the step", wanted)


def survives_huge(case: Case) -> None:
    """After one step with gradients of 1e20, whose squares are infinite in float32, the run goes on."""
    huge = jax.tree.map(lambda g: jnp.sign(g) * jnp.asarray(1e20, g.dtype) if is_inexact(g) else g, case.gradients)
    _survives("gradients of 1e20", case, huge)


def survives_nan(case: Case) -> None:
    """After one step with a NaN in one element of the gradients, the run goes on."""
    _survives("one NaN in the gradients", case, _with_one(case.gradients, jnp.nan))


def survives_infinity(case: Case) -> None:
    """After one step with an infinity in one element of the gradients, the run goes on."""
    _survives("one infinity in the gradients", case, _with_one(case.gradients, jnp.inf))


def _with_one(gradients: Any, value: float) -> Any:
    """The gradients with this value as the first element of the first leaf that has any."""
    leaves, treedef = jax.tree.flatten(gradients)
    places = [i for i, g in enumerate(leaves) if is_inexact(g) and g.size]
    if not places:
        raise NotApplicable("there is no gradient that could be bad")
    first = leaves[places[0]]
    leaves[places[0]] = first.reshape(-1).at[0].set(jnp.asarray(value, first.dtype)).reshape(first.shape)
    return treedef.unflatten(leaves)


def _run_with(case: Case, bad: Any) -> Step:
    """The last step of a run in which one step has these gradients."""
    before = case.go_on(case.state, case.params, case.step, range(BAD_STEP))[-1]
    spoiled = case.like(case.params, bad).step(bad, before.state, before.params)
    return case.go_on(spoiled.state, spoiled.params, case.step, range(BAD_STEP + 1, case.steps))[-1]


def _survives(what: str, case: Case, bad: Any) -> None:
    case = dataclasses.replace(case, steps=max(case.steps, 4))
    last = _run_with(case, bad)
    params = [numbers(p) for p in _floating(last.params)]
    lost = sum(int(np.sum(~np.isfinite(p.astype(np.complex128)))) for p in params)
    count = sum(p.size for p in params)
    require(not lost, f"after one step with {what}, {lost} of {count} numbers in the parameters are NaN or infinite")
    finite(f"after one step with {what}, the state", last.state, but_infinite=True)
    usual = zip(_depends(case, last), _depends(case, case.plain[-1]), strict=True)
    deaf = sum(int(np.sum(wanted & ~found)) for found, wanted in usual)
    require(
        not deaf, f"after one step with {what}, {deaf} of {count} parameters do not follow their gradients any more"
    )


def _depends(case: Case, after: Step) -> list[np.ndarray]:
    """For each leaf, where the next updates depend on the gradients; weight decay would move parameters without."""
    ways = (jax.tree.map(lambda g, sign=sign: g * jnp.asarray(sign, g.dtype), case.gradients) for sign in (1, -1))
    there, back = (jax.tree.leaves(case.update(g, after.state, after.params)[0]) for g in ways)
    return [numbers(a) != numbers(b) for a, b in zip(there, back, strict=True)]
