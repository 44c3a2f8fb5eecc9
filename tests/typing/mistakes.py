# SPDX-License-Identifier: Apache-2.0
# pyright: strict, reportUnknownMemberType=false, reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that a type checker finds: pyright ignores each where it is told to, and reports where there is none."""

import jax.numpy as jnp

import gradtx
from gradtx.states import ScaleByAdamState

params = {"w": jnp.ones(2)}


def of_a_known_state(tx: gradtx.GradientTransformation[ScaleByAdamState]) -> None:
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    print(state.count, state.velocity)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]
    tx.update(params)  # pyright: ignore[reportCallIssue]
    tx.update(params, params, state)  # pyright: ignore[reportArgumentType]


gradtx.adam("fast")  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, betas=(0.9, 0.99))  # pyright: ignore[reportCallIssue]
gradtx.adamw(1e-3, nesterov="yes")  # pyright: ignore[reportArgumentType]
gradtx.muon(1e-3, scaling="jordans")  # pyright: ignore[reportArgumentType]
gradtx.chain([gradtx.sgd(0.1)])  # pyright: ignore[reportArgumentType]
gradtx.chain("adam")  # pyright: ignore[reportArgumentType]
gradtx.chain(gradtx.adam)  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, b1="x")  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, "0.9")  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, b2=(0.9, 0.99))  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, b2=None)  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, eps=[1e-8])  # pyright: ignore[reportArgumentType]
gradtx.adam(1e-3, mu_dtype=3)  # pyright: ignore[reportArgumentType]
gradtx.adamw(1e-3, weight_decay={"w": 0.1})  # pyright: ignore[reportArgumentType]
gradtx.sgd([0.1])  # pyright: ignore[reportArgumentType]
gradtx.ema("x")  # pyright: ignore[reportArgumentType]
gradtx.clip_by_global_norm("1")  # pyright: ignore[reportArgumentType]
gradtx.clip_by_global_norm(1j)  # pyright: ignore[reportArgumentType]
gradtx.warmup_cosine_decay_schedule("0", 1e-2, 10, 100)  # pyright: ignore[reportArgumentType]
gradtx.schedules.warmup("10")  # pyright: ignore[reportArgumentType]
gradtx.losses.huber_loss(params["w"], delta="1")  # pyright: ignore[reportArgumentType]
