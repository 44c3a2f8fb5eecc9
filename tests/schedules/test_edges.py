# SPDX-License-Identifier: Apache-2.0
"""Schedules at the edge of their ranges and beyond, where they still have a meaning: that of Optax, if it has one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.schedules import ademamix_alpha_schedule, ademamix_b3_schedule, constant, cosine, linear, rex, warmup

STEPS = range(0, 12, 3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("exponential_decay", (1.0, 0, 0.5)),
        ("exponential_decay", (1.0, -3, 0.5)),
        ("exponential_decay", (1.0, 3, 0.0)),
        ("exponential_decay", (1.0, 3, 0.0, 0, False, 0.3)),
        ("exponential_decay", (1.0, 3, 0.5, -3)),
        ("polynomial_schedule", (1.0, 0.2, 2, 0)),
        ("polynomial_schedule", (1.0, 0.2, 2, -1)),
        ("polynomial_schedule", (1.0, 0.2, 1, 10, -3)),
        ("linear_schedule", (1.0, 0.2, 0)),
        ("linear_schedule", (1.0, 0.2, 0, 3)),
        ("warmup_exponential_decay_schedule", (0.0, 1.0, 3, 0, 0.5)),
        ("warmup_exponential_decay_schedule", (0.0, 1.0, 3, 3, 0.0)),
        ("piecewise_constant_schedule", (1.0, {-1: 0.5, 3: 0.5})),
    ],
)
def test_the_edges_are_optaxs(name: str, arguments: tuple):
    ours, theirs = getattr(gradtx, name)(*arguments), getattr(optax, name)(*arguments)
    np.testing.assert_allclose([ours(t) for t in STEPS], [theirs(jnp.asarray(t)) for t in STEPS], rtol=1e-6)


def test_a_traced_number_of_steps():
    schedules = [gradtx.exponential_decay(2.0, 0, 0.5, 0, False, 0.3), gradtx.linear_schedule(2.0, 0.2, 0)]
    schedules.append(gradtx.exponential_decay(2.0, 4, 0.0))
    schedules.append(gradtx.polynomial_schedule(2.0, 0.2, 1, 0, cycle=True))
    values = jax.jit(lambda schedules: [s(jnp.asarray(5)) for s in schedules])(schedules)
    np.testing.assert_allclose(values, [2.0] * 4, rtol=1e-6)
    gradients = jax.grad(lambda s: s(jnp.asarray(5)))(jax.tree.map(jnp.float32, schedules[0]))
    np.testing.assert_allclose(jax.tree.leaves(gradients), [1.0, 0.0, 0.0, 0.0, 0.0])


def test_lengths():
    assert gradtx.linear_schedule(1.0, 0.0, 0, 3).length == 3 and gradtx.linear_schedule(1.0, 0.0, -2, -3).length == 0


def test_no_warm_up():
    assert [float(gradtx.warmup_constant_schedule(0.0, 1.0, 0)(t)) for t in STEPS] == [1.0] * 4
    np.testing.assert_allclose([warmup(0).then(linear(6))(t) for t in STEPS], [1.0, 0.5, 0.0, 0.0])
    assert [float(ademamix_alpha_schedule(5.0, 0)(t)) for t in STEPS] == [5.0] * 4
    np.testing.assert_allclose([ademamix_b3_schedule(0.99, 0)(t) for t in STEPS], [0.99] * 4, rtol=1e-6)


@pytest.mark.parametrize("piece", [linear, cosine, rex, warmup])
def test_pieces_of_no_steps_are_at_their_end(piece):
    assert piece(0)(0) == piece(5)(5) and piece(0)(7) == piece(5)(5) and piece(0).length == 0
    assert constant(0).then(piece(5))(3) == piece(5)(3)
    with pytest.raises(ValueError, match="repeat: .* must take at least one step"):
        piece(0).repeat()


def test_a_sawtooth():
    saw = gradtx.cyclic_schedule(0.0, 1.0, 0, 4)
    np.testing.assert_allclose([saw(t) for t in range(8)], [1.0, 0.75, 0.5, 0.25] * 2)
