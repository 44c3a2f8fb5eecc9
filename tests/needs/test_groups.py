# SPDX-License-Identifier: Apache-2.0
"""Groups of parameters are said by paths, with multiples of the rates of one optimizer, and mistakes are errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"embed": jnp.ones((4, 2)), "block": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
GRADIENTS = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), PARAMS)


def equations(tx):
    """The size of the traced update, with that of the functions in it."""

    def count(jaxpr):
        inner = [x for eqn in jaxpr.eqns for x in eqn.params.values() if hasattr(x, "jaxpr")]
        return len(jaxpr.eqns) + sum(count(x.jaxpr) for x in inner)

    return count(jax.make_jaxpr(tx.update)(GRADIENTS, tx.init(PARAMS), PARAMS).jaxpr)


def one_step(tx):
    return tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)[0]


# Optax.


def by_name(params):
    def label(path, _):
        return "decay" if path[-1].key == "kernle" else "rest"  # a slip of the pen

    return jax.tree_util.tree_map_with_path(label, params)


def test_optax_wants_a_tree_of_labels_and_an_optimizer_for_each():
    tx = optax.partition({"decay": optax.adamw(1e-3, weight_decay=0.1), "rest": optax.adamw(1e-3)}, by_name)
    found = one_step(tx)  # a label that nothing has is no error: no parameter decays as was meant
    expected = one_step(optax.adamw(1e-3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not hasattr(optax, "groups")


def test_optax_runs_an_optimizer_for_each_group():
    def labels(params, last):
        return {"embed": 0, "block": jax.tree.map(lambda _: last, params["block"])}

    def partitioned(n):
        txs = {i: optax.adamw(1e-3 * (1 + i)) for i in range(n)}
        return optax.partition(txs, lambda params: labels(params, n - 1))

    sizes = [equations(partitioned(n)) for n in (2, 10)]
    assert sizes[1] > sizes[0]


# gradtx.


def test_groups_are_said_by_paths():
    rules = [("embed", {"learning_rate": gt.times(0.1)}), ("bias", {"weight_decay": 0.0, "b2": 0.99})]
    found = one_step(gt.groups(rules, gt.adamw(1e-3, weight_decay=0.1)))
    for name, tx in (
        ("embed", gt.adamw(1e-4, weight_decay=0.1)),
        ("kernel", gt.adamw(1e-3, weight_decay=0.1)),
        ("bias", gt.adamw(1e-3, weight_decay=0.0, b2=0.99)),
    ):
        expected = one_step(tx)
        pick = (lambda t: t["embed"]) if name == "embed" else (lambda t, n=name: t["block"][n])
        np.testing.assert_allclose(pick(found), pick(expected), rtol=1e-6)


def test_the_price_is_that_of_one_optimizer():
    def grouped(*names):
        rules = [(name, {"learning_rate": gt.times(0.5 + i)}) for i, name in enumerate(names)]
        return equations(gt.groups(rules, gt.adamw(1e-3)))

    assert grouped("embed") == grouped("embed", "bias", "kernel") < 1.1 * equations(gt.adamw(1e-3))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [("kernle", {"weight_decay": 0.1})],
            "'kernle' chooses no parameter; the closest are block/kernel",
        ),
        ([("block/**", {"b1": 0.5}), ("bias", {"b1": 0.1})], "two rules give block/bias a b1"),
        ([("bias", {"decay": 0.1})], "the base has no argument decay; there are learning_rate"),
    ],
)
def test_mistakes_are_errors(rules, message):
    with pytest.raises(ValueError, match=message):
        gt.groups(rules, gt.adamw(1e-3)).init(PARAMS)
