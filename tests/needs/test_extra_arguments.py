# SPDX-License-Identifier: Apache-2.0
"""What `update` must be given besides gradients, state and parameters is declared, and missing in one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from support import registry

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.full((2, 2), 0.5), "b": jnp.ones(2)}


def half_square(params):
    return 0.5 * gt.global_norm(params) ** 2


def loud(name):
    """A stage that must not run."""

    def update(updates, state, params=None):
        raise AssertionError(f"{name} has run")

    return gt.GradientTransformation(lambda params: (), update)


# Optax.


def test_optax_raises_when_the_stage_is_reached():
    tx = optax.chain(loud("the first stage"), optax.polyak_sgd())
    with pytest.raises(AssertionError, match="the first stage has run"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'value'"):
        optax.polyak_sgd().update(PARAMS, optax.polyak_sgd().init(PARAMS), PARAMS)
    assert not hasattr(optax, "needs")


# gradtx.

HUTCHINSON = gt.curvature.hutchinson_estimator_diag_hessian()


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (gt.adamw(0.1), set()),
        (gt.polyak_sgd(), {"value"}),
        (gt.chain(gt.clip(1.0), gt.chain(gt.reduce_on_plateau(), gt.identity()), HUTCHINSON), {"value", "obj_fn"}),
        (gt.named_chain(("a", gt.polyak_sgd(scaling=lambda t: 0.5)), ("b", HUTCHINSON)), {"value", "obj_fn"}),
        (gt.masked(gt.polyak_sgd(), {"w": True, "b": False}), {"value"}),
        (gt.partition({"x": gt.polyak_sgd(), 2: gt.adam(0.1)}, {"w": "x", "b": 2}), {"value"}),
        (gt.selective_transform(gt.polyak_sgd(), freeze_mask={"w": True, "b": False}), {"value"}),
        (gt.sophia(0.1), {"obj_fn"}),
        (gt.sam(gt.polyak_sgd(), gt.sgd(0.1), opaque_mode=True), {"value", "grad_fn"}),
        (gt.sam(gt.polyak_sgd(), gt.sgd(0.1)), {"value"}),
        (gt.MultiSteps(gt.sgd(0.1), 2, averaged=("value",)), {"value"}),
        (gt.inject_hyperparams(gt.polyak_sgd)(), {"value"}),
        (gt.chain(gt.clip(1.0), gt.lbfgs()), {"value", "grad", "value_fn"}),
        (optax.polyak_sgd(), set()),  # a chain of optax does not tell
        (optax.scale_by_polyak(), {"value"}),
        (gt.chain(optax.scale_by_polyak()), {"value"}),
    ],
    # A set prints in another order in each process.
    ids=lambda x: " and ".join(sorted(x)) if isinstance(x, set) else repr(x)[:60],
)
def test_needs_are_known_without_a_state(tx, expected):
    assert gt.needs(tx) == expected


@pytest.mark.parametrize(
    "chain", [gt.chain, lambda *stages: gt.named_chain(*((str(i), s) for i, s in enumerate(stages)))]
)
def test_all_that_is_missing_is_named_before_anything_runs(chain):
    tx = chain(loud("the first stage"), gt.masked(gt.polyak_sgd(), {"w": True, "b": False}), HUTCHINSON)
    message = (
        r"^scale_by_polyak: update needs value; hutchinson_estimator_diag_hessian: update needs obj_fn: "
        r"call update\(updates, state, params, value=..., obj_fn=...\)$"
    )
    with pytest.raises(ValueError, match=message):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"^hutchinson\w+: update needs obj_fn: call update\(.*params, obj_fn=...\)$"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0, obj_fn=None)
    with pytest.raises(AssertionError, match="the first stage has run"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0, obj_fn=half_square)


def test_a_trainer_gives_what_is_needed():
    def step(tx, params, state):
        value, grads = jax.value_and_grad(half_square)(params)
        known = {"value": value, "obj_fn": half_square}
        updates, state = tx.update(grads, state, params, **{n: known[n] for n in gt.needs(tx)})
        return gt.apply_updates(params, updates), state

    for tx in (gt.adam(0.1), gt.polyak_sgd(), gt.sophia(0.1), gt.chain(gt.sophia(0.1), gt.reduce_on_plateau())):
        params, _ = jax.jit(step, static_argnums=0)(tx, PARAMS, tx.init(PARAMS))
        assert half_square(params) < half_square(PARAMS)


def test_a_wrapper_that_supplies_an_argument_says_so():
    @gt.transformation
    def with_value(inner: object):
        inner = gt.with_extra_args_support(inner)

        def update(updates, state, params=None, **extra):
            return inner.update(updates, state, params, value=half_square(params))

        return gt.GradientTransformationExtraArgs(inner.init, update, needs=())

    tx = gt.chain(with_value(gt.polyak_sgd()))
    assert gt.needs(tx) == set()
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["b"], -0.5, rtol=1e-6)


def fits(tx, extra):
    state = jax.eval_shape(tx.init, registry.PARAMS)
    try:
        jax.eval_shape(lambda g, s, p: tx.update(g, s, p, **extra), registry.GRADIENTS, state, registry.PARAMS)
    except ValueError:
        return False
    except TypeError as error:  # what Python says of a keyword that an `update` by hand has no default for
        if "missing" not in str(error):
            raise
        return False
    return True


@pytest.mark.slow
def test_what_factories_declare_is_what_they_need():
    for name in registry.COVERED:
        tx, given = registry.example(name), registry.extra_arguments(name)
        needed = {n: given[n] for n in gt.needs(tx)}
        assert fits(tx, needed), name
        assert [n for n in needed if fits(tx, {k: x for k, x in needed.items() if k != n})] == [], name
