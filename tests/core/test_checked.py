# SPDX-License-Identifier: Apache-2.0
"""Plain functions hold their callers to the annotations: what is refused, what passes, and what stays as it was."""

import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import curvature, losses, numerics, tree
from gradtx.core._checked import checked
from gradtx.core._kinds import LEVELS, ORDER, POINT, RANGES
from gradtx.core._ranges import Fraction, Positive

X, Y = jnp.ones((2, 3)), jnp.full((2, 3), 0.5)
KEY = jax.random.key(0)
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def bad(**arguments: Any) -> dict[str, Any]:
    """Arguments that a type checker would not let pass."""
    return arguments


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: losses.dice_loss(X, Y, alpha=math.inf), "dice_loss: alpha must be a finite number >= 0, got inf"),
        (
            lambda: losses.dice_loss(X, Y, **bad(apply_softmax=None)),
            "apply_softmax must be True or False, got None",
        ),
        (
            lambda: losses.cosine_similarity(X, Y, axis=True),
            "axis must be .* whole numbers.*got True",
        ),
        (
            lambda: losses.cosine_distance(X, Y[:1]),
            "cosine_distance: cosine_similarity: targets must",
        ),
        (lambda: losses.ntxent(X, jnp.zeros(2), math.inf), "ntxent: temperature must be a finite number > 0, got inf"),
        (
            lambda: losses.l2_loss(X, Y, **bad(weights=X)),
            "l2_loss: got an unexpected keyword argument 'weights'",
        ),
        (lambda: losses.huber_loss(X, Y, **bad(detla=1.0)), "for detla, give delta"),
        (lambda: tree.bias_correction(PARAMS, -1, 3), r"bias_correction: decay must be in \[0, 1\), got -1"),
        (lambda: tree.add(1.0, PARAMS), r"add: the trees do not match: tree_y have \['b'\], \['w'\] at the root"),
        (lambda: tree.norm({"a": "word"}), r"norm: tree must be a tree of arrays, got 'word' \(str\) at \['a'\]"),
        (lambda: tree.cast(PARAMS, "flaot32"), "cast: dtype must be a dtype or None, got 'flaot32'"),
        (
            lambda: curvature.top_eigenvalue(jnp.sum, X, KEY, **bad(num_iters=1j)),
            "num_iters must be a whole number",
        ),
        (lambda: curvature.hessian_vector_product(jnp.sum, X, Y[:1]), "v must be a tree like the parameters"),
        (lambda: numerics.mean(2.0, axis=0), "mean: the arguments do not fit together, got x 2.0, axis 0"),
        (
            lambda: gradtx.adam(0.1, eps=math.inf),
            "adam: eps must be a finite number >= 0, got inf",
        ),
        (lambda: gradtx.adamw(0.1, mask="word"), "adamw: mask must hold True or False at the root, got 'word'"),
        (
            lambda: gradtx.minimize(gradtx.adam, PARAMS),
            "fn must be a function, got the factory adam: call it",
        ),
        # It would take the place of `adam` itself, which printed calls are read by.
        (lambda: gradtx.transformation(gradtx.adam), "transformation: body must be a function, got the factory adam"),
        (lambda: gradtx.schedule(gradtx.adam), "schedule: body must be a function, got the factory adam"),
        (
            lambda: gradtx.tree.periodic_update(PARAMS, PARAMS, 1, "2"),
            "update_period must be a whole number >= 0, got '2'",
        ),
    ],
)
def test_what_is_refused(call, said: str):
    with pytest.raises((TypeError, ValueError), match=said):
        call()


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.float64(0.5), np.asarray(0.5), jnp.float32(0.5), 1])
def test_numbers_of_all_kinds(number):
    assert losses.dice_loss(X, Y, alpha=number).shape == (2,)
    assert tree.scale(number, PARAMS)["b"].shape == (3,)


def test_what_jax_takes_for_arrays():
    assert losses.l2_loss([1.0, 2.0], [1, 2]).shape == (2,)
    assert losses.softmax_cross_entropy_with_integer_labels(X, [0, 1], where=True).shape == (2,)
    assert losses.cosine_similarity(X, Y, **bad(axis=np.int64(0))).shape == (3,)


def test_traced_values_are_never_refused():
    def loss(alpha, delta):
        return losses.dice_loss(X, Y, alpha=alpha).sum() + losses.huber_loss(X, Y, delta=delta).sum()

    assert jnp.isfinite(jax.jit(loss)(0.5, 1.0))
    assert jnp.isfinite(jax.grad(loss)(0.5, 1.0))
    jax.jit(loss)(-1.0, -1.0)  # what it means is not known here


def test_nothing_is_left_in_a_compiled_program():
    with_checks = jax.make_jaxpr(lambda x, y: losses.dice_loss(x, y, alpha=0.3))(X, Y)
    without = jax.make_jaxpr(lambda x, y: losses.dice_loss.__wrapped__(x, y, alpha=0.3))(X, Y)
    assert str(with_checks) == str(without)


def test_names_and_signatures_stay():
    assert losses.dice_loss.__name__ == "dice_loss" and "Milletari" in (losses.dice_loss.__doc__ or "")
    signature = inspect.signature(losses.huber_loss)
    assert list(signature.parameters) == ["predictions", "targets", "delta", "where"]
    assert "delta: Positive = 1.0" in str(signature) and "Range" not in str(signature)
    assert jax.jit(losses.huber_loss, static_argnames="delta")(X, Y, delta=1.0).shape == (2, 3)


def test_an_error_of_a_given_function_is_its_own():
    def broken(params):
        raise ValueError("this is mine")

    with pytest.raises(ValueError, match="^this is mine"):
        curvature.hessian_diagonal(broken, X)
    with pytest.raises(ValueError, match="^this is mine"):
        gradtx.minimize(broken, PARAMS)


@checked
def weighed(x, weight: Positive, share: Fraction = 0.5, *others: float, **named: float):
    """A function of all kinds of parameters."""
    return x, weight, share, others, named


def test_functions_among_the_arguments():
    @checked
    def called(x, first: Annotated[Callable, "of x"], then: Callable | None = None):
        return first(x) if then is None else then(first(x))

    assert called(2, lambda x: x + 1) == 3
    with pytest.raises(TypeError, match="called: first must be a function of x, got 1"):
        called(2, **bad(first=1))
    with pytest.raises(TypeError, match="called: then must be a function or None, got 1"):
        called(2, abs, **bad(then=1))


def test_arguments_by_place_and_by_name():
    assert weighed(1, 2.0) == (1, 2.0, 0.5, (), {})
    assert weighed(1, 2.0, 0.1, 4.0, y=5.0) == (1, 2.0, 0.1, (4.0,), {"y": 5.0})
    with pytest.raises(ValueError, match="weighed: share must be in"):
        weighed(1, share=2, weight=1.0)


def test_recipes_name_the_vectors_that_they_were_given():
    population = gradtx.adam(jnp.asarray([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"adam: learning_rate must be a scalar, got shape \(2,\).*jax.vmap"):
        population.update(PARAMS, gradtx.adam(0.1).init(PARAMS), PARAMS)


@pytest.mark.parametrize("make", [gradtx.clip, gradtx.clip_by_global_norm, gradtx.constant_schedule])
def test_infinity_where_it_means_something(make):
    if make is gradtx.constant_schedule:
        with pytest.raises(ValueError, match="constant_schedule: value must be a finite number, got inf"):
            make(math.inf)
    else:
        assert make(math.inf).init(PARAMS) is not None


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (LEVELS, [2, np.int64(8), [0.5, 1.0], np.ones(3)], [1, 2.5, 1j, True, "8", [[1.0]]]),
        (RANGES, [((0, 1), (0.5, 2.0)), np.eye(2)], [(0, 1), ((0, 1), (0, math.inf)), "((0, 1), (0, 1))"]),
        (POINT, [(0.0, 1), np.zeros(2)], [0.0, (0.0, 1.0, 2.0), "ab"]),
        (ORDER, [2, math.inf, "fro", "nuc"], [math.nan, "fros", 1j, [2]]),
    ],
    ids=["levels", "ranges", "point", "order"],
)
def test_what_the_arguments_of_plots_and_norms_may_be(kind, good, bad):
    assert [kind.fault(x) for x in good] == [None] * len(good)
    assert None not in [kind.fault(x) for x in bad]
