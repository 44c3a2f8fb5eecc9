# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear sentence that names the argument or the path."""

from typing import Any, NamedTuple

import jax
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
        (
            lambda: adam(0.1, beta1=0.9),
            TypeError,
            "adam: got an unexpected keyword argument 'beta1'.*; for beta1, give b1$",
        ),
        (
            lambda: adam(lr=1e-3),
            TypeError,
            "adam: got an unexpected keyword argument 'lr'.*; for lr, give learning_rate$",
        ),
        (lambda: adam(0.1, betas=(0.9, 0.99)), TypeError, "for betas, give b1 and b2$"),
        (lambda: adam(0.1, epsilon=1e-6), TypeError, "for epsilon, give eps$"),
        (lambda: adam(0.1, weight_decay=0.1), TypeError, "for weight_decay, adamw has it$"),
        (
            lambda: gradtx.sgd(0.1, weight_decay=0.1),
            TypeError,
            r"chain\(add_decayed_weights\(...\), sgd\(...\)\) has it$",
        ),
        (lambda: gradtx.adamw(0.1, weight_deacy=0.1), TypeError, "for weight_deacy, give weight_decay$"),
        (lambda: gradtx.rmsprop(0.1, rho=0.9), TypeError, "for rho, give decay$"),
        (lambda: gradtx.schedules.cosine(step=100), TypeError, "for step, give steps$"),
        (lambda: adam(0.1, xyz=1), TypeError, r"unexpected keyword argument 'xyz'; the call is .*nu_dtype=None\)$"),
        (lambda: adam(0.1, nesterov="yes"), TypeError, "adam: nesterov must be True or False, got 'yes'"),
        (lambda: adam(0.1, mu_dtype="bf17"), TypeError, "adam: mu_dtype must be a floating dtype or None, got 'bf17'"),
        (lambda: adam(0.1, mu_dtype=int), ValueError, "adam: mu_dtype must be a floating dtype or None, got int"),
        (lambda: chain(adam), TypeError, r"transformations\[0\] must be a transformation, got the factory adam: call"),
        (lambda: chain([adam(0.1), gradtx.clip(1.0)]), TypeError, r"got a list of them: give chain\(\*stages\)"),
        (lambda: gradtx.masked((adam(0.1), adam(0.1)), True), TypeError, "masked: inner .* got a tuple of them"),
        (
            lambda: adam(gradtx.schedules.cosine),
            TypeError,
            r"or a schedule, got the factory cosine: call it, cosine\(...\)",
        ),
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


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gradtx.skipping.skip_when("x"), "skip_when: predicate must be a function, got 'x'"),
        (lambda: gradtx.skipping.GuardRule(1, True), "GuardRule: refuses must be a function, got True"),
        (lambda: gradtx.stateless(3), "stateless: f must be a function, got 3"),
        (lambda: gradtx.adopt(0.1, clip_value_fn="x"), "adopt: clip_value_fn must be a function, got 'x'"),
        (
            lambda: gradtx.conditionally_mask(gradtx.adam(0.1), 5),
            "conditionally_mask: should_transform_fn must be a function",
        ),
    ],
)
def test_what_must_be_a_function(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_function_that_is_not_needed_may_be_left_out():
    gradtx.adopt(0.1, use_clipping=False, clip_value_fn=None)


@pytest.mark.parametrize("use", [adam.init, adam.update, gradtx.chain.init, gradtx.lookahead.update])
def test_a_factory_is_no_transformation(use):
    """Trainers only call `tx.init`."""
    with pytest.raises(
        TypeError, match=r"(\w+) is a factory of transformations, it is none itself: call it, \1\(...\)"
    ):
        use(PARAMS)


def test_a_factory_in_a_trainer():
    nnx, train_state = pytest.importorskip("flax.nnx"), pytest.importorskip("flax.training.train_state")
    with pytest.raises(TypeError, match=r"call it, adam\(...\)"):
        nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), adam, wrt=nnx.Param)
    with pytest.raises(TypeError, match=r"call it, adam\(...\)"):
        train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=adam)


def test_arguments_are_no_attributes():
    with pytest.raises(AttributeError, match=r"adam\(0.1\) has no .*arguments\['learning_rate'\], and replace\(learn"):
        _ = adam(0.1).learning_rate
    with pytest.raises(AttributeError, match="has no attribute 'nix'"):
        _ = adam(0.1).nix
    tx = gradtx.chain(gradtx.clip(1.0), adam(0.1))
    for of in (tx, gradtx.guard(tx)):
        with pytest.raises(AttributeError, match=r"inside .* '.*1.learning_rate', and replace\(learning_rate"):
            _ = of.learning_rate
    with pytest.raises(AttributeError, match="inside .* '0.learning_rate', '1.learning_rate', and replace"):
        _ = gradtx.chain(adam(0.1), adam(0.2)).learning_rate
    with pytest.raises(AttributeError, match="has no attribute 'nix'"):
        _ = tx.nix
    with pytest.raises(AttributeError, match=r"arguments\['steps'\]"):
        _ = gradtx.schedules.cosine(100).steps


@pytest.mark.parametrize("mask", [gradtx.of_kind("hidden"), "bias"], ids=repr)
def test_a_choice_is_no_mask(mask):
    for make in (lambda: gradtx.adamw(0.1, mask=mask), lambda: gradtx.split_frozen(PARAMS, mask)):
        with pytest.raises(
            TypeError, match="must hold True or False at the root, got .*; a choice of parameters is where"
        ):
            make()


@pytest.mark.parametrize(
    "use",
    [
        lambda tree: adam(0.1).init(tree),
        lambda tree: gradtx.sgd(0.1, momentum=0.9).init(tree),
        lambda tree: gradtx.lookahead(adam(0.1), 2, 0.5).init(tree),
        lambda tree: gradtx.lbfgs().init(tree),
        lambda tree: gradtx.stored(adam(0.1), {"mu": gradtx.precision.int8()}).init(tree),
        lambda tree: gradtx.adamw(0.1, mask=lambda p: {"f": p["f"].ndim > 1}).init(tree),
        lambda tree: gradtx.describe(adam(0.1), tree),
        lambda tree: gradtx.find_slots((), tree),
    ],
)
@pytest.mark.parametrize("leaf", [jnp.tanh, "relu"], ids=["function", "string"])
def test_leaves_that_are_no_arrays(use, leaf):
    with pytest.raises(
        TypeError, match=r"parameters must be arrays, got .* at \['f'\]; .* eqx.filter\(model, eqx.is_inexact"
    ):
        use({"f": leaf, "w": jnp.ones(2)})


def test_leaves_that_nobody_asks_for():
    """As in Optax: what keeps nothing makes nothing of the leaves, and the gradients of functions are None."""
    tree, gradients = {"f": jnp.tanh, "w": jnp.ones(2)}, {"f": None, "w": jnp.ones(2)}
    tx = gradtx.sgd(0.5)
    updates, _ = tx.update(gradients, tx.init(tree), tree)
    assert updates["f"] is None
    np.testing.assert_array_equal(updates["w"], [-0.5, -0.5])


# Rules of one's own.


class Mean(NamedTuple):
    mu: Any


class Moments(NamedTuple):
    mu: Any
    nu: Any


def two(p):
    return jnp.zeros_like(p), jnp.zeros_like(p)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            (jnp.zeros_like, lambda g, mu, p, t: (mu / (1 - 0.9**t), mu), Mean),
            "t is None, as Mean has no field 'count'",
        ),
        ((jnp.zeros_like, lambda g, mu, p, t: (g + 0.1 * p, mu), Mean), "p is None, as update got no parameters"),
        (
            (lambda p: (*two(p), p), lambda g, s, p, t: (g, s), Moments),
            r"2 slots, \('mu', 'nu'\), got 3; the state class",
        ),
        ((jnp.zeros_like, lambda g, s, p, t: (g, s), Moments), r"init must return 2 slots, \('mu', 'nu'\), got 1"),
        ((jnp.zeros_like, lambda g, s, p, t: (g, s)), "init must return 0 slots"),
        ((None, lambda g, s, p, t: (g, s), Mean), r"the rule needs an init, as Mean has the slots \('mu',\)"),
        (
            (jnp.zeros_like, lambda g, mu, p, t: mu, Mean),
            r"at \['w'\]: update must return .*\(u, slots\), got one array",
        ),
        ((two, lambda g, s, p, t: (g, *s), Moments), r"at \['w'\]: update must return .* got 3 of them"),
        ((two, lambda g, s, p, t: (g, s[0]), Moments), "new slots like the old, 2 of them, got one array"),
    ],
)
def test_rules_that_do_not_fit(rule, message):
    @gradtx.transformation
    def own():
        return gradtx.per_parameter(*rule)

    gradients = {"w": jnp.ones(3)}
    with pytest.raises((ValueError, TypeError), match=f"own: .*{message}"):
        own().update(gradients, own().init(gradients))


def test_a_count_that_shared_lacks():
    @gradtx.transformation
    def own():
        return gradtx.per_parameter(
            jnp.zeros_like, lambda g, mu, p, t, c: (c * mu, mu), Mean, shared=lambda t, total: 1 / (1 - 0.9**t)
        )

    with pytest.raises(TypeError, match="own: .*; t is None, as Mean has no field 'count'"):
        own().update({"w": jnp.ones(3)}, own().init({"w": jnp.ones(3)}))


@gradtx.transformation
def in_the_body(decay: gradtx.typing.Decay = 0.9):
    rest = 1 - decay
    return gradtx.per_parameter(None, lambda g, s, p, t: (rest * g, s))


@gradtx.transformation
def branching(weight: gradtx.typing.NonNegative = 0.1):
    return gradtx.identity() if weight == 0 else gradtx.scale(2.0) if weight > 1 else gradtx.scale(1.0)


def test_a_hyperparameter_in_the_body():
    tx = in_the_body(gradtx.schedules.linear(4))  # of a schedule there are differences, so this body runs
    state = tx.init(PARAMS)
    for step in range(3):  # 1 - decay is 0, 1/4, 1/2
        updates, state = tx.update(PARAMS, state, PARAMS)
        jax.tree.map(lambda u, g, t=step: np.testing.assert_allclose(u, t / 4 * g), updates, PARAMS)
    for call in (
        lambda: in_the_body(halve),
        lambda: branching(halve),
        lambda: jax.jit(lambda w: branching(w).init(PARAMS))(0.5),
        lambda: jax.jit(lambda tx: tx.init(PARAMS))(branching(0.5)),
    ):
        with pytest.raises(
            TypeError, match="has (decay|weight) as a schedule or traced value; use hyperparameters only in"
        ):
            call()
    # A mistake that is not about a schedule says only itself, and an error of gradtx's own is as clear as it was.
    with pytest.raises(TypeError, match="^adam: learning_rate must be .*'x'"):
        gradtx.groups([("w", {"learning_rate": halve})], adam("x"))

    @gradtx.transformation
    def wrong(rate: gradtx.typing.Real):
        return chain(adam("x"), gradtx.scale(rate))

    with pytest.raises(TypeError, match=r"^adam: learning_rate must be [^.]*got 'x' \(str\)$"):
        wrong(halve)


def test_a_body_that_returns_nothing():
    with pytest.raises(
        TypeError, match="nothing: what the body of the factory returns must be a transformation .* None"
    ):

        @gradtx.transformation
        def nothing():
            gradtx.per_parameter(None, lambda g, s, p, t: (g, s))

        nothing()
