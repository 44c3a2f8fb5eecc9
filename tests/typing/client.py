# SPDX-License-Identifier: Apache-2.0
# pyright: strict, reportUnknownMemberType=false
"""A client with types, which pyright checks in strict mode (see `check.py`), and which runs as it stands.

Reports of partly unknown members are off, because JAX's own `grad`, `ones` and `zeros` are such.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

import gradtx
from gradtx import GradientTransformation, GradientTransformationExtraArgs, Role
from gradtx.states import ScaleByAdamState
from gradtx.typing import OptState, Params, Schedule, Updates

Tree = dict[str, jax.Array]


class Training(NamedTuple):
    """What a loop carries along."""

    params: Tree
    state: OptState


def loss(params: Tree) -> jax.Array:
    return jnp.sum(jnp.square(params["w"])) + jnp.sum(params["b"])


def step(tx: GradientTransformation, training: Training) -> Training:
    grads = cast(Tree, jax.grad(loss)(training.params))
    updates, state = tx.update(grads, training.state, training.params)
    params: Tree = gradtx.apply_updates(training.params, updates)
    return Training(params, state)


def negated(inner: GradientTransformation) -> GradientTransformationExtraArgs:
    """A wrapper by hand."""
    inner = gradtx.with_extra_args_support(inner)

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        updates, state = inner.update(updates, state, params, **extra)
        return jax.tree.map(jnp.negative, updates), state

    return GradientTransformationExtraArgs(inner.init, update)


@gradtx.transformation
def scale_by_half(factor: gradtx.typing.Positive = 0.5) -> GradientTransformationExtraArgs:
    """u = factor g."""

    def update(g: jax.Array, slots: tuple[()], p: jax.Array | None, t: None) -> tuple[jax.Array, tuple[()]]:
        return factor * g, slots

    return gradtx.per_parameter(None, update)


def main() -> None:
    rate: Schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, 10, 100)
    pieces: Schedule = gradtx.schedules.warmup(10).then(gradtx.schedules.cosine(90))
    print(float(rate(3)), float(pieces(3)))
    roles = [("w", Role("hidden", stack=0)), ("b", Role("bias", in_axes=0, out_axes=()))]
    tx = gradtx.with_roles(roles, gradtx.chain(gradtx.clip_by_global_norm(1.0), scale_by_half(), gradtx.adamw(rate)))
    params: Tree = {"w": jnp.ones((2, 3, 3)), "b": jnp.zeros(3)}
    training = Training(params, tx.init(params))
    for _ in range(3):
        training = step(tx, training)
    adam: ScaleByAdamState = gradtx.adam(1e-3).init(params)[0]
    print(int(adam.count), gradtx.metrics(training.state, tx), gradtx.describe(tx, params).stages[0].call)
    init, update = negated(gradtx.sgd(0.1))
    updates, _ = update(params, init(params), params)
    value: jax.Array = gradtx.losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3)) / 3)
    print(updates["w"].shape, gradtx.tree.norm(params), value.shape, gradtx.precision.int8(), gradtx.__version__)
    gradtx.testing.check_contract(scale_by_half(), params)


if __name__ == "__main__":
    main()
