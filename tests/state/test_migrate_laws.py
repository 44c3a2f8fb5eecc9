# SPDX-License-Identifier: Apache-2.0
"""What `migrate` promises for the state of every factory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import migrate
from gradtx.testing._compare import numbers
from support.registry import FACTORIES, MEASURES, PARAMS, example

pytestmark = pytest.mark.slow

COVERED = [n for n in FACTORIES if n not in MEASURES]
each_factory = pytest.mark.parametrize("name", COVERED)


def altered(i, x):
    """Another number in each leaf, so that none can be taken for another."""
    if jnp.issubdtype(x.dtype, jnp.bool_):
        return ~x
    return x + jnp.asarray(i + 1, x.dtype) if jnp.issubdtype(x.dtype, jnp.number) else x


def state_of(tx):
    leaves, treedef = jax.tree.flatten(tx.init(PARAMS))
    return jax.tree.unflatten(treedef, list(map(altered, range(len(leaves)), leaves)))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(numbers(x), numbers(y))


def assert_all_carried(report):
    assert not (report.grown or report.initialized or report.dropped or report.notes), str(report)


@each_factory
def test_to_itself_everything_is_carried(name):
    tx = example(name)
    state = state_of(tx)
    new, report = migrate(state, tx, PARAMS)
    assert_same(new, state)
    assert_all_carried(report)
    new, report = migrate(state, tx, PARAMS, old_tx=tx)
    assert_same(new, state)
    assert_all_carried(report)


@each_factory
def test_a_stage_in_front_changes_nothing(name):
    tx = example(name)
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
    state = state_of(tx)
    new, report = migrate(state, clipped, PARAMS)
    assert_same(new[1], state)
    assert_all_carried(report)
    back, report = migrate(new, tx, PARAMS)
    assert_same(back, state)
    assert_all_carried(report)


@each_factory
def test_from_dictionaries_everything_is_carried(name):
    import flax.serialization

    tx = example(name)
    state = state_of(tx)
    new, report = migrate(flax.serialization.to_state_dict(state), tx, PARAMS)
    assert_same(new, state)
    assert_all_carried(report)


@each_factory
def test_the_slots_of_every_factory_can_be_reset(name):
    tx = example(name)
    state, fresh = state_of(tx), tx.init(PARAMS)
    new = gradtx.reset(tx, state, PARAMS) if gradtx.find_slots(state, PARAMS) else state
    for slot, was in zip(gradtx.find_slots(new, PARAMS), gradtx.find_slots(fresh, PARAMS), strict=True):
        assert_same(slot.value, was.value)
