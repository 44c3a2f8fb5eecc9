# SPDX-License-Identifier: Apache-2.0
"""Where optax 0.2.8's L-BFGS and line searches do what theirs here do not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt
from gradtx.compat import optax as compat

pytestmark = pytest.mark.usefixtures("standard_promotion")
X = jnp.asarray([3.0, 4.0])


def bowl(x):
    return 0.5 * jnp.sum(jnp.asarray([1.0, 10.0]) * x**2)


def search(tx, u, f=bowl):
    value, grad = jax.value_and_grad(bowl)(X)
    return tx.update(u, tx.init(X), X, value=value, grad=grad, value_fn=f)


def test_a_pair_of_negative_curvature():
    def second_update(tx):
        state = tx.init(jnp.zeros(2))
        _, state = tx.update(jnp.asarray([1.0, 2.0]), state, jnp.zeros(2))
        return tx.update(jnp.asarray([2.0, 3.0]), state, jnp.full(2, -1.0))[0]

    g = np.asarray([2.0, 3.0])
    assert second_update(optax.scale_by_lbfgs()) @ g < 0  # an update that is subtracted: it climbs
    np.testing.assert_allclose(second_update(gt.scale_by_lbfgs()), g / np.linalg.norm(g), rtol=1e-6)


@pytest.mark.parametrize("search_of", ["scale_by_zoom_linesearch", "scale_by_backtracking_linesearch"])
@pytest.mark.parametrize("size", [1.0, -1e6], ids=["ascent", "too long"])
def test_a_search_that_finds_nothing(search_of, size):
    u = size * jax.grad(bowl)(X)
    theirs, their_state = search(getattr(optax, search_of)(10), u)
    assert bowl(X + theirs) > bowl(X)  # the last trial is taken, though it is worse
    ours, state = search(getattr(gt, search_of)(5 if size < 0 else 10), u)
    assert bowl(X + ours) <= bowl(X) and state.value <= bowl(X)


def test_values_that_are_not_finite():
    def walled(x):
        return jnp.where(x[0] < 2.999, jnp.nan, bowl(x))

    u = -jax.grad(bowl)(X)
    _, state = search(optax.scale_by_backtracking_linesearch(10), u, walled)
    assert np.isnan(state.value) and state.learning_rate == 0  # all later searches begin and end there
    updates, state = search(gt.scale_by_backtracking_linesearch(10), u, walled)
    np.testing.assert_array_equal(updates, 0)
    assert state.value == bowl(X) and state.learning_rate > 0  # the next search goes on from it
    updates, state = search(gt.scale_by_zoom_linesearch(10), u, walled)
    assert walled(X + updates) < bowl(X)


def test_an_argument_that_the_function_does_not_take():
    """It may be of another stage of the chain. Optax raises, and so do `compat` and whoever asks for it."""

    def given(tx):
        value, grad = jax.value_and_grad(bowl)(X)
        return tx.update(
            -grad, tx.init(X), X, value=value, grad=grad, value_fn=lambda x, part=1.0: bowl(x), part=2, more=3
        )

    for lib in (optax, compat):
        for tx in (lib.scale_by_zoom_linesearch(5), lib.scale_by_backtracking_linesearch(5), lib.lbfgs()):
            with pytest.raises(TypeError, match="more"):
                given(tx)
    with pytest.raises(
        TypeError, match="scale_by_zoom_linesearch: value_fn does not take more, which update was given"
    ):
        given(gt.scale_by_zoom_linesearch(5, strict=True))
    loose = given(gt.scale_by_zoom_linesearch(5))[0]
    np.testing.assert_array_equal(loose, given(compat.scale_by_zoom_linesearch(5, strict=False))[0])
    value, grad = jax.value_and_grad(bowl)(X)
    plateau = gt.chain(gt.sgd(1.0), gt.reduce_on_plateau(), gt.scale_by_zoom_linesearch(5))
    plateau.update(grad, plateau.init(X), X, value=value, grad=grad, value_fn=bowl, weight=1.0)


def test_missing_arguments():
    tx = optax.lbfgs()
    with pytest.raises(TypeError, match="missing 3 required keyword-only arguments"):
        tx.update(X, tx.init(X), X)
    tx = gt.lbfgs()
    with pytest.raises(ValueError, match="update needs grad, value, value_fn: call update|needs value, grad, value_fn"):
        tx.update(X, tx.init(X), X)


def test_steps_of_the_searches_differ():
    """Both satisfy the conditions; the trials between which they find a step are not the same."""
    u = -0.01 * jax.grad(bowl)(X)
    slopes = []
    for library in (optax, gt):
        updates, state = search(library.scale_by_zoom_linesearch(20, curv_rtol=0.1), u)
        slopes.append(abs(float(jax.grad(bowl)(X + updates) @ u)))
        assert state.info.decrease_error == 0
    assert max(slopes) <= 0.1 * abs(float(jax.grad(bowl)(X) @ u))
