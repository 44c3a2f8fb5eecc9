# SPDX-License-Identifier: Apache-2.0
"""Short names of metrics, learning rates that are constant, and whether the last step was skipped."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt
from support.registry import FACTORIES, example

PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
RATE = gt.linear_schedule(1.0, 0.0, 8)
NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.usefixtures("standard_promotion")


def begun(tx):
    """A state of zeros, which is made faster than that of `init`."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tx.init, PARAMS))


def seen(tx):
    return {name: float(x) for name, x in gt.metrics(begun(tx), tx).items()}


def test_constant_learning_rates_appear():
    assert seen(gt.adamw(0.25)) == {"learning_rate": 0.25}
    assert seen(gt.chain(gt.clip(1.0), gt.scale_by_adam(b1=0.8), gt.scale_by_lr(0.25))) == {"learning_rate": 0.25}
    assert seen(gt.muon(0.25, adam_learning_rate=0.5)) == {"learning_rate": 0.25, "adam_learning_rate": 0.5}
    assert seen(gt.delta_bar_delta(0.25)) == {"learning_rate": 0.25}  # its stage has another name for it
    assert seen(gt.lbfgs()).keys() >= {"learning_rate", "num_linesearch_steps"}


def test_a_traced_rate_appears():
    state = begun(gt.adam(0.25))
    assert jax.jit(lambda tx: gt.metrics(state, tx)["learning_rate"])(gt.adam(0.5)) == 0.5


@pytest.mark.parametrize("name", [n for n, f in FACTORIES.items() if "learning_rate" in f.hyperparameters])
def test_every_rate_has_one_name_whether_it_is_scheduled_or_not(name):
    tx = example(name).replace(learning_rate=0.25)
    scheduled = tx.replace(learning_rate=gt.constant_schedule(0.25))
    rates, others = ({n: x for n, x in seen(t).items() if n.endswith("learning_rate")} for t in (tx, scheduled))
    assert rates == others
    own = {"lbfgs": "lbfgs.learning_rate", "schedule_free": "ScheduleFree.learning_rate"}.get(name, "learning_rate")
    if FACTORIES[name].module.startswith("gradtx.recipes."):
        return  # it multiplies the rate with its own schedule
    want = 0.25 / (1 + 0.25**2) ** 0.5 if name == "fromage" else 0.25  # what is left of it after the shrinkage
    assert rates[own] == pytest.approx(want, rel=1e-6)


def test_the_rate_is_that_in_effect():
    tx = gt.schedule_free_sgd(1.0, warmup_steps=4)
    assert seen(tx) == {"learning_rate": 0.25}


def test_a_rate_in_the_state_is_reported_once():
    tx = gt.inject_hyperparams(gt.adam)(0.25)
    assert set(gt.metrics(tx.init(PARAMS), tx)) == {"b1", "b2", "eps", "eps_root", "learning_rate"}


def test_stages_and_groups_of_the_same_name_are_told_apart():
    recorded = gt.record_metrics(gt.clip(1.0), ("grad_norm",))
    tx = gt.chain(recorded, gt.scale(2.0), recorded, gt.sgd(RATE))
    assert set(seen(tx)) == {"0.grad_norm", "2.grad_norm", "learning_rate"}
    assert set(seen(gt.reset_every(tx, 3))) == set(seen(tx))
    tx = gt.partition({"x.y": tx, "x": gt.adam(0.5)}, {"w": "x.y", "b": "x"})
    assert set(seen(tx)) == {"0.grad_norm", "2.grad_norm", "x.learning_rate", "x.y.learning_rate"}
    nested = gt.chain(gt.chain(recorded, recorded), recorded)
    assert set(seen(nested)) == {"0.0.grad_norm", "0.1.grad_norm", "1.grad_norm"}


def test_a_wrapper_names_its_own_after_its_state():
    tx = gt.guard(gt.guard(gt.guard(gt.identity())))
    assert [n for n in seen(tx) if n.endswith("skipped")] == [
        *("Guard.Guard.skipped", "Guard.skipped", "skipped", "step_skipped")
    ]


def test_an_ascent_and_a_direction_leave_the_names_to_what_moves_the_parameters():
    assert seen(gt.sam(gt.sgd(0.5), gt.sgd(0.25))) == {"learning_rate": 0.5, "adv_state.learning_rate": 0.25}
    assert seen(gt.graft(gt.sgd(0.5), gt.sgd(0.25))) == {"learning_rate": 0.25, "direction_state.learning_rate": 0.5}


def skips(tx, factors):
    """Whether each step was skipped, with gradients of ones times these factors."""
    update, state, found = jax.jit(tx.update), tx.init(PARAMS), []
    for factor in factors:
        _, state = update(jax.tree.map(lambda p, f=factor: f * jnp.ones_like(p), PARAMS), state, PARAMS)
        found.append(bool(gt.metrics(state, tx)["step_skipped"]))
    return found


@pytest.mark.parametrize(
    ("tx", "factors", "want"),
    [
        (gt.guard(gt.sgd(0.1)), [1, NAN, 1, INF, INF], [0, 1, 0, 1, 1]),
        (gt.guard(gt.sgd(0.1), gt.skipping.skip_when(lambda step: step.norm > 9)), [1, 10, 1], [0, 1, 0]),
        (gt.chain(gt.clip(1.0), gt.with_roles((("**", gt.Role()),), gt.guard(gt.sgd(0.1)))), [1, NAN, 1], [0, 1, 0]),
        # A scale that has just grown, and one that has just shrunk.
        (gt.dynamic_loss_scale(gt.sgd(0.1), growth_interval=2), [1, 1, NAN, 1, 1, 1], [0, 0, 1, 0, 0, 0]),
        # After two errors in a row, gradients are taken as they are.
        (gt.apply_if_finite(gt.sgd(0.1), 2), [1, NAN, NAN, NAN, 1], [0, 1, 1, 0, 0]),
        # A round of which one gradient is dropped, and one of which both are.
        (gt.MultiSteps(gt.sgd(0.1), 2), [NAN, 1, NAN, NAN, 1, 1], [0, 0, 0, 1, 0, 0]),
        (
            gt.guard(gt.guard(gt.sgd(0.1), gt.skipping.skip_when(lambda step: step.norm > 9))),
            [1, 10, NAN, 1],
            [0, 1, 1, 0],
        ),
    ],
)
def test_whether_the_last_step_was_skipped(tx, factors, want):
    assert skips(tx, factors) == list(map(bool, want))


def test_a_scale_grows_after_as_many_finite_steps_as_before():
    tx = gt.dynamic_loss_scale(gt.sgd(0.1), 8.0, growth_interval=2)
    state, scales = tx.init(PARAMS), []
    for factor in (NAN, 1, 1, 1, NAN, 1, 1):
        _, state = tx.update(jax.tree.map(lambda p, f=factor: f * p, PARAMS), state, PARAMS)
        scales.append(float(gt.loss_scale(state)))
    assert scales == [4, 4, 8, 8, 4, 4, 8]


class Lazy(NamedTuple):
    idle: jax.Array

    def step_skipped(self, tx):
        return self.idle


def test_a_state_of_your_own_says_so_too():
    tx = gt.GradientTransformation(lambda p: Lazy(jnp.asarray(True)), lambda u, s, p=None: (u, s))
    assert gt.metrics(tx.init(PARAMS)) == {"step_skipped": True}
    assert gt.metrics(gt.adam(0.1).init(PARAMS)) == {}


@pytest.mark.slow
def test_variables_of_nnx_are_opened():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    tx = gt.guard(gt.adamw(RATE))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    seen = gt.metrics(optimizer.opt_state, optimizer.tx)
    assert seen["learning_rate"] == 1.0 and not seen["step_skipped"]
    np.testing.assert_allclose(seen["grad_norm"], 3**0.5, rtol=1e-6)
