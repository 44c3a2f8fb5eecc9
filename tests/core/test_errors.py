# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear sentence that names the argument or the path."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import adam, chain, clip_by_global_norm

PARAMS = {"layer": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}}


def halve(count):
    return 0.1


def grads(**changes):
    return {"layer": {**PARAMS["layer"], **changes}}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: adam(0.1, b1=1.5), ValueError, r"adam: b1 must be in \[0, 1\), got 1.5"),
        (lambda: adam(0.1, b1=1.0), ValueError, r"adam: b1 must be in \[0, 1\), got 1.0"),
        (lambda: adam(0.1, b2=np.float32(-0.1)), ValueError, r"adam: b2 must be in \[0, 1\), got -0.1"),
        (lambda: adam(0.1, eps=-1.0), ValueError, "adam: eps must be a number >= 0, got -1.0"),
        (lambda: adam(float("nan")), ValueError, "adam: learning_rate must be a finite number >= 0, got nan"),
        (lambda: clip_by_global_norm(-1), ValueError, "clip_by_global_norm: max_norm must be a number >= 0, got -1"),
        (lambda: adam("1e-3"), TypeError, "adam: learning_rate must be a number, an array or a schedule .*'1e-3'"),
        (lambda: adam(True), TypeError, "adam: learning_rate must be a number"),
        (lambda: adam(None), TypeError, "adam: learning_rate must be a number"),
        (lambda: adam(), TypeError, "adam: missing a required argument: 'learning_rate'; the call is adam"),
        (lambda: adam(0.1, beta1=0.9), TypeError, "adam: got an unexpected keyword argument 'beta1'"),
        (lambda: adam(0.1, nesterov="yes"), TypeError, "adam: nesterov must be True or False, got 'yes'"),
        (lambda: adam(0.1, mu_dtype="bf17"), TypeError, "adam: mu_dtype must be a floating dtype or None, got 'bf17'"),
        (lambda: adam(0.1, mu_dtype=int), ValueError, "adam: mu_dtype must be a floating dtype or None, got int"),
        (lambda: chain(adam), TypeError, r"transformations\[0\] must be a transformation, got the factory adam: call"),
        (lambda: chain(adam(0.1), 3), TypeError, r"transformations\[1\] must be a transformation .*, got 3"),
        (lambda: gradtx.named_chain(adam(0.1)), TypeError, r"must be a \(name, transformation\) pair"),
        (
            lambda: gradtx.named_chain(("a", adam(0.1)), ("a", adam(0.1))),
            ValueError,
            "names of the stages must differ, got 'a' more than once",
        ),
        (lambda: gradtx.sgd(0.1, nesterov=True), ValueError, "nesterov=True needs a momentum"),
        (lambda: gradtx.scale_by_momentum(bias_correction=True), ValueError, "needs averaged=True"),
        (lambda: gradtx.GradientTransformation(1, len), TypeError, "init must be a function, got 1"),
    ],
)
def test_at_the_call(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("tx", "with_params"),  # without parameters, a stage that remembers nothing has nothing to compare with
    [(adam(0.1), True), (adam(0.1), False), (gradtx.sgd(0.1), True), (chain(clip_by_global_norm(1.0)), True)],
    ids=repr,
)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"layer": {"w": PARAMS["layer"]["w"]}}, r"have \['layer'\]\['b'\], which the gradients lack"),
        (grads(extra=jnp.ones(1)), r"the gradients have \['layer'\]\['extra'\], which .* lack"),
        (grads(w=jnp.ones((3, 2))), r"\['layer'\]\['w'\].*\(3, 2\).*\(2, 3\)"),
        (grads(w=jnp.ones((1, 3))), r"\['layer'\]\['w'\].*\(1, 3\).*\(2, 3\)"),
        (grads(w=jnp.ones(())), r"\['layer'\]\['w'\].*\(\).*\(2, 3\)"),
    ],
    ids=["missing", "extra", "transposed", "broadcastable", "scalar"],
)
def test_gradients_that_do_not_fit(tx, with_params, bad, message):
    with pytest.raises(ValueError, match=message):
        tx.update(bad, tx.init(PARAMS), PARAMS if with_params else None)


@pytest.mark.parametrize(
    "tx",
    [adam(0.1), gradtx.scale_by_adam(), gradtx.scale(0.1), gradtx.sgd(halve), chain(adam(0.1)), gradtx.identity()],
    ids=lambda tx: tx.factory.name,
)
def test_swapped_arguments(tx):
    state = tx.init(PARAMS)
    for wrong in ((state, PARAMS, PARAMS), (PARAMS, PARAMS, state)):
        with pytest.raises(TypeError, match="the order is update\\(updates, state, params\\)"):
            tx.update(*wrong)


def test_missing_parameters():
    tx = gradtx.adamw(0.1)
    with pytest.raises(ValueError, match="add_decayed_weights: update needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_gradient_where_there_is_no_parameter():
    tx, params = adam(0.1), {"a": None, "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"the gradients have a value at \['a'\], where the parameter is None"):
        tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, tx.init(params), params)


def test_apply_updates_never_broadcasts():
    with pytest.raises(ValueError, match=r"apply_updates: the update at \['layer'\]\['w'\] has shape \(1, 3\)"):
        gradtx.apply_updates(PARAMS, grads(w=jnp.ones((1, 3))))
    with pytest.raises(ValueError, match="apply_updates: the trees do not match"):
        gradtx.apply_updates(PARAMS, {"layer": {}})


def test_masks_that_do_not_fit():
    with pytest.raises(ValueError, match=r"masked: the trees do not match.*\['layer'\]\['c'\]"):
        gradtx.masked(adam(0.1), {"layer": {"w": True, "c": False}}).init(PARAMS)
    with pytest.raises(TypeError, match=r"mask must hold True or False at \['layer'\], got 1"):
        gradtx.masked(adam(0.1), {"layer": 1}).init(PARAMS)


def test_rules_that_change_the_shape_of_their_state():
    tx = gradtx.per_parameter(lambda p: p, lambda g, s, p, t: (g, s[None]), gradtx.states.TraceState)
    with pytest.raises(ValueError, match=r"at \['layer'\]\['b'\]: the state was made for another shape"):
        tx.update(PARAMS, tx.init(PARAMS))
